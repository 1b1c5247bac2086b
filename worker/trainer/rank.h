// One rank process from its flags to its exit code: events, control channel, rendezvous, then the
// job by its kind.
#pragma once

#include <cstdint>
#include <string>

#include "model/spec/job_spec.h"

namespace ll {

struct RankFlags {
  std::string out;
  int rank = 0;
  int world_size = 1;
  int64_t epoch = 0;    // the job's attempt
  std::string nonce;    // prefix in the rendezvous store, the attempt's own
  int events_fd = -1;   // -1: standard output, and rank 0 appends to OUT/events.jsonl
  int control_fd = -1;  // -1: there is no agent
  // A person started it: Ctrl-C asks a training for a checkpoint and a merge to clean up, each
  // once.
  bool heeds_ctrl_c = false;
  std::string listen_host = "127.0.0.1";
  std::string rendezvous;  // host:port of rank 0 where it is known beforehand
  std::string resume_from, resume_manifest_sha256;
  int threads = 0;              // 0: OMP_NUM_THREADS, else this host's cores divided by the ranks
  std::string device = "auto";  // auto, cpu or cuda (device.h)
  bool random_weights = false;  // PrepareTraining's
  double peak_tflops = 0;       // of the device, for mfu; 0: not known
  double collective_timeout_seconds = 1800;
  // Without a sign of life until a peer counts as lost. More than the 13 s after which TCP,
  // doubling its retries from 0.2 s, notices that a link which was cut for 10 s is back.
  double peer_silence_seconds = 20;
};

// Runs `spec` (not resolved), reports everything as events and returns the exit code of design §1.
// An error is also one line on standard error.
int RunRank(const JobSpec& spec, const RankFlags& flags);

// Sets the intra-op threads as RankFlags::threads says.
void SetThreads(int threads, int local_ranks);

// One line on standard error; returns the exit code of the error's class.
int ReportToStderr(const absl::Status& status);

}  // namespace ll
