#include "worker/trainer/profile_step.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/device.h"
#include "worker/trainer/optim/adamw.h"
#include "worker/trainer/optim/schedule.h"
#include "worker/trainer/optim/sharded_parameters.h"
#include "worker/trainer/step.h"

namespace ll {
absl::StatusOr<StepProfile> ProfileStep(Training& training, int64_t steps, Clock& clock) {
  const JobSpec& spec = training.spec;
  const std::unique_ptr<Comm> comm = MakeSingleComm();
  LL_ASSIGN_OR_RETURN(const std::unique_ptr<Comm> context, comm->Split("context 0", {0}));
  LL_ASSIGN_OR_RETURN(const std::unique_ptr<Llama> model,
                      Llama::Create(training.config, *training.weights, training.options));
  training.weights.reset();
  ShardedParameters parameters(model->parameters(), 0, !training.config.tie_word_embeddings, *comm);
  AdamWOptimizer optimizer(parameters.slices(), AdamWOptions{*spec.adam_beta1, *spec.adam_beta2,
                                                             1e-8, *spec.weight_decay});
  LL_ASSIGN_OR_RETURN(const Schedule schedule,
                      Schedule::Create(*spec.lr_schedule, *spec.learning_rate, *spec.warmup_steps,
                                       *spec.max_steps));
  const Gang gang{*comm, LayoutOf(0, 1, 1), *context, parameters};
  GuardState guard;
  StepProfile profile;
  int64_t step = 0;
  const auto run = [&](double* seconds, double* tokens) -> absl::Status {
    const StepPlace place{step, step * *spec.global_batch_size};
    LL_ASSIGN_OR_RETURN(const StepReport report,
                        RunStep(place, {}, GuardPolicyOf(spec), guard, training, *model, optimizer,
                                schedule, gang));
    LL_RETURN_IF_ERROR(report.memory.mine);
    *seconds += report.step_seconds;
    *tokens += static_cast<double>(report.tokens);
    profile.loss = report.loss;
    step += 1;
    return absl::OkStatus();
  };
  double plain = 0, traced = 0, tokens = 0, unused = 0;
  LL_RETURN_IF_ERROR(run(&unused, &unused));  // fresh pages, code and workspaces
  for (int64_t i = 0; i < steps; ++i) LL_RETURN_IF_ERROR(run(&plain, &tokens));
  OpTrace trace(clock, WaitForDevice);
  {
    const OpTracing on(trace);
    for (int64_t i = 0; i < steps; ++i) LL_RETURN_IF_ERROR(run(&traced, &unused));
  }
  const double n = static_cast<double>(steps);
  profile.step_seconds = plain / n;
  profile.traced_seconds = traced / n;
  profile.tokens = tokens / n;
  for (const auto& [key, sum] : trace.sums()) {
    profile.rows.push_back({key.first,
                            key.second,
                            static_cast<double>(sum.calls) / n,
                            sum.seconds / n,
                            {sum.work.flops / n, sum.work.bytes / n}});
  }
  std::stable_sort(profile.rows.begin(), profile.rows.end(),
                   [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  return profile;
}

double FloorSeconds(const StepProfile::Row& row, const DeviceRates& rates) {
  double peak = rates.peak > 0 ? rates.peak : rates.gemm;
  if (row.operation == "fp8 product") peak *= 2;  // of all devices that have them
  return std::max(peak > 0 ? row.work.flops / peak : 0,
                  rates.memory_bandwidth > 0 ? row.work.bytes / rates.memory_bandwidth : 0);
}

std::string StepProfileText(const StepProfile& profile, const DeviceRates& rates) {
  std::string text =
      absl::StrFormat("%-10s %-18s %7s %10s %7s %10s %9s %9s %8s\n", "phase", "operation", "calls",
                      "ms", "share", "floor ms", "of floor", "TFLOP/s", "GB/s");
  double seconds = 0, floor = 0;
  for (const StepProfile::Row& row : profile.rows) {
    const double least = FloorSeconds(row, rates);
    seconds += row.seconds;
    floor += least;
    absl::StrAppendFormat(
        &text, "%-10s %-18s %7.0f %10.3f %6.1f%% %10s %9s %9s %8.1f\n", row.phase, row.operation,
        row.calls, 1e3 * row.seconds, 100 * row.seconds / profile.traced_seconds,
        least > 0 ? absl::StrFormat("%.3f", 1e3 * least) : "-",
        least > 0 ? absl::StrFormat("%.1f %%", 100 * least / row.seconds) : "-",
        row.work.flops > 0 ? absl::StrFormat("%.3f", row.work.flops / row.seconds / 1e12) : "-",
        row.work.bytes / row.seconds / 1e9);
  }
  absl::StrAppendFormat(
      &text,
      "operations: %.3f ms, floor %s; the rest of the step: %.3f ms\n"
      "step: %.3f ms without the trace (%.0f tokens/s), %.3f ms with it; loss %.5f\n",
      1e3 * seconds, floor > 0 ? absl::StrFormat("%.3f ms", 1e3 * floor) : "not known",
      1e3 * (profile.traced_seconds - seconds), 1e3 * profile.step_seconds,
      profile.tokens / profile.step_seconds, 1e3 * profile.traced_seconds, profile.loss);
  return text;
}

nlohmann::ordered_json StepProfileJson(const StepProfile& profile, const DeviceRates& rates) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const StepProfile::Row& row : profile.rows) {
    const double least = FloorSeconds(row, rates);
    rows.push_back({{"phase", row.phase},
                    {"operation", row.operation},
                    {"calls", row.calls},
                    {"seconds", row.seconds},
                    {"flops", row.work.flops},
                    {"bytes", row.work.bytes},
                    {"floor_seconds", least > 0 ? nlohmann::ordered_json(least) : nullptr}});
  }
  return {{"device", ProcessDeviceName()},
          {"tokens", profile.tokens},
          {"step_seconds", profile.step_seconds},
          {"traced_seconds", profile.traced_seconds},
          {"loss", profile.loss},
          {"operations", rows}};
}

}  // namespace ll
