#include "tests/cluster/cluster.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <iostream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "nlohmann/json.hpp"
#include "rpc/channel.h"

namespace ll {
namespace {

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

// A port that is free now, below those that the kernel gives to outgoing connections: none of them
// takes it while the coordinator that listens on it is away.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int tries = 0;
  do {
    LL_CHECK(++tries < 1000);
    address.sin_port = htons(static_cast<uint16_t>(15'000 + SystemRandom().Next() % 17'000));
  } while (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0);
  close(fd);
  return ntohs(address.sin_port);
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
  if (testing::Test::HasFailure()) folder_.Keep();
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
    status = api_->admin->Version(CallContext(absl::Seconds(1)).get(), {}, &response);
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

}  // namespace ll
