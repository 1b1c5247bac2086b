#include "model/plan/forecast_json.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/format.h"

namespace ll {
namespace {

nlohmann::ordered_json MemoryJson(const MemoryForecast& m) {
  return {{"weights", m.weights},     {"trained", m.trainables}, {"activations", m.activations},
          {"workspace", m.workspace}, {"head", m.head},          {"communication", m.communication},
          {"runtime", m.runtime},     {"snapshot", m.snapshot},  {"correction", m.correction}};
}

nlohmann::ordered_json StepJson(const StepForecast& s) {
  return {{"gemm", s.gemm},
          {"attention", s.attention},
          {"recompute", s.recompute},
          {"memory_traffic", s.memory_traffic},
          {"communication", s.communication},
          {"optimizer", s.optimizer},
          {"offload", s.offload}};
}

}  // namespace

nlohmann::ordered_json RunJson(const PlannedRun& run, const Cluster& cluster) {
  const ParallelPlan& p = run.plan;
  nlohmann::ordered_json out = {{"device", cluster.device.kind},
                                {"gpus", p.gpus},
                                {"data_parallel", p.data()},
                                {"context_parallel", p.context},
                                {"zero_stage", p.zero_stage},
                                {"shard_base", p.shard_base},
                                {"recompute", p.recompute},
                                {"activation_offload", p.activation_offload},
                                {"quantization", p.quantization},
                                {"bytes_per_rank", run.memory.total()},
                                {"available_bytes_per_slot", run.available_bytes},
                                {"memory", MemoryJson(run.memory)}};
  // Nominal rates order plans; they tell no times.
  if (!cluster.rates.nominal && run.time.step_seconds > 0) {
    out["step_seconds"] = run.time.step_seconds;
    out["step"] = StepJson(run.time.step);
  }
  return out;
}

nlohmann::ordered_json ForecastJson(const PlanChoice& choice, const Cluster& cluster,
                                    const Prices& prices, bool forced) {
  const PlannedRun& run = choice.chosen;
  nlohmann::ordered_json out = {
      {"bytes_per_rank", run.memory.total()},
      {"available_bytes_per_slot", run.available_bytes},
      {"explanation",
       absl::StrCat(forced ? "forced although it does not fit: " : "", ExplainRun(run, cluster))},
      {"plan", RunJson(run, cluster)}};
  if (choice.runner_up) {
    out["runner_up"] = RunJson(*choice.runner_up, cluster);
    out["runner_up_reason"] = choice.runner_up_reason;
  }
  if (forced) out["forced"] = true;
  const double price = prices.Of(cluster.device.kind);
  DeviceRates rates = cluster.rates;
  rates.power_watts = prices.WattsOf(cluster.device.kind, rates.power_watts);
  // What has been used can be told also where no time was forecast.
  if (price > 0) {
    out["price_per_gpu_hour"] = price;
    out["currency"] = prices.currency;
  }
  if (rates.power_watts > 0) out["power_watts"] = rates.power_watts;
  const JobForecast job = ForecastJob(run, rates, price);
  if (cluster.rates.nominal || run.time.step_seconds <= 0) return out;
  out["tokens_per_second"] = run.time.tokens_per_second;
  if (job.seconds <= 0) return out;  // epochs of data that nobody has counted
  out["duration_seconds"] = job.seconds;
  out["duration_low_seconds"] = job.low_seconds;
  out["duration_high_seconds"] = job.high_seconds;
  out["gpu_hours"] = job.gpu_hours;
  if (job.energy_joules > 0) out["energy_joules"] = job.energy_joules;
  if (price > 0) out["cost"] = job.cost;
  return out;
}

std::string ExplainRun(const PlannedRun& run, const Cluster& cluster) {
  std::vector<std::string> parts;
  for (const MemoryPart& part : MemoryParts(run.memory)) {
    // What does not show in the sum's first figures would only be noise.
    if (part.bytes * 100 < run.memory.total()) continue;
    parts.push_back(absl::StrCat(part.name, " ", HumanBytes(part.bytes)));
  }
  return absl::StrCat("a rank needs ", HumanBytes(run.memory.total()), " (",
                      absl::StrJoin(parts, ", "), ") of ", HumanBytes(run.available_bytes),
                      " that one slot (", cluster.device.kind, ") offers; ",
                      PlanText(run.plan, cluster.device));
}

}  // namespace ll
