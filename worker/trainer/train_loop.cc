#include "worker/trainer/train_loop.h"

#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>

#include <ATen/Parallel.h>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "worker/trainer/checkpoint/trainer_state.h"
#include "worker/trainer/checkpoints.h"
#include "worker/trainer/device.h"
#include "worker/trainer/error_class.h"
#include "worker/trainer/eval/eval_model.h"
#include "worker/trainer/eval/perplexity.h"
#include "worker/trainer/eval/run_retrieval.h"
#include "worker/trainer/guard/loss_guard.h"
#include "worker/trainer/host_names.h"
#include "worker/trainer/memory_policy.h"
#include "worker/trainer/progress.h"
#include "worker/trainer/resume.h"
#include "worker/trainer/rollback.h"
#include "worker/trainer/step.h"
#include "worker/trainer/verify.h"

namespace ll {
namespace {

class Loop {
 public:
  Loop(Training& training, Comm& comm, EventSink& events, const TrainOptions& options)
      : training_(training),
        spec_(training.spec),
        comm_(comm),
        events_(events),
        options_(options),
        layout_(LayoutOf(comm.rank(), comm.world_size(), training.context_ranks)) {}

  absl::StatusOr<TrainOutcome> Run();
  // Ends what writes and copies checkpoints, as the destructor does.
  void CloseCheckpoints();

 private:
  absl::Status Load();
  // Steps down until the data's longest row has the memory it needs. Nothing where the first step
  // shows the same.
  absl::Status TryLongestRow(const Gang& gang);
  // False: the step did not take place, for lack of memory, and is to be repeated with less kept.
  absl::StatusOr<bool> HadMemory(const StepReport& report);
  // Acts on a step that a guard caught; true: state_ is an older one. An error ends the training.
  absl::StatusOr<bool> Guarded(GuardVerdict verdict, const StepReport& report);
  absl::Status Evaluate();
  // Whether the newest evaluations brought no gain (spec: early_stopping_patience).
  bool StoppedEarly() const;
  absl::Status Checkpoint(bool final);
  void Done();
  // Compares what was reached with the checkpoint that it should be; every rank hears of a failure.
  absl::Status Verify();

  Training& training_;
  const JobSpec& spec_;
  Comm& comm_;
  EventSink& events_;
  const TrainOptions& options_;
  const RankLayout layout_;

