#include "worker/trainer/memory_policy.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/format.h"
#include "base/status_macros.h"
#include "model/plan/memory_plan.h"

namespace ll {
namespace {

constexpr char kWhatHelps[] =
    "give more gpus or context_parallel, quantization: nf4, or fewer tokens; llctl plan shows what "
    "fits";

std::string Who(const MemoryCheck& memory, const Comm& comm) {
  if (comm.world_size() == 1) return "the process";
  return absl::StrCat(memory.ranks, " of ", comm.world_size(), " ranks");
}

absl::Status NothingLeft(const OutOfMemory& what, const MemoryLadder& ladder,
                         const Training& training, const Comm& comm) {
  const bool fail = training.spec.on_oom == "fail";
  std::string message =
      absl::StrCat(Who(what.memory, comm), " ran out of memory at step ", what.step + 1, " with ",
                   fail ? PolicyText(ladder.policy()) : ladder.Tried());
  if (!what.memory.mine.ok()) absl::StrAppend(&message, ": ", what.memory.mine.message());
  return FieldStatus(
      absl::StatusCode::kResourceExhausted, "on_oom", message,
      fail ? absl::StrCat("leave on_oom: fail out to go on with less, or ", kWhatHelps)
           : kWhatHelps);
}

int64_t ForecastBytes(const Training& training) {
  return ForecastMemory(training.config, training.spec, training.options.device.is_cuda(),
                        *training.spec.recompute)
      .total();
}

}  // namespace

void TakePolicy(const MemoryPolicy& policy, Training& training) {
  training.spec.recompute = policy.recompute;
  training.spec.activation_offload = policy.activation_offload;
  training.options.recompute = policy.recompute == "none"        ? Recompute::kNone
                               : policy.recompute == "selective" ? Recompute::kSelective
                                                                 : Recompute::kFull;
  training.options.offload_activations = policy.activation_offload;
}

absl::Status AgreeOnPolicy(Training& training, Comm& comm) {
  const std::vector<MemoryPolicy> rungs = MemoryRungs(/*gpu=*/true);
  at::Tensor chosen = at::zeros({static_cast<int64_t>(rungs.size())}, at::kDouble);
  chosen[static_cast<int64_t>(RungOf(PolicyOf(training.spec)))] = 1.0;
  LL_RETURN_IF_ERROR(comm.AllReduceSum({chosen}));
  for (size_t i = 0; i < rungs.size(); ++i) {
    if (chosen[static_cast<int64_t>(i)].item<double>() > 0) TakePolicy(rungs[i], training);
  }
  return absl::OkStatus();
}

absl::Status StepDown(const OutOfMemory& what, MemoryLadder& ladder, Training& training,
                      Llama& model, TrainerState& state, const Comm& comm, EventSink& events) {
  if (training.spec.on_oom == "fail") return NothingLeft(what, ladder, training, comm);
  const absl::Duration start = RealClock().Steady();
  const int64_t forecast_before = ForecastBytes(training);
  const auto change = ladder.StepDown();
  if (!change) return NothingLeft(what, ladder, training, comm);
  TakePolicy(change->policy, training);
  LL_RETURN_IF_ERROR(
      model.SetMemoryPolicy(training.options.recompute, training.options.offload_activations));
  // So that an attempt that goes on from the next checkpoint does not try again what failed here.
  state.spec.recompute = training.spec.recompute;
  state.spec.activation_offload = training.spec.activation_offload;
  state.plan["recompute"] = *training.spec.recompute;
  ++state.memory_steps_down;
  if (!what.memory.mine.ok()) events.Warning(what.memory.mine.message());
  if (comm.rank() != 0) return absl::OkStatus();
  const double cost = what.lost_seconds + absl::ToDoubleSeconds(RealClock().Steady() - start);
  const std::string reason =
      absl::StrCat(Who(what.memory, comm), " ran out of memory at step ", what.step + 1);
  events.Emit("policy", {{"step", what.step + 1},
                         {"field", change->field},
                         {"from", change->from},
                         {"to", change->to},
                         {"reason", reason},
                         {"cost_seconds", cost},
                         {"forecast_bytes_before", forecast_before},
                         {"forecast_bytes", ForecastBytes(training)},
                         {"message", absl::StrFormat("%s; %s went from %s to %s (%s lost)", reason,
                                                     change->field, change->from, change->to,
                                                     HumanDuration(absl::Seconds(cost)))}});
  return absl::OkStatus();
}

}  // namespace ll
