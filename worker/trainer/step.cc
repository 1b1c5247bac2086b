#include "worker/trainer/step.h"

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "base/status_macros.h"
#include "worker/trainer/optim/grad_norm.h"

namespace ll {
namespace {

absl::Duration Now() { return RealClock().Steady(); }

// Adds the time of its life to `seconds`.
class Timer {
 public:
  explicit Timer(double& seconds) : seconds_(seconds), start_(Now()) {}
  ~Timer() { seconds_ += absl::ToDoubleSeconds(Now() - start_); }

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

// What the ranks tell each other beside gradients, added up over them: a few sums, and then a row
// of figures for each rank, which the others fill with zeros. One small message a step.
class SharedFigures {
 public:
  enum Sum { kLoss, kStop, kCheckpoint, kPartsDone, kPartsFailed, kOutOfMemory, kSums };
  enum PerRank { kBusySeconds, kComputeSeconds, kTokens, kPerRank };

  SharedFigures(int rank, int ranks)
      : rank_(rank), ranks_(ranks), figures_(at::zeros({kSums + kPerRank * ranks}, at::kDouble)) {}
  void Set(Sum sum, double value) { figures_[sum] = value; }
  void Set(PerRank figure, double value) { figures_[kSums + figure * ranks_ + rank_] = value; }
  absl::Status Share(Comm& comm) { return comm.AllReduceSum({figures_}); }
  double Get(Sum sum) const { return figures_[sum].item<double>(); }
  std::vector<double> Get(PerRank figure) const {
    const double* first = figures_.const_data_ptr<double>() + kSums + figure * ranks_;
    return {first, first + ranks_};
  }

