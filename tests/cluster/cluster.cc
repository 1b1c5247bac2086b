#include "tests/cluster/cluster.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "nlohmann/json.hpp"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace ll {
namespace {

namespace fs = std::filesystem;
constexpr absl::Duration kCallDeadline = absl::Seconds(10);
constexpr absl::Duration kServeDeadline = absl::Seconds(20);

std::string FromEnv(const char* name, const std::string& otherwise) {
  const char* value = getenv(name);
  return value == nullptr || *value == '\0' ? otherwise : value;
}

uint64_t Seed() {
  uint64_t seed = 0;
  if (!absl::SimpleAtoi(FromEnv("LL_SEED", ""), &seed)) seed = SystemRandom().Next() % 1'000'000;
  std::cout << "seed " << seed << " (LL_SEED=" << seed << " repeats it)" << std::endl;
  return seed;
}

// A port that is free now. Another process may take it before ours does; the tests' own ports come
// from the kernel's range for outgoing connections, where that is rare.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  LL_CHECK(bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  close(fd);
  return ntohs(address.sin_port);
}

std::unique_ptr<grpc::ClientContext> Context(absl::Duration deadline = kCallDeadline) {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(deadline));
  return context;
}

absl::StatusOr<Subprocess> Spawn(std::vector<std::string> argv, const std::string& log,
                                 const std::string& home,
                                 const std::map<std::string, std::string>& environment = {}) {
  const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  SubprocessOptions options;
  options.argv = std::move(argv);
  options.environment = {
      {"HOME", home}, {"LL_DATA_DIR", home + "/coordinator"}, {"LLCTL_TOKEN", ""}};
  options.environment.insert(environment.begin(), environment.end());
  options.inherited_fds = {{1, fd}, {2, fd}};
  auto process = Subprocess::Start(options);
  close(fd);
  return process;
}

// A command in a mount namespace of its own, in which `folder` is a disk of this size.
std::vector<std::string> OnDisk(std::vector<std::string> argv, const std::string& folder,
                                int64_t bytes) {
  const std::string script =
      absl::StrCat("mount -t tmpfs -o size=", bytes, " none ", folder, " && exec \"$@\"");
  argv.insert(argv.begin(), {"/usr/bin/unshare", "--user", "--map-root-user", "--mount", "/bin/sh",
                             "-c", script, "sh"});
  return argv;
}

}  // namespace

Cluster::Cluster() : random_(Seed()) {
  std::string pattern = testing::TempDir() + "/ll_cluster.XXXXXX";
  dir_ = fs::canonical(mkdtemp(pattern.data())).string();
  bin_ = FromEnv("LL_BIN", LL_BIN_DIR);
  trainer_ = FromEnv("LL_TRAINER", LL_FAKE_TRAINER);
  port_ = FreePort();
  // What admission looks at; the stand-in trainer reads none of it.
  LL_CHECK(MakeDirs(dir_ + "/model").ok());
  const nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                                 {"model_type", "llama"},
                                 {"hidden_size", 64},
                                 {"intermediate_size", 128},
                                 {"num_hidden_layers", 2},
                                 {"num_attention_heads", 4},
                                 {"num_key_value_heads", 4},
                                 {"vocab_size", 256},
                                 {"max_position_embeddings", 256},
                                 {"rms_norm_eps", 1e-5},
                                 {"rope_theta", 10000.0},
                                 {"tie_word_embeddings", true},
                                 {"hidden_act", "silu"},
                                 {"torch_dtype", "float32"}};
  LL_CHECK(WriteFileAtomic(dir_ + "/model/config.json", config.dump()).ok());
  LL_CHECK(WriteFileAtomic(dir_ + "/data.bin", std::string(64 << 10, '\1')).ok());
}

Cluster::~Cluster() {
  workers_.clear();
  coordinator_.reset();
  if (testing::Test::HasFailure()) {
    std::cout << "kept for a look: " << dir_ << std::endl;
  } else {
    RemoveTree(dir_).IgnoreError();
  }
}