  std::unique_ptr<Comm> context_;  // the ranks that share this rank's rows
  std::unique_ptr<Comm> base_;     // all ranks, for what they divide of the base; else null
  std::unique_ptr<Llama> model_;
  std::unique_ptr<ShardedParameters> parameters_;
  std::unique_ptr<AdamWOptimizer> optimizer_;
  std::optional<Checkpoints> checkpoints_;
  std::optional<Progress> progress_;
  TrainerState state_;
  std::optional<MemoryLadder> ladder_;
  bool checkpoint_wish_ = false;  // of a step that did not count
  int64_t first_step_ = 0;
};

absl::Status Loop::Load() {
  nlohmann::ordered_json on = {{"device", ProcessDeviceName()}};
  if (!ProcessAttention().empty()) on["attention_kernel"] = ProcessAttention();
  events_.Phase("load", on);
  comm_.EnterPhase("load");
  LL_ASSIGN_OR_RETURN(std::vector<std::string> hosts, HostNames(comm_));
  progress_.emplace(training_, events_,
                    GangFacts{comm_.rank(), std::move(hosts), options_.peak_flops});
  LL_ASSIGN_OR_RETURN(context_,
                      comm_.Split(absl::StrCat("context ", layout_.data), ContextRanks(layout_)));
  if (*spec_.shard_base && comm_.world_size() > 1) {
    std::vector<int> all(static_cast<size_t>(comm_.world_size()));
    std::iota(all.begin(), all.end(), 0);
    LL_ASSIGN_OR_RETURN(base_, comm_.Split("base", all));
  }
  LL_RETURN_IF_ERROR(AgreeOnPolicy(training_, comm_));
  LL_ASSIGN_OR_RETURN(
      model_, Llama::Create(training_.config, *training_.weights, training_.options, base_.get()));
  training_.weights
      .reset();  // the model holds what it needs; files stay mapped where it views them
  // A tied head gives every row of the embedding a gradient.
  parameters_ =
      std::make_unique<ShardedParameters>(model_->parameters(), static_cast<int>(*spec_.zero_stage),
                                          !training_.config.tie_word_embeddings, comm_);
  optimizer_ = std::make_unique<AdamWOptimizer>(
      parameters_->slices(),
      AdamWOptions{*spec_.adam_beta1, *spec_.adam_beta2, 1e-8, *spec_.weight_decay});
  LL_ASSIGN_OR_RETURN(state_,
                      ResumeOrStart(training_, *model_, *optimizer_, comm_, events_, options_));
  parameters_->ReleaseMasters();
  ladder_.emplace(PolicyOf(spec_), training_.options.device.is_cuda());
  first_step_ = state_.step;
  checkpoints_.emplace(training_, *model_, *optimizer_, comm_, events_, options_);
  if (!options_.verify_against.empty()) return absl::OkStatus();  // nothing is written
  return checkpoints_->Open(state_.step, /*divided=*/parameters_->zero_stage() > 0);
}

absl::StatusOr<TrainOutcome> Loop::Run() {
  for (const std::string& warning : training_.warnings) events_.Warning(warning);
  LL_RETURN_IF_ERROR(Load());
  LL_ASSIGN_OR_RETURN(const Schedule schedule,
                      Schedule::Create(*spec_.lr_schedule, *spec_.learning_rate,
                                       *spec_.warmup_steps, *spec_.max_steps));
  events_.Phase("train", {{"step", state_.step},
                          {"max_steps", *spec_.max_steps},
                          {"recompute", *spec_.recompute},
                          {"threads", at::get_num_threads()}});
  const Gang gang{comm_, layout_, *context_, *parameters_, base_.get()};
  const GuardPolicy policy = GuardPolicyOf(spec_);
  const bool rolls_back =
      policy.on_nan == GuardAction::kRollback || policy.on_loss_spike == GuardAction::kRollback;
  // Something to go back to from the first steps.
  if (rolls_back && state_.step == 0 && options_.verify_against.empty())
    LL_RETURN_IF_ERROR(Checkpoint(/*final=*/false));
  LL_RETURN_IF_ERROR(TryLongestRow(gang));
  const auto due = [this](int64_t every) { return every > 0 && state_.step % every == 0; };
  const int64_t end = options_.verify_against.empty() ? *spec_.max_steps : options_.stop_at;
  while (state_.step < end && !StoppedEarly()) {
    if (state_.step == training_.full_attention_from &&
        training_.attention.kind != AttentionKind::kFull) {
      events_.Phase("full_attention", {{"step", state_.step}});
    }
    const StepWishes mine{options_.stop_requested(),
                          options_.take_checkpoint_request() || checkpoint_wish_,
                          checkpoints_->MyParts()};
    const StepPlace place{state_.step,
                          state_.step * *spec_.global_batch_size + state_.rows_skipped};
    LL_ASSIGN_OR_RETURN(const StepReport report,
                        RunStep(place, mine, policy, state_.guard, training_, *model_, *optimizer_,
                                schedule, gang));
    checkpoints_->HeardOfParts(report.wishes.parts);
    LL_ASSIGN_OR_RETURN(const bool had_memory, HadMemory(report));
    if (!had_memory) continue;
    if (report.verdict.action != GuardAction::kGoOn) {
      LL_ASSIGN_OR_RETURN(const bool went_back, Guarded(report.verdict, report));
      checkpoint_wish_ = went_back && report.wishes.checkpoint;
      if (went_back) continue;
    }
    state_.step += 1;
    state_.rows_consumed += *spec_.global_batch_size;
    state_.tokens_consumed += report.tokens;
    if (std::isfinite(report.loss)) state_.last_loss = report.loss;
    progress_->Step(report, state_);
    if (due(*spec_.eval_steps)) LL_RETURN_IF_ERROR(Evaluate());
    const bool last = state_.step == end || StoppedEarly();
    const bool final = last || report.wishes.stop;
    if (final || due(*spec_.save_steps) || report.wishes.checkpoint)
      LL_RETURN_IF_ERROR(Checkpoint(final));
    if (report.wishes.stop && !last) {
      LL_RETURN_IF_ERROR(checkpoints_->Finish(kStopCopyTimeout));
      return TrainOutcome::kStopped;
    }
  }
  if (!options_.verify_against.empty()) {
    LL_RETURN_IF_ERROR(Verify());
    return TrainOutcome::kDone;
  }
  // A job resumed elsewhere at its last step still owes this folder its result.
  if (checkpoints_->newest_step() != state_.step) LL_RETURN_IF_ERROR(Checkpoint(/*final=*/true));
  LL_RETURN_IF_ERROR(checkpoints_->Finish(kFinalCopyTimeout));
  Done();
  return TrainOutcome::kDone;
}

absl::Status Loop::TryLongestRow(const Gang& gang) {
  const bool shares_rows = layout_.context_size > 1 || base_ != nullptr;
  if (state_.step >= *spec_.max_steps || (!*spec_.sft && !shares_rows)) return absl::OkStatus();
  RowSource& rows = *training_.loader;
  const int64_t first = state_.step * *spec_.global_batch_size + state_.rows_skipped;
  const int64_t longest = *spec_.sft ? LongestRow(rows) : first;
  bool longer = true;  // than what the first step runs anyway
  for (int64_t i = first; i < first + *spec_.global_batch_size; ++i)
    longer = longer && rows.TokensOf(i) < rows.TokensOf(longest);
  if (!longer && !shares_rows) return absl::OkStatus();
  if (longer) events_.Phase("longest_row", {{"tokens", rows.TokensOf(longest)}});
  comm_.EnterPhase("longest row");
  for (;;) {
    const absl::Duration start = RealClock().Steady();
    LL_ASSIGN_OR_RETURN(const MemoryCheck memory,
                        TryRow(longest, state_.step, longer, training_, *model_, gang));
    if (memory.ranks == 0) return absl::OkStatus();
    LL_RETURN_IF_ERROR(
        StepDown({state_.step, memory, absl::ToDoubleSeconds(RealClock().Steady() - start)},
                 *ladder_, training_, *model_, state_, comm_, events_));
  }
}

absl::StatusOr<bool> Loop::HadMemory(const StepReport& report) {
  checkpoint_wish_ = report.memory.ranks > 0 && report.wishes.checkpoint;
  if (report.memory.ranks == 0) return true;
  LL_RETURN_IF_ERROR(StepDown({state_.step, report.memory, report.step_seconds}, *ladder_,
                              training_, *model_, state_, comm_, events_));
  return false;
}

absl::StatusOr<bool> Loop::Guarded(GuardVerdict verdict, const StepReport& report) {
  if (verdict.action == GuardAction::kRollback && state_.guard.rollbacks >= kMostRollbacks) {
    verdict.action = GuardAction::kStop;
    absl::StrAppend(&verdict.reason, ", after ", kMostRollbacks, " rollbacks");
  }
  nlohmann::ordered_json event = {{"step", state_.step + 1},
                                  {"kind", std::string(GuardKindName(verdict.kind))},
                                  {"action", std::string(GuardActionName(verdict.action))},
                                  {"loss", report.loss},
                                  {"grad_norm", report.grad_norm}};
  if (verdict.kind == GuardKind::kLossSpike) {
    event["mean"] = verdict.mean;
    event["deviation"] = verdict.deviation;
  }
  if (verdict.action == GuardAction::kSkip)
    absl::StrAppend(&verdict.reason, "; its update was left out");
  const bool back = verdict.action == GuardAction::kRollback;
  if (back) {
    comm_.EnterPhase("rollback");
    checkpoints_->Settle();  // the newest one may still be on its way to the disk
    LL_ASSIGN_OR_RETURN(
        state_, RollBack(state_, checkpoints_->Roots(), comm_, events_, *model_, *optimizer_));
    checkpoints_->WentBackTo(state_.step);
    event["to_step"] = state_.step;
    event["rows_skipped"] = state_.rows_skipped;
    absl::StrAppend(&verdict.reason, "; went back to step ", state_.step, ", ", state_.rows_skipped,
                    " rows are left out so far");
  }
  event["message"] = verdict.reason;
  if (comm_.rank() == 0) events_.Emit("guard", event);
  if (verdict.action != GuardAction::kStop) return back;
  const bool spike = verdict.kind == GuardKind::kLossSpike;
  return WithErrorClass(
      FieldStatus(absl::StatusCode::kInternal, spike ? "on_loss_spike" : "loss", verdict.reason,
                  absl::StrCat("lower learning_rate, look at the data of that step, or leave it "
                               "out with ",
                               spike ? "on_loss_spike" : "on_nan", ": skip or rollback")),
      ErrorClass::kNotANumber);
}

absl::Status Loop::Evaluate() {
  events_.Phase("eval", {{"step", state_.step}});
  comm_.EnterPhase("eval");
  PerplexityOptions options;
  options.seq_len = spec_.eval_seq_len.value_or(*spec_.context_length);
  options.sliding_window = spec_.eval_sliding_window.value_or(options.seq_len);
  options.mode =
      spec_.eval_mode.value_or("exact") == "official" ? WindowMode::kOfficial : WindowMode::kExact;
  LL_ASSIGN_OR_RETURN(const PerplexityResult result,
                      Perplexity(*model_, *training_.eval_file, options, comm_));
  nlohmann::ordered_json fields = {{"step", state_.step}};
  fields.update(ToJson(result));
  if (training_.passkey_encoder != nullptr) {
    LL_ASSIGN_OR_RETURN(const PasskeyResult passkey,
                        MeasurePasskey(*model_, *training_.passkey_encoder, PasskeyOptionsOf(spec_),
                                       comm_, events_));
    fields["effective_context_length"] = passkey.effective_context_length;
    fields["passkey"] = ToJson(passkey);
  }
  if (comm_.rank() == 0) events_.Emit("eval", fields);
  // Every rank has the same perplexity, so all stop or none.
  const bool gained = result.perplexity < state_.best_perplexity - *spec_.early_stopping_threshold;
  state_.evaluations_without_gain = gained ? 0 : state_.evaluations_without_gain + 1;
  if (gained) state_.best_perplexity = result.perplexity;
  if (StoppedEarly() && comm_.rank() == 0) {
    events_.Phase("early_stop",
                  {{"step", state_.step}, {"best_perplexity", state_.best_perplexity}});
  }
  return absl::OkStatus();
}

bool Loop::StoppedEarly() const {
  return *spec_.early_stopping_patience > 0 &&
         state_.evaluations_without_gain >= *spec_.early_stopping_patience;
}

absl::Status Loop::Checkpoint(bool final) {
  const absl::Duration start = RealClock().Steady();
  LL_RETURN_IF_ERROR(checkpoints_->Take(state_, final));
  progress_->WaitedForCheckpoint(absl::ToDoubleSeconds(RealClock().Steady() - start));
  return absl::OkStatus();
}

void Loop::CloseCheckpoints() {
  if (checkpoints_) checkpoints_->Close();
}

void Loop::Done() {
  Progress::End end{first_step_, checkpoints_->PathOf(state_.step), ""};
  if (StoppedEarly()) {
    end.stop_reason =
        absl::StrCat("early stopping: perplexity did not fall below ", state_.best_perplexity,
                     " in ", state_.evaluations_without_gain, " evaluations");
  }
  progress_->Done(state_, end);
}

absl::Status Loop::Verify() {
  comm_.EnterPhase("verify");
  const auto counts =
      CompareWithCheckpoint(options_.verify_against, training_.config.tie_word_embeddings,
                            *spec_.method == "full", *model_, *optimizer_);
  at::Tensor failed = at::full({1}, counts.ok() ? 0.0 : 1.0, at::kDouble);
  const absl::Status told = comm_.AllReduceSum({failed});
  LL_RETURN_IF_ERROR(counts.status());
  LL_RETURN_IF_ERROR(told);
  if (failed[0].item<double>() > 0)
    return absl::DataLossError("another rank's part of the checkpoint differs");
  if (comm_.rank() != 0) return absl::OkStatus();
  events_.Emit("done", {{"result",
                         {{"verified", true},
                          {"from_step", first_step_},
                          {"to_step", state_.step},
                          {"tensors", counts->tensors},
                          {"bytes", counts->bytes},
                          {"checkpoint", options_.verify_against}}}});
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TrainOutcome> Train(Training& training, Comm& comm, EventSink& events,
                                   const TrainOptions& options) {
  auto loop = std::make_unique<Loop>(training, comm, events, options);
  absl::StatusOr<TrainOutcome> outcome = loop->Run();
  if (!outcome.ok() && ProcessDevice().is_cuda()) {
    // The process ends by this error. What a lost GPU's memory and NCCL's groups are given back
    // with would throw or wait before the error is told (rank.cc): the system takes them.
    loop->CloseCheckpoints();
    static_cast<void>(loop.release());
  }
  return outcome;
}

}  // namespace ll
