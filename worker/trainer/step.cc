#include "worker/trainer/step.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/torch_edge.h"
#include "worker/trainer/error_class.h"
#include "worker/trainer/optim/grad_norm.h"

namespace ll {
namespace {

// Adds the time of its life to `seconds`.
class Timer {
 public:
  explicit Timer(double& seconds) : seconds_(seconds), start_(RealClock().Steady()) {}
  ~Timer() { seconds_ += absl::ToDoubleSeconds(RealClock().Steady() - start_); }

 private:
  double& seconds_;
  const absl::Duration start_;
};

// The dropout masks of a row are named by the job's seed, the step and the row in the global batch,
// never by the rank that happens to run it. splitmix64's finaliser; 0 means no dropout.
uint64_t DropoutKey(uint64_t seed, int64_t row_index) {
  uint64_t z = seed * 0x9e3779b97f4a7c15ull + static_cast<uint64_t>(row_index) + 1;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  z ^= z >> 31;
  return z == 0 ? 1 : z;
}

// Large gradients are summed in place, small ones packed into one flat tensor: few messages, no
// copy of the embedding.
absl::Status ReduceGradients(std::vector<Parameter>& parameters, Comm& comm) {
  if (comm.world_size() == 1) return absl::OkStatus();
  constexpr int64_t kLarge = 1 << 20;  // elements
  std::vector<at::Tensor> large, small;
  for (Parameter& parameter : parameters) {
    (parameter.grad.numel() >= kLarge ? large : small).push_back(parameter.grad);
  }
  return TorchTry([&]() -> absl::Status {
    if (!small.empty()) {
      std::vector<at::Tensor> flat;
      for (const at::Tensor& grad : small) flat.push_back(grad.view({-1}));
      const at::Tensor bucket = at::cat(flat);
      LL_RETURN_IF_ERROR(comm.AllReduceSum({bucket}));
      int64_t offset = 0;
      for (const at::Tensor& grad : flat) {
        grad.copy_(bucket.narrow(0, offset, grad.numel()));
        offset += grad.numel();
      }
    }
    return comm.AllReduceSum(large);
  });
}

// This rank's rows, forward and backward. Returns the sum of their losses.
absl::StatusOr<double> Accumulate(int64_t step, double grad_scale, Training& training, Llama& model,
                                  const Gang& gang, StepReport& report) {
  const int64_t batch = *training.spec.global_batch_size;
  double loss_sum = 0;
  for (int64_t i = gang.layout.data; i < batch; i += gang.layout.data_size) {
    const int64_t index = step * batch + i;
    Row row;
    {
      Timer timer(report.data_seconds);
      row = training.loader->Load(index);
    }
    if (training.options.lora.dropout > 0)
      row.dropout_key = DropoutKey(training.options.seed, index);
    LL_ASSIGN_OR_RETURN(
        const double loss,
        model.ForwardBackward(row, AttentionOfRow(training, step, row.tokens.numel()), grad_scale,
                              &report.model, &gang.context));
    loss_sum += loss;
  }
  return loss_sum;
}

absl::Status NotFinite(const char* what, int64_t step, double value) {
  return WithErrorClass(FieldStatus(absl::StatusCode::kInternal, what,
                                    absl::StrCat("became ", value, " at step ", step + 1),
                                    "lower learning_rate, or look at the data of that step"),
                        ErrorClass::kNotANumber);
}

}  // namespace

absl::StatusOr<StepReport> RunStep(int64_t step, const StepWishes& wishes, Training& training,
                                   Llama& model, AdamWOptimizer& optimizer,
                                   const Schedule& schedule, const Gang& gang) {
  Comm& comm = gang.world;
  StepReport report;
  const absl::Duration start = RealClock().Steady();
  const int64_t batch = *training.spec.global_batch_size;
  int64_t targets = 0;
  for (int64_t i = 0; i < batch; ++i) {
    targets += training.loader->TargetsOf(step * batch + i);
    report.tokens += training.loader->TokensOf(step * batch + i);
  }
  const double scale = targets > 0 ? 1.0 / static_cast<double>(targets) : 0.0;

  comm.EnterPhase("data");
  model.ZeroGrad();
  LL_ASSIGN_OR_RETURN(const double loss_sum,
                      Accumulate(step, scale, training, model, gang, report));

  at::Tensor shared = at::zeros(
      {3}, at::kDouble);  // loss sum, ranks that want to stop, ranks that want a checkpoint
  shared[0] = loss_sum;
  shared[1] = wishes.stop ? 1.0 : 0.0;
  shared[2] = wishes.checkpoint ? 1.0 : 0.0;
  {
    Timer timer(report.reduce_seconds);
    comm.EnterPhase("reduce");
    LL_RETURN_IF_ERROR(ReduceGradients(model.parameters(), comm));
    LL_RETURN_IF_ERROR(comm.AllReduceSum({shared}));
  }
  report.loss = shared[0].item<double>() * scale;
  report.wishes = {shared[1].item<double>() > 0, shared[2].item<double>() > 0};
  if (!std::isfinite(report.loss)) return NotFinite("loss", step, report.loss);

  {
    Timer timer(report.optimizer_seconds);
    comm.EnterPhase("optimizer");
    report.grad_norm = GlobalGradNorm(model.parameters());
    if (!std::isfinite(report.grad_norm)) return NotFinite("grad_norm", step, report.grad_norm);
    report.learning_rate = schedule.At(step);
    optimizer.Step(step + 1, report.learning_rate,
                   ClipFactor(report.grad_norm, *training.spec.max_grad_norm));
  }
  report.step_seconds = absl::ToDoubleSeconds(RealClock().Steady() - start);
  return report;
}

}  // namespace ll
