// What a cluster's jobs are asked, told and waited for, and what they leave on disk.
#include <chrono>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "nlohmann/json.hpp"
#include "rpc/status.h"
#include "tests/cluster/cluster.h"

namespace ll {
namespace {

namespace fs = std::filesystem;

}  // namespace

std::unique_ptr<grpc::ClientContext> CallContext(absl::Duration deadline) {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(deadline));
  return context;
}

absl::StatusOr<std::string> ApiClient::Submit(const v1::JobSpec& spec,
                                              const std::string& request_id, bool* existed) {
  v1::SubmitRequest request;
  *request.mutable_spec() = spec;
  request.set_request_id(request_id);
  v1::SubmitResponse response;
  const grpc::Status status = jobs->Submit(CallContext().get(), request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  if (existed != nullptr) *existed = response.existed();
  return response.job().job_id();
}

absl::StatusOr<v1::Job> Cluster::Get(const std::string& job_id) {
  v1::GetRequest request;
  request.set_job_id(job_id);
  request.set_history(true);
  v1::Job job;
  const grpc::Status status = api_->jobs->Get(CallContext().get(), request, &job);
  if (!status.ok()) return FromGrpcStatus(status);
  return job;
}

absl::Status Cluster::Cancel(const std::string& job_id) {
  v1::CancelRequest request;
  request.set_job_id(job_id);
  v1::Job job;
  return FromGrpcStatus(api_->jobs->Cancel(CallContext().get(), request, &job));
}

absl::Status Cluster::Pause(const std::string& job_id) {
  v1::PauseRequest request;
  request.set_job_id(job_id);
  v1::Job job;
  return FromGrpcStatus(api_->jobs->Pause(CallContext().get(), request, &job));
}

absl::Status Cluster::Resume(const std::string& job_id) {
  v1::ResumeRequest request;
  request.set_job_id(job_id);
  v1::Job job;
  return FromGrpcStatus(api_->jobs->Resume(CallContext().get(), request, &job));
}

std::vector<v1::Job> Cluster::ListAll() {
  std::vector<v1::Job> out;
  v1::ListRequest request;
  request.set_page_size(50);
  do {
    v1::ListResponse response;
    const grpc::Status status = api_->jobs->List(CallContext().get(), request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    out.insert(out.end(), response.jobs().begin(), response.jobs().end());
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  return out;
}

LossesByStep Cluster::WatchSteps(const std::string& job_id, absl::Duration timeout) {
  v1::WatchRequest request;
  request.set_job_id(job_id);
  const auto context = CallContext(timeout);
  auto stream = api_->jobs->Watch(context.get(), request);
  LossesByStep out;
  v1::WatchResponse response;
  while (stream->Read(&response)) {
    if (response.has_step())
      out[response.step().step()].insert(nlohmann::json(response.step().loss()).dump());
  }
  const grpc::Status status = stream->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  return out;
}

Cluster::Watched Cluster::WatchThroughCuts(const std::string& job_id, absl::Duration timeout,
                                           absl::Notification* began) const {
  const auto client = NewClient();
  const absl::Time deadline = absl::Now() + timeout;
  Watched out;
  v1::WatchRequest request;
  request.set_job_id(job_id);
  grpc::Status status;
  do {
    const auto context = CallContext(timeout);
    auto stream = client->jobs->Watch(context.get(), request);
    v1::WatchResponse response;
    while (stream->Read(&response)) {
      if (began != nullptr && !began->HasBeenNotified()) began->Notify();
      request.set_resume_token(response.resume_token());
      response.clear_resume_token();
      if (response.has_job()) {
        out.states.push_back(v1::JobState_Name(response.job().state()));
      } else {
        out.others.push_back(response.ShortDebugString());
      }
    }
    status = stream->Finish();
    if (status.ok()) break;
    ++out.cuts;
    absl::SleepFor(absl::Milliseconds(20));
  } while (status.error_code() == grpc::StatusCode::UNAVAILABLE && absl::Now() < deadline);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return out;
}

std::string Cluster::Log(const std::string& job_id, int rank) {
  v1::LogsRequest request;
  request.set_job_id(job_id);
  request.set_rank(rank);
  const auto context = CallContext();
  auto stream = api_->jobs->Logs(context.get(), request);
  std::string out;
  v1::LogsResponse response;
  while (stream->Read(&response)) out += response.data();
  const grpc::Status status = stream->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  return out;
}

v1::Job Cluster::Await(const std::string& job_id, const std::function<bool(const v1::Job&)>& done,
                       absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  v1::Job last;
  while (absl::Now() < deadline) {
    const auto job = Get(job_id);
    if (job.ok()) {
      last = *job;
      if (done(last)) return last;
    }
    absl::SleepFor(absl::Milliseconds(20));
  }
  ADD_FAILURE() << "waited " << absl::FormatDuration(timeout) << "; the job is\n"
                << last.DebugString();
  return last;
}

v1::Job Cluster::AwaitState(const std::string& job_id, v1::JobState state, absl::Duration timeout) {
  const auto ended = [](const v1::Job& job) {
    return job.state() == v1::SUCCEEDED || job.state() == v1::FAILED ||
           job.state() == v1::CANCELLED;
  };
  const v1::Job job = Await(
      job_id, [&](const v1::Job& job) { return job.state() == state || ended(job); }, timeout);
  EXPECT_EQ(v1::JobState_Name(job.state()), v1::JobState_Name(state)) << job.DebugString();
  return job;
}

v1::Job Cluster::AwaitEnd(const std::string& job_id, absl::Duration timeout) {
  return AwaitState(job_id, v1::SUCCEEDED, timeout);
}

v1::Job Cluster::AwaitStep(const std::string& job_id, int64_t step, absl::Duration timeout) {
  return Await(
      job_id, [&](const v1::Job& job) { return job.progress().step() >= step; }, timeout);
}

void Cluster::AwaitWorkers(int connected, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  int seen = -1;
  while (seen != connected && absl::Now() < deadline) {
    v1::ListWorkersResponse response;
    const grpc::Status status =
        api_->admin->ListWorkers(CallContext(absl::Seconds(2)).get(), {}, &response);
    seen = status.ok() ? 0 : -1;
    for (const v1::Worker& worker : response.workers()) seen += worker.connected();
    if (seen != connected) absl::SleepFor(absl::Milliseconds(20));
  }
  ASSERT_EQ(seen, connected) << "connected workers";
}

LossesByStep Cluster::LossesOnDisk(const std::string& job_id, int64_t* steps_computed) const {
  std::vector<std::string> folders = {absl::StrCat(SharedStore(), "/", job_id)};
  for (const auto& [name, process] : workers_) {
    folders.push_back(absl::StrCat(WorkDir(name), "/jobs/", job_id));
  }
  LossesByStep out;
  for (const std::string& folder : folders) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      std::ifstream file(entry.path() / "events.jsonl");
      for (std::string line; std::getline(file, line);) {
        const auto event = nlohmann::json::parse(line, nullptr, false);
        if (!event.is_object() || event.value("event", "") != "step") continue;
        out[event["step"].get<int64_t>()].insert(event["loss"].dump());
        if (steps_computed != nullptr) ++*steps_computed;
      }
    }
  }
  return out;
}

std::vector<pid_t> Cluster::TrainerPids(const std::string& job_id) const {
  std::vector<pid_t> out;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    int pid;
    if (!absl::SimpleAtoi(entry.path().filename().string(), &pid)) continue;
    const auto environment = ReadFile(entry.path().string() + "/environ");
    // HOME names this cluster's folder, the mark a rank.
    if (!environment.ok() || !absl::StrContains(*environment, absl::StrCat("HOME=", dir_)) ||
        !absl::StrContains(*environment, "LL_RANK_MARK=")) {
      continue;
    }
    if (!job_id.empty() && !absl::StrContains(*environment, absl::StrCat("/", job_id, "/")))
      continue;
    const auto stat = ReadFile(entry.path().string() + "/stat");
    if (stat.ok() && !absl::StrContains(*stat, ") Z ")) out.push_back(pid);
  }
  return out;
}

}  // namespace ll
