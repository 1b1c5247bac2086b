// Planning without a coordinator: for devices of the catalogue, or for this host's CPU.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/plan/devices.h"
#include "model/spec/job_spec.h"
#include "proto/job.pb.h"

namespace ll {

struct LocalPlanOptions {
  std::string device;  // kind; empty: every GPU of the catalogue
  int64_t hosts = 1;   // how many of them there are
  int64_t gpus_per_host = 8;
  int64_t memory_bytes = 0;  // of a device; 0: as the catalogue says, of a CPU as this host has
  std::string calibration;   // file with what `ll-trainer probe` printed; empty: `kept`
  // What has been measured, by kind of device (calibrate.h).
  std::map<std::string, Calibration> kept;
  // What devices cost (model/plan/prices.h); no file: nothing.
  std::string prices, currency = "USD";
};

// The model's shape: a built-in name, a folder or config.json on this host, or the spec's inline
// config. Errors name the key.
struct LocalPlan {
  std::string device;
  absl::StatusOr<v1::Job> job;  // resolved_spec and forecast only; or why it is refused
};

// One plan a device. Errors (field "device", "model", "calibration", or a key of the spec): an
// unknown device or model; refusals are the plans' own.
absl::StatusOr<std::vector<LocalPlan>> PlanLocally(const JobSpec& given,
                                                   const LocalPlanOptions& options);

}  // namespace ll
