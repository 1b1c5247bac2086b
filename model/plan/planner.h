// Chooses how a training runs: over how many devices, divided how, recomputing and keeping what.
//
// A plan never changes what is computed, only where and when: keys that would (4-bit weights, fewer
// tokens) are proposed to people, not taken. What the user gave stays as it is; the planner fills
// in what was left open, out of every combination that is legal (model/spec/parallel_rules.h and
// the model's own limits). Deterministic: the same inputs give the same plan. Pure functions,
// thread-safe. How it works, and how right it is: docs/planning.md.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/plan/config.h"
#include "model/plan/devices.h"
#include "model/plan/memory_plan.h"
#include "model/plan/time_plan.h"
#include "model/spec/job_spec.h"

namespace ll {

// What a plan decides; each a key of the spec.
struct ParallelPlan {
  int64_t gpus = 1;
  int64_t context = 1;     // ranks that share a row
  int64_t zero_stage = 0;  // what of the trained state the ranks divide
  bool shard_base = false;
  bool activation_offload = false;
  std::string recompute = "none";
  std::string quantization = "none";  // of the base, as the job has it: no plan changes it
  int64_t data() const { return gpus / context; }
  bool operator==(const ParallelPlan&) const = default;
};

// "8 GPUs: data 4 x context 2, ZeRO 1, recompute full". `device` says whether they are GPUs.
std::string PlanText(const ParallelPlan& plan, const Device& device);

// Slots of one kind. A gang never mixes kinds.
struct Cluster {
  Device device;
  DeviceRates rates;
  int64_t slots = 1;     // of the kind, on all hosts
  int64_t per_host = 8;  // slots that share a host's links
  // How many times the count of memory trainings like this one really took there; at least 1.
  double memory_factor = 1;
};

struct PlannedRun {
  ParallelPlan plan;
  MemoryForecast memory;
  int64_t available_bytes = 0;  // that a rank may use on the device
  TimeForecast time;            // zeros where the device's rates are not known
  int64_t missing_bytes() const { return memory.total() - available_bytes; }
  bool fits() const { return missing_bytes() <= 0; }
};

struct PlanProblem {
  const LlamaConfig& config;
  const JobSpec& given;     // what the user wrote; which keys are open
  const JobSpec& resolved;  // of kind train
  const Cluster& cluster;
};

// Every legal plan, in the order of preference among equals: fewer GPUs, then what divides and
// moves less (ZeRO stage, sharded base, offload, context), then less recomputation. Where gpus is
// open: powers of two up to the cluster's slots.
std::vector<PlannedRun> Enumerate(const PlanProblem& problem);

struct PlanChoice {
  PlannedRun chosen;
  // The faster plan that nearly fitted, or else the next best; with why it lost.
  std::optional<PlannedRun> runner_up;
  std::string runner_up_reason;
};
// With gpus open, the fewest that hold the job and (where the spec has a deadline or max_runtime
// and times are known) end it in time; then the fastest plan that fits, where a plan must be 2 %
// faster than one before it in the order above to be worth its parts. nullopt where none fits: see
// nearest.h.
std::optional<PlanChoice> Choose(const PlanProblem& problem, const std::vector<PlannedRun>& plans);
// The plan that comes nearest to fitting.
const PlannedRun& Leanest(const std::vector<PlannedRun>& plans);

// Writes a plan's keys into a resolved spec. global_batch_size stays: accumulation follows.
void ApplyPlan(const ParallelPlan& plan, JobSpec& resolved);

// Seconds that the job may take by its deadline and max_runtime; infinite where neither is given.
double SecondsAllowed(const JobSpec& spec);

// What a plan costs. Interval: measured rates err by a tenth, data sheets by a third
// (docs/planning.md), a job's own measured steps by less.
struct JobForecast {
  double seconds = 0, low_seconds = 0, high_seconds = 0;  // 0: not known
  double gpu_hours = 0;
  double energy_joules = 0;  // devices at full load; 0: their power is not known
  double cost = 0;           // 0: no price
};
JobForecast ForecastJob(const PlannedRun& run, const DeviceRates& rates, double price_per_gpu_hour);
double RelativeError(const DeviceRates& rates);

}  // namespace ll
