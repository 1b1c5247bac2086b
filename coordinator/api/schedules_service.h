// The service ll.v1.Schedules (proto/schedules.proto says what each method promises). A schedule's
// job is admitted when the schedule is made: what is stored is what every fire submits.
#pragma once

#include "coordinator/api/admission.h"
#include "coordinator/api/call.h"
#include "coordinator/api/submission.h"
#include "proto/schedules.grpc.pb.h"

namespace ll {

class SchedulesService : public v1::Schedules::CallbackService {
 public:
  // The context must outlive the gRPC server.
  SchedulesService(const ApiContext& api, AdmissionOptions admission)
      : api_(api), admission_(admission) {}

  grpc::ServerUnaryReactor* Create(grpc::CallbackServerContext* context,
                                   const v1::CreateScheduleRequest* request,
                                   v1::Schedule* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context,
                                 const v1::ListSchedulesRequest* request,
                                 v1::ListSchedulesResponse* response) override;
  grpc::ServerUnaryReactor* Get(grpc::CallbackServerContext* context,
                                const v1::GetScheduleRequest* request,
                                v1::Schedule* response) override;
  grpc::ServerUnaryReactor* Delete(grpc::CallbackServerContext* context,
                                   const v1::DeleteScheduleRequest* request,
                                   v1::Schedule* response) override;
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* context,
                                const v1::RunScheduleRequest* request, v1::Job* response) override;
  grpc::ServerUnaryReactor* Pause(grpc::CallbackServerContext* context,
                                  const v1::PauseScheduleRequest* request,
                                  v1::Schedule* response) override;
  grpc::ServerUnaryReactor* Resume(grpc::CallbackServerContext* context,
                                   const v1::ResumeScheduleRequest* request,
                                   v1::Schedule* response) override;

 private:
  void CreatePlanned(UnaryCall call, const v1::CreateScheduleRequest& request,
                     ScheduleRecord record, const SubmitPlan& plan,
                     const std::map<JobId, SourceJob>& sources, v1::Schedule* response);
  void RequestAndAnswer(UnaryCall call, Event event, const std::string& name,
                        v1::Schedule* response);

  const ApiContext& api_;
  const AdmissionOptions admission_;
};

}  // namespace ll
