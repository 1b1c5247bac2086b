// Whether a job may enter, and what the scheduler needs to know of it: names become paths, defaults
// are filled in, and the planner (model/plan/planner.h) chooses how it runs on the slots of the
// known workers: what the user left open of gpus, context_parallel, zero_stage, shard_base,
// recompute and activation_offload stands in the resolved spec.
//
// What is known about a model: its config.json, as registered (`models add`), built in (7b, 13b,
// 70b), or read from its folder where that lies on this host. Without it the job is let in and the
// worker's check decides.
//
// Pure but for reading config.json and looking whether paths exist. Thread-safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/api/config_cache.h"
#include "coordinator/api/job_plan.h"
#include "coordinator/core/access.h"
#include "coordinator/core/types.h"
#include "coordinator/runtime/cluster_view.h"
#include "model/plan/config.h"
#include "model/plan/devices.h"
#include "model/plan/forecast_json.h"
#include "model/spec/job_spec.h"
#include "proto/job.pb.h"

namespace ll {

struct AdmissionOptions {
  // The workers are on this host (the coordinator listens on loopback only): paths can be looked at
  // here.
  bool paths_are_local = false;
  bool shared_job_store = false;
  Prices prices;
  // Rates measured on such hosts, in place of the catalogue's; by kind of device.
  std::map<std::string, Calibration> calibrations;
  // The same by the workers themselves, which goes before; null: they told nothing. Thread-safe.
  std::function<std::optional<Calibration>(const std::string& kind)> measured;
  // How many times its forecast the memory of trainings like it was (device, model, method); null:
  // nothing is known. Thread-safe.
  std::function<double(const std::string&, const std::string&, const std::string&)> memory_factor;
  // Whether a job of this tenant may have the label `notify` with these names; null: any text will
  // do. Thread-safe.
  std::function<absl::Status(const std::string& names, const std::string& tenant)> check_notify;
  // Forecasts that were made before; null: each is made anew. Outlives the options. Thread-safe.
  PlanCache* plans = nullptr;
  // Models' shapes that were read before; null: each is read anew. Outlives the options.
  // Thread-safe.
  ConfigCache* configs = nullptr;
};

// The job that another one takes its weights from (spec key `job`).
struct SourceJob {
  JobId id;
  JobSpec resolved;
  std::optional<Checkpoint> checkpoint;  // the newest
  bool ended = false;
};

SourceJob SourceOf(const Job& job);

struct AdmissionRequest {
  v1::JobSpec spec;
  bool dry_run = false;             // a forecast is wanted also where weights are missing
  std::optional<SourceJob> source;  // set when spec.job is
  absl::Time now;                   // the key deadline counts from here
  Access access;                    // whose registered names it may use
};

struct Admitted {
  CoreSpec core;
  std::shared_ptr<const JobPayload> payload;
  v1::JobSpec resolved;
  v1::Forecast forecast;
};

// Errors name the key: InvalidArgument (range, unknown name, missing folder), NotFound (no such
// file on this host), FailedPrecondition (weights or data not registered; no known device can hold
// it), Unimplemented (kind).
absl::StatusOr<Admitted> Admit(const AdmissionRequest& request, const ClusterView& view,
                               const AdmissionOptions& options);

// Checks a registered model's config, or reads it from `path` where that is on this host; "" where
// nothing is known.
absl::StatusOr<std::string> ConfigOfFolder(const std::string& path,
                                           const AdmissionOptions& options);

// Absolute, without ".." and, where `options` say so, there. `field` is the key to blame.
absl::Status CheckPath(absl::string_view field, const std::string& path,
                       const AdmissionOptions& options);

}  // namespace ll
