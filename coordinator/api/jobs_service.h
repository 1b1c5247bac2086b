// The service ll.v1.Jobs (proto/jobs.proto says what each method promises). Handlers check the
// caller and the request on gRPC's threads, ask the driver, and answer from its thread; none
// blocks.
#pragma once

#include <functional>
#include <string>

#include "coordinator/api/admission.h"
#include "coordinator/api/call.h"
#include "coordinator/api/convert.h"
#include "coordinator/api/follow.h"
#include "coordinator/api/rank_input.h"
#include "coordinator/api/submission.h"
#include "coordinator/runtime/recent_keys.h"
#include "proto/jobs.grpc.pb.h"

namespace ll {

struct JobsOptions {
  AdmissionOptions admission;
  std::string data_dir;
  // Submits are refused where the disk of data_dir has less left, so that running jobs can still be
  // written down.
  int64_t min_free_bytes = 16 << 20;
};

class JobsService : public v1::Jobs::CallbackService {
 public:
  // The context, the hub and the ranks' input must outlive the gRPC server.
  JobsService(const ApiContext& api, FollowHub& hub, RankInput& ranks, JobsOptions options)
      : api_(api), hub_(hub), ranks_(ranks), options_(std::move(options)) {}

  grpc::ServerUnaryReactor* Submit(grpc::CallbackServerContext* context,
                                   const v1::SubmitRequest* request,
                                   v1::SubmitResponse* response) override;
  grpc::ServerUnaryReactor* SubmitAll(grpc::CallbackServerContext* context,
                                      const v1::SubmitAllRequest* request,
                                      v1::SubmitAllResponse* response) override;
  grpc::ServerUnaryReactor* Get(grpc::CallbackServerContext* context, const v1::GetRequest* request,
                                v1::Job* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context,
                                 const v1::ListRequest* request,
                                 v1::ListResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchResponse>* Watch(grpc::CallbackServerContext* context,
                                                     const v1::WatchRequest* request) override;
  grpc::ServerWriteReactor<v1::LogsResponse>* Logs(grpc::CallbackServerContext* context,
                                                   const v1::LogsRequest* request) override;
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context,
                                   const v1::CancelRequest* request, v1::Job* response) override;
  grpc::ServerUnaryReactor* Pause(grpc::CallbackServerContext* context,
                                  const v1::PauseRequest* request, v1::Job* response) override;
  grpc::ServerUnaryReactor* Resume(grpc::CallbackServerContext* context,
                                   const v1::ResumeRequest* request, v1::Job* response) override;
  grpc::ServerUnaryReactor* Checkpoints(grpc::CallbackServerContext* context,
                                        const v1::CheckpointsRequest* request,
                                        v1::CheckpointsResponse* response) override;
  grpc::ServerUnaryReactor* Why(grpc::CallbackServerContext* context, const v1::WhyRequest* request,
                                v1::WhyResponse* response) override;
  grpc::ServerUnaryReactor* Say(grpc::CallbackServerContext* context, const v1::SayRequest* request,
                                v1::SayResponse* response) override;

 private:
  // The jobs of a submit, in the order of its members.
  struct Submitted {
    std::vector<v1::Job> jobs;
    bool existed = false;
  };
  using SubmitAnswer = std::function<void(absl::StatusOr<Submitted>)>;
  // Admission, with the jobs that weights come from looked up first, then the scheduler's word.
  void SubmitJobs(const UnaryCall& call, std::shared_ptr<const SubmitPlan> plan,
                  SubmitAnswer answer);
  void SubmitAdmitted(const UnaryCall& call, std::shared_ptr<const SubmitPlan> plan,
                      std::vector<AdmittedMember> members, SubmitAnswer answer);
  // A request id that is known keeps its answer, also when the jobs would not be admitted any more.
  void AnswerRefused(const UnaryCall& call, std::shared_ptr<const SubmitPlan> plan,
                     absl::Status why, SubmitAnswer answer);
  void RequestAndAnswer(UnaryCall call, Event event, v1::Job* response);
  // Calls `read` on the driver's thread, or finishes the call where there is no such job.
  void ReadJob(const UnaryCall& call, const std::string& id,
               std::function<void(const Job& job, const Scheduler& view)> read);
  // Reads a job's files on another thread, then answers; one whose caller has left reads nothing.
  void ReadFiles(const UnaryCall& call, std::function<void()> read);
  // With a `view` also when a job that waits is expected to start.
  v1::Job ToProto(const Job& job, JobDetail detail, const Scheduler* view = nullptr) const;

  const ApiContext& api_;
  FollowHub& hub_;
  RankInput& ranks_;
  const JobsOptions options_;
  RecentKeys said_{10'000};  // by Say; the driver's thread alone
};

}  // namespace ll
