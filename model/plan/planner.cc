#include "model/plan/planner.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/counted.h"
#include "base/format.h"
#include "model/plan/job_shape.h"
#include "model/spec/parallel_rules.h"

namespace ll {
namespace {

// A plan must be so much faster than a simpler one to be worth its parts; forecasts are no better.
constexpr double kWorthwhile = 0.02;
constexpr int64_t kMostContextRanks = 64;  // as the key context_parallel allows
constexpr double kMeasuredError = 0.10, kCatalogueError = 0.35;

// What may be tried for each key.
struct Space {
  std::vector<int64_t> gpus, context, zero_stage;
  std::vector<bool> shard_base, offload;
  std::vector<std::string> recompute;
};

// S²-Attn exchanges what lies within a group: 2, 4 or 8 shards; full attention goes around a ring
// of any length. A window shorter than what a token may attend to cannot be divided.
bool ContextIsLegal(const PlanProblem& p, int64_t context) {
  if (context == 1) return true;
  const int64_t tokens = RowTokens(p.config, p.resolved);
  if (context > tokens / 2) return false;
  if (p.config.sliding_window > 0 && GroupTokens(p.config, p.resolved) > p.config.sliding_window)
    return false;
  const bool ring_only = p.resolved.attention == "full";
  return ring_only || context == 2 || context == 4 || context == 8;
}

Space SpaceOf(const PlanProblem& p) {
  const JobSpec& g = p.given;
  const bool elastic = g.max_gpus.value_or(0) > g.gpus.value_or(1);
  Space space;
  if (g.gpus || g.context_parallel || elastic) {
    space.gpus = {*p.resolved.gpus};
  } else {
    for (int64_t n = 1; n <= std::max<int64_t>(1, p.cluster.slots); n *= 2) space.gpus.push_back(n);
  }
  if (g.context_parallel || elastic) {
    space.context = {p.resolved.context_parallel.value_or(1)};
  } else {
    for (int64_t n = 1; n <= kMostContextRanks; ++n) {
      if (ContextIsLegal(p, n)) space.context.push_back(n);
    }
  }
  const bool gpu = p.cluster.device.IsGpu();
  space.zero_stage =
      g.zero_stage ? std::vector<int64_t>{*g.zero_stage} : std::vector<int64_t>{0, 1, 2};
  space.shard_base = g.shard_base                         ? std::vector<bool>{*g.shard_base}
                     : gpu && p.resolved.method != "full" ? std::vector<bool>{false, true}
                                                          : std::vector<bool>{false};
  space.offload = g.activation_offload ? std::vector<bool>{*g.activation_offload}
                  : gpu                ? std::vector<bool>{false, true}
                                       : std::vector<bool>{false};
  const std::string recompute = p.resolved.recompute.value_or("auto");
  space.recompute = recompute == "auto" ? std::vector<std::string>{"none", "selective", "full"}
                                        : std::vector<std::string>{recompute};
  return space;
}

void AppendPlans(const PlanProblem& p, const Space& space, ParallelPlan plan, JobSpec& scratch,
                 std::vector<PlannedRun>& out) {
  const bool gpu = p.cluster.device.IsGpu();
  for (const std::string& recompute : space.recompute) {
    // Offload moves the layers' inputs: all else would stay.
    if (plan.activation_offload && recompute != "full") continue;
    plan.recompute = recompute;
    PlannedRun run;
    run.plan = plan;
    run.memory = ForecastMemory(p.config, scratch, gpu, recompute);
    run.memory.correction = static_cast<int64_t>((p.cluster.memory_factor - 1) *
                                                 static_cast<double>(run.memory.total()));
    run.available_bytes = UsableBytes(p.cluster.device);
    run.time = ForecastTime(p.config, scratch, recompute, p.cluster.rates, {p.cluster.per_host});
    out.push_back(std::move(run));
  }
}

bool InTime(const PlannedRun& run, const Cluster& cluster, double allowed) {
  return cluster.rates.nominal ||
         run.time.duration_seconds * (1 - RelativeError(cluster.rates)) <= allowed;
}

std::string WhyLost(const PlannedRun& lost, const PlannedRun& chosen) {
  const double slower = lost.time.step_seconds / chosen.time.step_seconds - 1;
  if (!lost.fits()) {
    const MemoryPart largest = MemoryParts(lost.memory)[0];
    return absl::StrCat("would be ", absl::StrFormat("%.0f", -100 * slower), " % faster but needs ",
                        HumanBytes(lost.missing_bytes()), " more a rank; most goes to ",
                        largest.name, " (", HumanBytes(largest.bytes), ")");
  }
  if (slower > kWorthwhile) {
    const StepForecast &a = lost.time.step, &b = chosen.time.step;
    const std::pair<const char*, double> parts[] = {
        {"recomputation", a.recompute - b.recompute},
        {"communication", a.communication - b.communication},
        {"offload", a.offload - b.offload},
        {"attention", a.attention - b.attention},
        {"products", a.gemm - b.gemm}};
    const auto most =
        *std::max_element(std::begin(parts), std::end(parts),
                          [](const auto& x, const auto& y) { return x.second < y.second; });
    return absl::StrCat(absl::StrFormat("%.0f", 100 * slower), " % slower, by ", most.first);
  }
  return absl::StrCat("within ", absl::StrFormat("%.0f", 100 * kWorthwhile),
                      " % of the time, with more parts that move");
}

}  // namespace

std::string PlanText(const ParallelPlan& plan, const Device& device) {
  std::string text = absl::StrCat(Counted(plan.gpus, device.IsGpu() ? "GPU" : "slot"), ":");
  if (plan.gpus > 1) absl::StrAppend(&text, " data ", plan.data());
  if (plan.context > 1) absl::StrAppend(&text, " x context ", plan.context);
  if (plan.gpus > 1) absl::StrAppend(&text, ",");
  if (plan.zero_stage > 0) absl::StrAppend(&text, " ZeRO ", plan.zero_stage, ",");
  if (plan.shard_base) absl::StrAppend(&text, " sharded base,");
  if (plan.activation_offload) absl::StrAppend(&text, " offload,");
  absl::StrAppend(&text, " recompute ", plan.recompute);
  return text;
}

void ApplyPlan(const ParallelPlan& plan, JobSpec& resolved) {
  resolved.gpus = plan.gpus;
  resolved.context_parallel = plan.context;
  resolved.zero_stage = plan.zero_stage;
  resolved.shard_base = plan.shard_base;
  resolved.activation_offload = plan.activation_offload;
  resolved.recompute = plan.recompute;
  const int64_t rows = resolved.per_device_batch_size.value_or(1) * plan.data();
  if (resolved.global_batch_size)
    resolved.gradient_accumulation_steps = (*resolved.global_batch_size + rows - 1) / rows;
}

std::vector<PlannedRun> Enumerate(const PlanProblem& p) {
  const Space space = SpaceOf(p);
  std::vector<PlannedRun> out;
  JobSpec scratch = p.resolved;
  ParallelPlan plan;
  plan.quantization = p.resolved.quantization.value_or("none");
  for (int64_t gpus : space.gpus) {
    plan.gpus = gpus;
    for (int64_t zero : space.zero_stage) {
      plan.zero_stage = zero;
      for (bool shard : space.shard_base) {
        plan.shard_base = shard;
        // One rank has nothing to divide, unless it was asked to.
        if (gpus == 1 && ((zero > 0 && !p.given.zero_stage) || (shard && !p.given.shard_base)))
          continue;
        for (bool offload : space.offload) {
          plan.activation_offload = offload;
          for (int64_t context : space.context) {
            if (gpus % context != 0) continue;
            plan.context = context;
            plan.recompute = "full";  // goes with every other key; AppendPlans tries the rest
            ApplyPlan(plan, scratch);
            if (!CheckParallelRules(scratch).ok()) continue;
            AppendPlans(p, space, plan, scratch, out);
          }
        }
      }
    }
  }
  return out;
}

std::optional<PlanChoice> Choose(const PlanProblem& p, const std::vector<PlannedRun>& plans) {
  const double allowed = SecondsAllowed(p.resolved);
  // Within the fewest GPUs that do, of those that fit: the fastest, and then the first about as
  // fast.
  const auto eligible = [&](const PlannedRun& run, int64_t gpus) {
    return run.fits() && run.plan.gpus == gpus && InTime(run, p.cluster, allowed);
  };
  const PlannedRun* chosen = nullptr;
  const PlannedRun* second = nullptr;
  for (size_t i = 0; i < plans.size() && chosen == nullptr; ++i) {
    const int64_t gpus = plans[i].plan.gpus;
    if (i > 0 && plans[i - 1].plan.gpus == gpus) continue;
    double fastest = std::numeric_limits<double>::infinity();
    for (const PlannedRun& run : plans) {
      if (eligible(run, gpus)) fastest = std::min(fastest, run.time.step_seconds);
    }
    for (const PlannedRun& run : plans) {
      if (!eligible(run, gpus)) continue;
      const bool worthy = run.time.step_seconds <= fastest * (1 + kWorthwhile);
      if (chosen == nullptr && worthy) {
        chosen = &run;
      } else if (second == nullptr || run.time.step_seconds < second->time.step_seconds) {
        second = &run;
      }
    }
  }
  if (chosen == nullptr) return std::nullopt;
  PlanChoice choice{*chosen, std::nullopt, ""};
  const PlannedRun* missed = nullptr;  // faster, and nearest to fitting
  for (const PlannedRun& run : plans) {
    if (run.fits() || run.plan.gpus != chosen->plan.gpus) continue;
    if (run.time.step_seconds * (1 + kWorthwhile) >= chosen->time.step_seconds) continue;
    if (missed == nullptr || run.missing_bytes() < missed->missing_bytes()) missed = &run;
  }
  if (missed != nullptr) second = missed;
  if (second != nullptr) {
    choice.runner_up = *second;
    choice.runner_up_reason = WhyLost(*second, *chosen);
  }
  return choice;
}

const PlannedRun& Leanest(const std::vector<PlannedRun>& plans) {
  LL_CHECK(!plans.empty());
  return *std::min_element(plans.begin(), plans.end(), [](const auto& a, const auto& b) {
    return a.memory.total() < b.memory.total();
  });
}

double SecondsAllowed(const JobSpec& spec) {
  double seconds = std::numeric_limits<double>::infinity();
  for (const auto& limit : {spec.deadline, spec.max_runtime}) {
    if (limit.value_or(0) > 0) seconds = std::min(seconds, static_cast<double>(*limit));
  }
  return seconds;
}

double RelativeError(const DeviceRates& rates) {
  return rates.measured ? kMeasuredError : kCatalogueError;
}

JobForecast ForecastJob(const PlannedRun& run, const DeviceRates& rates, double price) {
  JobForecast out;
  if (rates.nominal) return out;
  out.seconds = run.time.duration_seconds;
  out.low_seconds = out.seconds * (1 - RelativeError(rates));
  out.high_seconds = out.seconds * (1 + RelativeError(rates));
  const double gpu_seconds = out.seconds * static_cast<double>(run.plan.gpus);
  out.gpu_hours = gpu_seconds / 3600;
  out.energy_joules = gpu_seconds * rates.power_watts;
  out.cost = out.gpu_hours * price;
  return out;
}

}  // namespace ll