absl::StatusOr<std::string> ApiClient::Submit(const v1::JobSpec& spec,
                                              const std::string& request_id, bool* existed) {
  v1::SubmitRequest request;
  *request.mutable_spec() = spec;
  request.set_request_id(request_id);
  v1::SubmitResponse response;
  const grpc::Status status = jobs->Submit(Context().get(), request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  if (existed != nullptr) *existed = response.existed();
  return response.job().job_id();
}

std::shared_ptr<grpc::Channel> Cluster::Connect() const {
  ChannelConfig config;
  config.addresses = {absl::StrCat("127.0.0.1:", port_)};
  if (const auto text = ReadFile(CoordinatorDir() + "/token"); text.ok()) {
    config.token = std::string(absl::StripAsciiWhitespace(*text));
  }
  auto channel = MakeChannel(config);
  LL_CHECK(channel.ok());
  return *channel;
}

std::unique_ptr<ApiClient> Cluster::NewClient() const {
  return std::make_unique<ApiClient>(Connect());
}

void Cluster::StartCoordinator(std::vector<std::string> flags) {
  std::vector<std::string> argv = {bin_ + "/ll-coordinator",
                                   "--listen",
                                   absl::StrCat("127.0.0.1:", port_),
                                   "--http",
                                   "127.0.0.1:0",
                                   "--data-dir",
                                   dir_ + "/coordinator"};
  argv.insert(argv.end(), flags.begin(), flags.end());
  if (host_.disk_bytes > 0) {
    LL_ASSERT_OK(MakeDirs(dir_ + "/coordinator"));
    argv = OnDisk(std::move(argv), dir_ + "/coordinator", host_.disk_bytes);
  }
  auto process = Spawn(argv, dir_ + "/coordinator.log", dir_, host_.environment);
  ASSERT_THAT(process, IsOk());
  coordinator_ = std::make_unique<Subprocess>(*std::move(process));
  const absl::Time deadline = absl::Now() + kServeDeadline;
  grpc::Status status;
  do {
    api_ = NewClient();
    v1::VersionResponse response;
    status = api_->admin->Version(Context(absl::Seconds(1)).get(), {}, &response);
    ASSERT_FALSE(coordinator_->Poll().has_value()) << *ReadFile(dir_ + "/coordinator.log");
    if (!status.ok()) absl::SleepFor(absl::Milliseconds(5));
  } while (!status.ok() && absl::Now() < deadline);
  ASSERT_TRUE(status.ok()) << status.error_message();
}

std::vector<std::string> Cluster::WorkerArgv(const WorkerConfig& config) const {
  std::vector<std::string> argv = {config.program.empty() ? WorkerBinary() : config.program,
                                   "--coordinator",
                                   absl::StrCat("127.0.0.1:", port_),
                                   "--http",
                                   "127.0.0.1:0",
                                   "--work-dir",
                                   WorkDir(config.name),
                                   "--name",
                                   config.name,
                                   "--cpu-slots",
                                   absl::StrCat(config.cpu_slots),
                                   "--slot-memory",
                                   "4000000000",
                                   "--trainer",
                                   trainer_,
                                   "--trainer-threads",
                                   "1",
                                   "--token-file",
                                   dir_ + "/coordinator/token"};
  argv.insert(argv.end(), config.flags.begin(), config.flags.end());
  if (config.disk_bytes > 0) {
    argv = OnDisk(std::move(argv), WorkDir(config.name), config.disk_bytes);
  } else if (config.file_limit_bytes > 0) {
    const std::string script =
        absl::StrCat("ulimit -f ", config.file_limit_bytes / 512, " && exec \"$@\"");
    argv.insert(argv.begin(), {"/bin/sh", "-c", script, "sh"});
  }
  return argv;
}

void Cluster::StartWorker(const WorkerConfig& config) {
  LL_ASSERT_OK(MakeDirs(WorkDir(config.name)));
  auto process = Spawn(WorkerArgv(config), absl::StrCat(dir_, "/", config.name, ".log"), dir_);
  ASSERT_THAT(process, IsOk());
  workers_.insert_or_assign(config.name, *std::move(process));
}

absl::StatusOr<Subprocess> Cluster::Run(std::vector<std::string> argv,
                                        const std::string& log) const {
  return Spawn(std::move(argv), log, dir_);
}

Subprocess Cluster::StartImpostor(const std::string& name) {
  WorkerConfig config;
  config.name = name;
  std::vector<std::string> argv = WorkerArgv(config);
  for (std::string& word : argv) {
    if (word == WorkDir(name)) word += "-impostor";
  }
  auto process = Spawn(argv, absl::StrCat(dir_, "/", name, "-impostor.log"), dir_);
  LL_CHECK(process.ok());
  return *std::move(process);
}

void Cluster::KillCoordinator() {
  kill(coordinator_->pid(), SIGKILL);
  coordinator_->Wait(absl::Seconds(10));
}

void Cluster::KillWorker(const std::string& name) {
  kill(workers_.at(name).pid(), SIGKILL);
  workers_.at(name).Wait(absl::Seconds(10));
}

void Cluster::SignalWorker(const std::string& name, int signal) {
  kill(workers_.at(name).pid(), signal);
}

std::optional<ExitStatus> Cluster::WaitForWorkerExit(const std::string& name,
                                                     absl::Duration timeout) {
  return workers_.at(name).Wait(timeout);
}

int64_t Cluster::CoordinatorRss() const {
  std::ifstream statm(absl::StrCat("/proc/", coordinator_->pid(), "/statm"));
  int64_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

std::string Cluster::CoordinatorDir() const {
  const std::string folder = dir_ + "/coordinator";
  if (host_.disk_bytes == 0 || coordinator_ == nullptr) return folder;
  return absl::StrCat("/proc/", coordinator_->pid(), "/root", folder);
}

std::string Cluster::Metrics() const {
  const auto endpoints = ReadFile(CoordinatorDir() + "/endpoints.json");
  LL_CHECK(endpoints.ok());
  const auto address =
      ParseHostPort(nlohmann::json::parse(*endpoints)["http"].get<std::string>(), "http");
  LL_CHECK(address.ok());
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience{10, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(static_cast<uint16_t>(address->port));
  const std::string request =
      "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  std::string answer;
  if (connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0 &&
      write(fd, request.data(), request.size()) == static_cast<ssize_t>(request.size())) {
    char buffer[65536];
    for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;)
      answer.append(buffer, static_cast<size_t>(n));
  }
  close(fd);
  return answer;
}

v1::JobSpec Cluster::TrainSpec(int gpus, int64_t max_steps) const {
  v1::JobSpec spec;
  spec.set_kind("train");
  spec.set_model(dir_ + "/model");
  spec.set_data(dir_ + "/data.bin");
  spec.set_context_length(512);
  spec.set_max_steps(max_steps);
  spec.set_save_steps(10);
  spec.set_gpus(gpus);
  spec.set_seed(1234);
  (*spec.mutable_labels())["fake.step_ms"] = "10";
  if (const std::string file = FromEnv("LL_SPEC", ""); !file.empty()) {
    v1::JobSpec over;
    const auto text = ReadFile(file);
    LL_CHECK(text.ok() && google::protobuf::util::JsonStringToMessage(*text, &over).ok());
    spec.MergeFrom(over);
  }
  return spec;
}

absl::StatusOr<v1::Job> Cluster::Get(const std::string& job_id) {
  v1::GetRequest request;
  request.set_job_id(job_id);
  request.set_history(true);
  v1::Job job;
  const grpc::Status status = api_->jobs->Get(Context().get(), request, &job);
  if (!status.ok()) return FromGrpcStatus(status);
  return job;
}

absl::Status Cluster::Cancel(const std::string& job_id) {
  v1::CancelRequest request;
  request.set_job_id(job_id);
  v1::Job job;
  return FromGrpcStatus(api_->jobs->Cancel(Context().get(), request, &job));
}

absl::Status Cluster::Pause(const std::string& job_id) {
  v1::PauseRequest request;
  request.set_job_id(job_id);
  v1::Job job;
  return FromGrpcStatus(api_->jobs->Pause(Context().get(), request, &job));
}

absl::Status Cluster::Resume(const std::string& job_id) {
  v1::ResumeRequest request;
  request.set_job_id(job_id);
  v1::Job job;
  return FromGrpcStatus(api_->jobs->Resume(Context().get(), request, &job));
}

std::vector<v1::Job> Cluster::ListAll() {
  std::vector<v1::Job> out;
  v1::ListRequest request;
  request.set_page_size(50);
  do {
    v1::ListResponse response;
    const grpc::Status status = api_->jobs->List(Context().get(), request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    out.insert(out.end(), response.jobs().begin(), response.jobs().end());
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  return out;
}

LossesByStep Cluster::WatchSteps(const std::string& job_id, absl::Duration timeout) {
  v1::WatchRequest request;
  request.set_job_id(job_id);
  const auto context = Context(timeout);
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
    const auto context = Context(timeout);
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
  const auto context = Context();
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
        api_->admin->ListWorkers(Context(absl::Seconds(2)).get(), {}, &response);
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
