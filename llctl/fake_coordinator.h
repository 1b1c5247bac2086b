// A coordinator for tests: a real gRPC server in this process whose answers the test writes.
#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/field_error.h"
#include "proto/admin.grpc.pb.h"
#include "proto/jobs.grpc.pb.h"
#include "proto/schedules.grpc.pb.h"
#include "rpc/status.h"

namespace ll {

// The service Schedules, whose method names are those of Jobs: an object of its own.
struct FakeSchedules : public v1::Schedules::Service {
  std::function<absl::Status(const std::string& what)> note;
  std::function<v1::Job()> job;
  std::vector<v1::CreateScheduleRequest> made;

  static v1::Schedule Nightly() {
    v1::Schedule schedule;
    schedule.set_name("nightly");
    schedule.set_cron("0 2 * * *");
    schedule.set_time_zone("Europe/Berlin");
    v1::ScheduleRun* run = schedule.add_runs();
    run->set_number(2);
    run->set_job_id("job-000000000002");
    run->set_fires(1);
    run->set_verdict(v1::ScheduleRun::REGRESSED);
    run->set_verdict_reason("final loss 2.5 is 25 % above 2");
    run->set_diverging_step(120);
    run = schedule.add_runs();
    run->set_number(1);
    run->set_fires(3);
    run->mutable_fire_time()->set_seconds(1774746000);
    run->mutable_first_fire_time()->set_seconds(1774573200);
    run->set_reason("missed");
    return schedule;
  }
  grpc::Status Create(grpc::ServerContext*, const v1::CreateScheduleRequest* request,
                      v1::Schedule* response) override {
    made.push_back(*request);
    *response = request->schedule();
    return ToGrpcStatus(note("create " + request->schedule().name()));
  }
  grpc::Status List(grpc::ServerContext*, const v1::ListSchedulesRequest*,
                    v1::ListSchedulesResponse* response) override {
    *response->add_schedules() = Nightly();
    return grpc::Status::OK;
  }
  grpc::Status Get(grpc::ServerContext*, const v1::GetScheduleRequest*,
                   v1::Schedule* response) override {
    *response = Nightly();
    return grpc::Status::OK;
  }
  grpc::Status Delete(grpc::ServerContext*, const v1::DeleteScheduleRequest* request,
                      v1::Schedule*) override {
    return ToGrpcStatus(note("delete " + request->name()));
  }
  grpc::Status Run(grpc::ServerContext*, const v1::RunScheduleRequest* request,
                   v1::Job* response) override {
    *response = job();
    return ToGrpcStatus(note("run " + request->name()));
  }
  grpc::Status Pause(grpc::ServerContext*, const v1::PauseScheduleRequest* request,
                     v1::Schedule* response) override {
    *response = Nightly();
    return ToGrpcStatus(note("pause " + request->name()));
  }
  grpc::Status Resume(grpc::ServerContext*, const v1::ResumeScheduleRequest* request,
                      v1::Schedule* response) override {
    *response = Nightly();
    return ToGrpcStatus(note("resume " + request->name()));
  }
};

// Each call takes the answer of its own member; `failure`, when set, is the answer to everything.
class FakeCoordinator : public v1::Jobs::Service, public v1::Admin::Service {
 public:
  FakeCoordinator() {
    schedules.note = [this](const std::string& what) {
      std::lock_guard lock(mutex);
      controls.push_back(what);
      return failure;
    };
    schedules.job = [this] { return job; };
    Start("127.0.0.1:0");
  }
  ~FakeCoordinator() override { Stop(); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  void Stop() {
    if (server_)
      server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
    server_.reset();
  }
  void Restart() { Start(address()); }

  absl::Status failure;
  v1::Job job;                   // of Submit, Get, Cancel, Pause, Resume, Why
  std::vector<v1::Job> jobs;     // of List, a page at a time
  std::vector<v1::Job> members;  // of Submit
  int page_size = 1000;          // pages are no larger
  std::vector<std::vector<v1::WatchResponse>>
      watches;                     // one list a stream; a list then ends with `watch_end`
  grpc::Status watch_end;          // of every stream but the last one
  std::function<void()> on_watch;  // runs while a stream is open, after its messages
  std::vector<std::string> log_chunks;

  FakeSchedules schedules;

  // What came in.
  std::mutex mutex;
  std::vector<v1::SubmitRequest> submits;
  std::vector<v1::SubmitAllRequest> submits_all;
  std::vector<v1::ListRequest> lists;
  std::vector<v1::WatchRequest> watch_requests;
  std::vector<v1::LogsRequest> logs_requests;
  std::vector<v1::AddModelRequest> models_added;
  std::vector<std::string> controls;  // "cancel job-1"
  std::string authorization;          // of the last Submit

  grpc::Status Submit(grpc::ServerContext* context, const v1::SubmitRequest* request,
                      v1::SubmitResponse* response) override {
    std::lock_guard lock(mutex);
    const auto& metadata = context->client_metadata();
    if (auto it = metadata.find("authorization"); it != metadata.end()) {
      authorization = std::string(it->second.data(), it->second.size());
    }
    submits.push_back(*request);
    *response->mutable_job() = job;
    *response->mutable_job()->mutable_spec() = request->spec();
    for (const v1::Job& member : members) *response->add_members() = member;
    return ToGrpcStatus(failure);
  }
  grpc::Status SubmitAll(grpc::ServerContext*, const v1::SubmitAllRequest* request,
                         v1::SubmitAllResponse* response) override {
    std::lock_guard lock(mutex);
    submits_all.push_back(*request);
    for (const v1::SubmitMember& member : request->members()) {
      v1::Job* made = response->add_jobs();
      *made = job;
      *made->mutable_spec() = member.spec();
    }
    return ToGrpcStatus(failure);
  }
  grpc::Status Get(grpc::ServerContext*, const v1::GetRequest* request,
                   v1::Job* response) override {
    *response = job;
    return request->job_id() == job.job_id()
               ? ToGrpcStatus(failure)
               : grpc::Status(grpc::NOT_FOUND, "no job " + request->job_id());
  }
  grpc::Status List(grpc::ServerContext*, const v1::ListRequest* request,
                    v1::ListResponse* response) override {
    std::lock_guard lock(mutex);
    lists.push_back(*request);
    const size_t first = request->page_token().empty() ? 0 : std::stoul(request->page_token());
    size_t next = first;
    for (; next < jobs.size() &&
           static_cast<int>(next - first) < std::min(page_size, request->page_size());
         ++next) {
      *response->add_jobs() = jobs[next];
    }
    if (next < jobs.size()) response->set_next_page_token(std::to_string(next));
    return ToGrpcStatus(failure);
  }
  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override {
    std::vector<v1::WatchResponse> messages;
    bool last = true;
    {
      std::lock_guard lock(mutex);
      watch_requests.push_back(*request);
      if (!failure.ok()) return ToGrpcStatus(failure);
      if (!watches.empty()) {
        messages = watches.front();
        watches.erase(watches.begin());
        last = watches.empty();
      }
    }
    for (const auto& message : messages) writer->Write(message);
    if (on_watch) on_watch();
    return last ? grpc::Status::OK : watch_end;
  }
  grpc::Status Logs(grpc::ServerContext*, const v1::LogsRequest* request,
                    grpc::ServerWriter<v1::LogsResponse>* writer) override {
    std::lock_guard lock(mutex);
    logs_requests.push_back(*request);
    int64_t offset = std::max<int64_t>(0, request->offset());
    for (const std::string& chunk : log_chunks) {
      v1::LogsResponse response;
      response.set_offset(offset);
      response.set_data(chunk);
      offset += static_cast<int64_t>(chunk.size());
      writer->Write(response);
    }
    return ToGrpcStatus(failure);
  }
  grpc::Status Cancel(grpc::ServerContext*, const v1::CancelRequest* request,
                      v1::Job* response) override {
    return Control("cancel " + request->job_id() + " " + request->reason(), response);
  }
  grpc::Status Pause(grpc::ServerContext*, const v1::PauseRequest* request,
                     v1::Job* response) override {
    return Control("pause " + request->job_id(), response);
  }
  grpc::Status Resume(grpc::ServerContext*, const v1::ResumeRequest* request,
                      v1::Job* response) override {
    return Control("resume " + request->job_id(), response);
  }
  grpc::Status Why(grpc::ServerContext*, const v1::WhyRequest*,
                   v1::WhyResponse* response) override {
    response->set_sentence("it waits for 2 slots");
    *response->mutable_job() = job;
    return ToGrpcStatus(failure);
  }
  grpc::Status Checkpoints(grpc::ServerContext*, const v1::CheckpointsRequest*,
                           v1::CheckpointsResponse* response) override {
    v1::CheckpointRecord* newest = response->add_checkpoints();
    newest->set_step(200);
    newest->set_epoch(2);
    newest->set_size_bytes(12'000'000);
    newest->set_loss(1.25);
    newest->set_path("/jobs/job-1/e0002/checkpoints/step-000200");
    newest->set_kept("newest");
    v1::CheckpointRecord* copy = response->add_checkpoints();
    copy->set_step(100);
    copy->set_epoch(1);
    copy->set_path("/jobs/job-1/e0001/checkpoints/step-000100");
    copy->set_removed(true);
    copy->set_copy_uri("s3://bucket/job-1/e0001/step-000100");
    copy->set_kept("multiple of 100");
    return ToGrpcStatus(failure);
  }
  grpc::Status ListWorkers(grpc::ServerContext*, const v1::ListWorkersRequest*,
                           v1::ListWorkersResponse* response) override {
    v1::Worker* worker = response->add_workers();
    worker->set_worker("w1");
    worker->set_host("host-a");
    worker->set_connected(true);
    for (int i = 0; i < 2; ++i) {
      v1::Slot* slot = worker->add_slots();
      slot->set_index(i);
      slot->set_kind("cpu");
      slot->set_memory_bytes(8'000'000'000);
    }
    return ToGrpcStatus(failure);
  }
  grpc::Status AddModel(grpc::ServerContext*, const v1::AddModelRequest* request,
                        v1::Model* response) override {
    std::lock_guard lock(mutex);
    models_added.push_back(*request);
    response->set_name(request->name());
    response->set_path(request->path());
    return ToGrpcStatus(failure);
  }
  grpc::Status Version(grpc::ServerContext*, const v1::VersionRequest*,
                       v1::VersionResponse* response) override {
    response->set_version("9.9.9");
    response->set_store("sqlite");
    response->set_term(3);
    return ToGrpcStatus(failure);
  }

 private:
  void Start(const std::string& address) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(static_cast<v1::Jobs::Service*>(this));
    builder.RegisterService(static_cast<v1::Admin::Service*>(this));
    builder.RegisterService(&schedules);
    server_ = builder.BuildAndStart();
  }
  grpc::Status Control(const std::string& what, v1::Job* response) {
    std::lock_guard lock(mutex);
    controls.push_back(what);
    *response = job;
    return ToGrpcStatus(failure);
  }

  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace ll
