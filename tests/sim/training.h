// What the ranks of all gangs do: the part of the world that neither coordinator nor agents
// control. A gang makes a step only while every rank of it lives, as collectives do, and writes
// checkpoints into its epoch's folder.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/ids.h"
#include "base/subprocess.h"
#include "tests/sim/world.h"

namespace ll::sim {

using GangKey = std::pair<JobId, int64_t>;  // job, epoch

// A trainer process, as its arguments say.
struct RankStart {
  GangKey gang;
  int rank = 0, world_size = 0;
  std::string out, resume_from;  // folders; the latter may be empty
  // Where it runs.
  std::string host;
  Files* files = nullptr;
  // How it is heard: a line of JSON, and its end. Not after Kill.
  std::function<void(std::string)> on_event;
  std::function<void(ExitStatus)> on_exit;
};

class Training {
 public:
  Training(World& world, bool shared_job_store) : world_(world), shared_(shared_job_store) {}

  // A job's work; must be known before its first start.
  void Define(const JobId& job, int steps, int checkpoint_every) {
    work_[job] = {steps, checkpoint_every};
  }

  void StartRank(RankStart start);
  void Rendezvous(const GangKey& gang, int rank);   // the rank was told rank 0's address
  void RequestStop(const GangKey& gang, int rank);  // SIGTERM: checkpoint at the next step and exit
  void Kill(const GangKey& gang, int rank);         // SIGKILL: gone at once, without a word
  // SIGKILL, but the process is held up in the kernel, as by a driver: it does nothing more, and is
  // gone at the next Kill.
  void Doom(const GangKey& gang, int rank);
  bool Alive(const GangKey& gang, int rank) const;
  struct LivingRank {
    int64_t epoch = 0;
    std::string host;
    bool doomed = false;
  };
  std::vector<LivingRank> Living(const JobId& job) const;
  void CrashRandomRank();
  // A rank elsewhere of a gang that has one on `host`; none: nothing.
  void CrashPeerOf(const std::string& host);

  // Newest checkpoint on any disk.
  int64_t checkpoints_written() const { return checkpoints_written_; }

 private:
  struct Work {
    int steps;
    int checkpoint_every;
  };
  // Of jobs that nobody has defined: the coordinator made them, for a schedule.
  static constexpr Work kScheduledWork{40, 10};
  struct RankProcess {
    RankStart start;
    bool rendezvous = false;
    bool stop = false;
    bool doomed = false;
  };
  struct Gang {
    int world_size = 0;
    int64_t step = 0;
    bool trained = false;
    bool ending = false;
    bool hangs = false;  // a rank that has lost its peers waits for ever
    int ticks = 0;
    std::map<int, RankProcess> alive;
    std::set<int> ever;
  };

  void Tick(const GangKey& key);
  void Exit(const GangKey& key, int rank, int code, int signal, absl::Duration delay);
  void WriteCheckpoint(const GangKey& key, Gang& gang);

  struct Written {
    int64_t step = 0;
    std::string host;
  };

  World& world_;
  const bool shared_;
  std::map<std::string, Written> checkpoints_;  // by path and, without a shared store, host
  std::map<JobId, Work> work_;
  std::map<GangKey, Gang> gangs_;
  std::map<JobId, int64_t> newest_epoch_;
  int64_t checkpoints_written_ = 0;
};

}  // namespace ll::sim
