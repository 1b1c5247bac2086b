// Whether this host is fit to join: what `ll-worker preflight` looks at before the agent serves.
// Every function looks once, changes nothing but a file of its own that it removes, and waits no
// longer than a minute. Thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "worker/agent/options.h"

namespace ll {

struct PreflightCheck {
  enum Result { kOk, kWarning, kFailed, kNotMeasured };
  std::string name;
  Result result = kOk;
  std::string found;  // one line
  std::string fix;    // what to do; empty where there is nothing
};

// All checks, in the order in which they are shown.
std::vector<PreflightCheck> RunPreflight(const WorkerOptions& options);

// No check has failed. Warnings and what could not be measured do not count.
bool Passed(const std::vector<PreflightCheck>& checks);
std::string PreflightTable(const std::vector<PreflightCheck>& checks);
// {"passed": …, "checks": [{"name", "result", "found", "fix"}]}
std::string PreflightJson(const std::vector<PreflightCheck>& checks);

// ---- the checks, one a function

// Space of `folder` (which is made where it is missing) and how long its disk takes to make 4 KiB
// durable. Fails below `least_bytes`, or where nothing can be written; slow disks are a warning.
PreflightCheck CheckFolder(absl::string_view name, const std::string& folder, int64_t least_bytes);
// Whether "HOST:PORT" can be listened at.
PreflightCheck CheckListen(absl::string_view name, const std::string& address);
// `program version` says `version`.
PreflightCheck CheckTrainer(const absl::Status& found, const std::string& program,
                            absl::string_view version);
// The coordinator answers, and its wall clock beside this host's: two checks.
std::vector<PreflightCheck> CheckCoordinator(const ChannelConfig& config, absl::Duration timeout);
// Space of a folder in memory through which NCCL's ranks of one host talk; needed by two GPUs or
// more.
PreflightCheck CheckSharedMemory(const std::string& folder, bool gpu_slots, int slots);
// Descriptors that this process may open, and its children with it.
PreflightCheck CheckOpenFiles(int64_t limit);
// Health of GPUs, from what `nvidia-smi --query-gpu=index,temperature.gpu,
// ecc.errors.uncorrected.volatile.total,remapped_rows.pending,
// clocks_throttle_reasons.hw_slowdown` (csv,noheader,nounits) prints.
std::vector<PreflightCheck> JudgeGpuHealth(absl::string_view text);
// "Avg bus bandwidth" (GB/s) of what nccl-tests' all_reduce_perf prints.
PreflightCheck JudgeNcclBandwidth(absl::string_view text);

}  // namespace ll
