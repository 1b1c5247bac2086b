// A cluster of real processes in a folder of its own: one coordinator and any number of agents on
// free ports, driven through the API. Everything ends with the test: each process dies with the one
// that started it.
//
// Environment: LL_BIN (folder of ll-coordinator and ll-worker), LL_TRAINER (another trainer than
// the stand-in), LL_SPEC (a file with a JSON object of spec keys that replace those of TrainSpec,
// for a trainer that wants a real model), LL_SEED (repeats a run; every test prints its seed).
#pragma once

#include <grpcpp/channel.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "base/ids.h"
#include "base/subprocess.h"
#include "base/temp_dir.h"
#include "proto/admin.grpc.pb.h"
#include "proto/jobs.grpc.pb.h"

namespace ll {

// The losses a job's ranks wrote, by step, as they stand in the event files: a step that was
// repeated after a resume has several, which must be equal.
using LossesByStep = std::map<int64_t, std::set<std::string>>;

// How long a test waits for what must come, however busy the machine is. No promise about time is
// tested by it.
constexpr absl::Duration kPatience = absl::Minutes(3);

struct WorkerConfig {
  std::string name = "w1";
  int cpu_slots = 2;
  int64_t file_limit_bytes =
      0;                   // no file of the worker or its trainers grows beyond this; 0: no limit
  int64_t disk_bytes = 0;  // the work directory is a disk of this size; 0: a folder
  std::vector<std::string> flags;
  std::string program;  // which runs the agent; empty: the agent
};

// What the coordinator runs in.
struct CoordinatorHost {
  int64_t disk_bytes =
      0;  // the data folder is a disk of this size, gone with the process; 0: a folder
  std::map<std::string, std::string> environment;  // beside what every process of a cluster has
};

// One user's connection. Thread-safe as gRPC's stubs are.
class ApiClient {
 public:
  explicit ApiClient(std::shared_ptr<grpc::Channel> channel)
      : jobs(v1::Jobs::NewStub(channel)), admin(v1::Admin::NewStub(channel)) {}
  absl::StatusOr<std::string> Submit(const v1::JobSpec& spec, const std::string& request_id,
                                     bool* existed = nullptr);
  std::unique_ptr<v1::Jobs::Stub> jobs;
  std::unique_ptr<v1::Admin::Stub> admin;
};

// For one call, which ends after `deadline`.
std::unique_ptr<grpc::ClientContext> CallContext(absl::Duration deadline = absl::Seconds(10));

class Cluster {
 public:
  Cluster();
  ~Cluster();

  // Before StartCoordinator.
  void SetCoordinatorHost(CoordinatorHost host) { host_ = std::move(host); }

  // ---- processes. Each call waits until the process serves; errors are fatal to the test.
  void StartCoordinator(
      std::vector<std::string> flags = {});  // again after a kill: same port, same data
  void StartWorker(const WorkerConfig& config = {});
  // A process with a worker's name and a work directory of its own.
  Subprocess StartImpostor(const std::string& name);
  // A command with the environment of this cluster's processes; its output is added to `log`.
  absl::StatusOr<Subprocess> Run(std::vector<std::string> argv, const std::string& log) const;
  std::string WorkerBinary() const { return bin_ + "/ll-worker"; }
  void KillCoordinator();                                  // SIGKILL
  void KillWorker(const std::string& name);                // SIGKILL
  void SignalWorker(const std::string& name, int signal);  // the agent's process only
  std::optional<ExitStatus> WaitForWorkerExit(const std::string& name, absl::Duration timeout);
  pid_t coordinator_pid() const { return coordinator_->pid(); }
  pid_t worker_pid(const std::string& name) const { return workers_.at(name).pid(); }
  // Resident bytes of the coordinator.
  int64_t CoordinatorRss() const;
  // Its data folder as this process sees it.
  std::string CoordinatorDir() const;
  // Its page /metrics.
  std::string Metrics() const;

  // ---- the API
  // A connection of the coordinator's own user, who may be an agent too.
  std::shared_ptr<grpc::Channel> Connect() const;
  std::unique_ptr<ApiClient> NewClient() const;
  // A train job that the stand-in trainer runs; for another trainer change what is there.
  v1::JobSpec TrainSpec(int gpus, int64_t max_steps) const;
  absl::StatusOr<std::string> Submit(const v1::JobSpec& spec, const std::string& request_id = "",
                                     bool* existed = nullptr) {
    return api_->Submit(spec, request_id, existed);
  }
  absl::StatusOr<v1::Job> Get(const std::string& job_id);
  absl::Status Cancel(const std::string& job_id);
  absl::Status Pause(const std::string& job_id);
  absl::Status Resume(const std::string& job_id);
  std::vector<v1::Job> ListAll();
  // The steps that Watch gives until the job's end.
  LossesByStep WatchSteps(const std::string& job_id, absl::Duration timeout);
  // What Watch tells until the job's end to one reader, which goes on by resume token wherever its
  // stream is cut: the states, and all other messages as text. On a connection of its own.
  struct Watched {
    std::vector<std::string> states, others;
    int cuts = 0;
  };
  // `began` (may be null) is told after the first message.
  Watched WatchThroughCuts(const std::string& job_id, absl::Duration timeout,
                           absl::Notification* began = nullptr) const;
  std::string Log(const std::string& job_id, int rank);

  // Waits until `done(job)`; the job as it was seen last. Fails the test after `timeout`.
  v1::Job Await(const std::string& job_id, const std::function<bool(const v1::Job&)>& done,
                absl::Duration timeout);
  v1::Job AwaitState(const std::string& job_id, v1::JobState state,
                     absl::Duration timeout = kPatience);
  v1::Job AwaitEnd(const std::string& job_id, absl::Duration timeout = kPatience);
  // Waits until the job has trained past `step`.
  v1::Job AwaitStep(const std::string& job_id, int64_t step, absl::Duration timeout = kPatience);
  void AwaitWorkers(int connected, absl::Duration timeout = kPatience);

  // ---- what lies on disk and what runs
  std::string WorkDir(const std::string& worker) const { return dir_ + "/" + worker; }
  // For workers that share a job store: flag --job-store.
  std::string SharedStore() const { return dir_ + "/store"; }
  // `steps_computed`: how many there are in all, repeated ones too.
  LossesByStep LossesOnDisk(const std::string& job_id, int64_t* steps_computed = nullptr) const;
  // Process ids of trainers, and of anything they started, of this cluster.
  std::vector<pid_t> TrainerPids(const std::string& job_id = "") const;

  Random& random() { return random_; }
  const std::string& dir() const { return dir_; }

 private:
  std::vector<std::string> WorkerArgv(const WorkerConfig& config) const;

  TempDir folder_;
  const std::string& dir_ = folder_.path();
  std::string bin_, trainer_;
  CoordinatorHost host_;
  int port_ = 0;
  SeededRandom random_;
  std::unique_ptr<Subprocess> coordinator_;
  std::map<std::string, Subprocess> workers_;
  std::unique_ptr<ApiClient> api_;
};

}  // namespace ll