 private:
  const int rank_, ranks_;
  at::Tensor figures_;
};

// What this rank has waited for others so far: in exchanges of rows, in sums that go on beside the
// backward pass, and for their parts of the base.
double WaitSeconds(const Gang& gang) {
  double seconds = gang.context.counters().wait_seconds + gang.world.counters().wait_seconds;
  if (gang.base != nullptr) seconds += gang.base->counters().wait_seconds;
  return seconds;
}

// Whether a rank may leave a row without another waiting for it.
bool ComputesAlone(const Gang& gang) {
  return gang.layout.context_size == 1 && gang.base == nullptr;
}

// This rank's rows, forward and backward. Returns the sum of their losses.
absl::StatusOr<double> Accumulate(const StepPlace& place, double grad_scale, Training& training,
                                  Llama& model, const Gang& gang, StepReport& report,
                                  SharedFigures& shared) {
  const absl::Duration start = Now();
  const double waited = WaitSeconds(gang);
  int64_t tokens = 0;
  const int64_t batch = *training.spec.global_batch_size;
  double loss_sum = 0;
  for (int64_t first = 0; first < batch; first += gang.layout.data_size) {
    const int64_t i = first + gang.layout.data;
    if (i >= batch) {  // the others' rows are one more
      LL_RETURN_IF_ERROR(model.SitOut(/*backward=*/true));
      continue;
    }
    const int64_t index = place.first_row + i;
    Row row;
    {
      Timer timer(report.data_seconds);
      row = training.loader->Load(index);
    }
    gang.parameters.Touch(row.tokens);
    if (i + gang.layout.data_size >= batch) gang.parameters.LastRow();
    if (training.options.lora.dropout > 0)
      row.dropout_key = DropoutKey(training.options.seed, index);
    LL_ASSIGN_OR_RETURN(
        const double loss,
        model.ForwardBackward(row, AttentionOfRow(training, place.step, row.tokens.numel()),
                              grad_scale, &report.model, &gang.context, &gang.parameters));
    loss_sum += loss;
    tokens += row.tokens.numel();
  }
  const double busy = absl::ToDoubleSeconds(Now() - start);
  report.exchange_seconds = WaitSeconds(gang) - waited;
  shared.Set(SharedFigures::kBusySeconds, busy);
  shared.Set(SharedFigures::kComputeSeconds, busy - report.exchange_seconds);
  shared.Set(SharedFigures::kTokens, static_cast<double>(tokens) / gang.layout.context_size);
  return loss_sum;
}

void TakeFigures(const SharedFigures& shared, int rank, StepReport& report) {
  report.compute_seconds = shared.Get(SharedFigures::kComputeSeconds);
  report.compute_tokens = shared.Get(SharedFigures::kTokens);
  const std::vector<double> busy = shared.Get(SharedFigures::kBusySeconds);
  // All begin a step at about the same time: the sums of the one before end together.
  const double behind =
      *std::max_element(busy.begin(), busy.end()) - busy[static_cast<size_t>(rank)];
  report.wait_seconds = std::min(behind, report.reduce_seconds);
  report.reduce_seconds -= report.wait_seconds;
}

}  // namespace

absl::StatusOr<StepReport> RunStep(const StepPlace& place, const StepWishes& wishes,
                                   const GuardPolicy& policy, GuardState& guard, Training& training,
                                   Llama& model, AdamWOptimizer& optimizer,
                                   const Schedule& schedule, const Gang& gang) {
  Comm& comm = gang.world;
  StepReport report;
  const absl::Duration start = Now();
  const int64_t batch = *training.spec.global_batch_size;
  int64_t targets = 0;
  for (int64_t i = 0; i < batch; ++i) {
    targets += training.loader->TargetsOf(place.first_row + i);
    report.tokens += training.loader->TokensOf(place.first_row + i);
  }
  const double scale = targets > 0 ? 1.0 / static_cast<double>(targets) : 0.0;

  comm.EnterPhase("data");
  gang.parameters.StartStep();
  SharedFigures shared(comm.rank(), comm.world_size());
  absl::StatusOr<double> loss_sum = Accumulate(place, scale, training, model, gang, report, shared);
  if (absl::IsResourceExhausted(loss_sum.status()) && ComputesAlone(gang)) {
    // The others are on their way to the sums: this rank takes part in them, with what it has.
    report.memory.mine = loss_sum.status();
    model.ReleaseRowMemory();
    loss_sum = 0.0;
  }
  LL_RETURN_IF_ERROR(loss_sum.status());
  shared.Set(SharedFigures::kLoss, *loss_sum);
  shared.Set(SharedFigures::kOutOfMemory, report.memory.mine.ok() ? 0.0 : 1.0);
  shared.Set(SharedFigures::kStop, wishes.stop ? 1.0 : 0.0);
  shared.Set(SharedFigures::kCheckpoint, wishes.checkpoint ? 1.0 : 0.0);
  shared.Set(SharedFigures::kPartsDone, wishes.parts.done);
  shared.Set(SharedFigures::kPartsFailed, wishes.parts.failed);
  {
    Timer timer(report.reduce_seconds);
    comm.EnterPhase("reduce");
    LL_RETURN_IF_ERROR(gang.parameters.FinishReduction());
    LL_RETURN_IF_ERROR(shared.Share(comm));
  }
  TakeFigures(shared, comm.rank(), report);
  report.loss = shared.Get(SharedFigures::kLoss) * scale;
  report.wishes = {
      shared.Get(SharedFigures::kStop) > 0,
      shared.Get(SharedFigures::kCheckpoint) > 0,
      {shared.Get(SharedFigures::kPartsDone), shared.Get(SharedFigures::kPartsFailed)}};
  report.memory.ranks = std::llround(shared.Get(SharedFigures::kOutOfMemory));
  if (report.memory.ranks > 0) {
    report.step_seconds = absl::ToDoubleSeconds(Now() - start);
    return report;
  }

  {
    Timer timer(report.optimizer_seconds);
    comm.EnterPhase("optimizer");
    LL_ASSIGN_OR_RETURN(report.grad_norm, gang.parameters.GradNorm());
    report.learning_rate = schedule.At(place.step);
    report.verdict = JudgeStep(policy, place.step, report.loss, report.grad_norm, guard);
    if (report.verdict.Updates()) {
      // The moments' bias goes by the updates they have seen.
      optimizer.Step(place.step + 1 - guard.skipped_steps, report.learning_rate,
                     ClipFactor(report.grad_norm, *training.spec.max_grad_norm));
      LL_RETURN_IF_ERROR(gang.parameters.GatherParameters());
    }
  }
  report.step_seconds = absl::ToDoubleSeconds(Now() - start);
  return report;
}

absl::StatusOr<MemoryCheck> TryRow(int64_t row_index, int64_t step, bool compute,
                                   Training& training, Llama& model, const Gang& gang) {
  gang.parameters.StartStep();
  const Row row = training.loader->Load(row_index);
  const AttentionSpec attention = AttentionOfRow(training, step, row.tokens.numel());
  MemoryCheck check;
  const auto agree = [&]() -> absl::Status {
    if (!check.mine.ok() && !absl::IsResourceExhausted(check.mine)) return check.mine;
    if (!check.mine.ok()) model.ReleaseRowMemory();
    at::Tensor failed = at::full({1}, check.mine.ok() ? 0.0 : 1.0, at::kDouble);
    LL_RETURN_IF_ERROR(gang.world.AllReduceSum({failed}));
    check.ranks = std::llround(failed[0].item<double>());
    return absl::OkStatus();
  };
  check.mine = model.ReserveRow(row, attention, &gang.context);
  LL_RETURN_IF_ERROR(agree());
  if (check.ranks > 0 || !compute) return check;
  check.mine = model
                   .ForwardBackward(row, attention, /*grad_scale=*/1.0, nullptr, &gang.context,
                                    &gang.parameters)
                   .status();
  if (!check.mine.ok() && !ComputesAlone(gang)) return check.mine;
  LL_RETURN_IF_ERROR(agree());
  return check;
}

int64_t LongestRow(RowSource& rows) {
  int64_t longest = 0;
  for (int64_t i = 1; i < rows.rows(); ++i) {
    if (rows.TokensOf(i) > rows.TokensOf(longest)) longest = i;
  }
  return longest;
}

}  // namespace ll
