#include "worker/trainer/train_loop.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

#include <ATen/Parallel.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/plan/time_plan.h"
#include "worker/trainer/checkpoint/copies.h"
#include "worker/trainer/checkpoint/peft.h"
#include "worker/trainer/checkpoint/remote.h"
#include "worker/trainer/checkpoint/sharded_checkpoint.h"
#include "worker/trainer/checkpoint/state.h"
#include "worker/trainer/checkpoint/trainer_state.h"
#include "worker/trainer/checkpoint/writer.h"
#include "worker/trainer/device.h"
#include "worker/trainer/error_class.h"
#include "worker/trainer/eval/eval_model.h"
#include "worker/trainer/eval/perplexity.h"
#include "worker/trainer/eval/run_retrieval.h"
#include "worker/trainer/guard/loss_guard.h"
#include "worker/trainer/guard/straggler.h"
#include "worker/trainer/host_names.h"
#include "worker/trainer/memory_policy.h"
#include "worker/trainer/resume.h"
#include "worker/trainer/rollback.h"
#include "worker/trainer/step.h"
#include "worker/trainer/verify.h"

namespace ll {
namespace {

// How often a rank tells its own times: they are looked at as metrics, not step by step.
constexpr absl::Duration kTimesEvery = absl::Seconds(5);

// ---- what a checkpoint holds

// Without `buffers` tensors are no copies at all: training has ended, nothing changes them any
// more.
CheckpointContents Describe(const Training& training, Llama& model, const TrainerState& state,
                            SnapshotBuffers* buffers) {
  CheckpointContents contents;
  contents.step = state.step;
  contents.hurry = buffers == nullptr;
  const bool tied = training.config.tie_word_embeddings;
  if (*training.spec.method == "full") {
    NamedTensors weights;
    for (const Parameter& parameter : model.parameters()) {
      const at::Tensor& weight = parameter.compute;
      weights.emplace_back(parameter.name, buffers != nullptr ? buffers->Copy(weight)
                                           : weight.is_cuda() ? weight.cpu()
                                                              : weight);
    }
    contents.copied_files = training.tokenizer_files;
    contents.tensor_files.emplace_back("model.safetensors", std::move(weights));
  } else {
    contents.text_files.emplace_back(
        kAdapterConfigFile,
        PeftConfig(training.options.lora, training.options.train_embedding,
                   training.options.train_norm, tied, training.spec.model.value_or(""))
            .dump(1));
  }
  contents.text_files.emplace_back("config.json", LlamaConfigToJson(training.config).dump(1));
  contents.text_files.emplace_back(kTrainerStateFile, TrainerStateToText(state));
  return contents;
}

// Of a job whose rank 0 updates everything: it writes everything. The snapshot shares one copy of
// each master between the optimizer's file and the adapter's.
CheckpointContents Snapshot(const Training& training, Llama& model, AdamWOptimizer& optimizer,
                            const TrainerState& state, SnapshotBuffers* buffers) {
  CheckpointContents contents = Describe(training, model, state, buffers);
  NamedTensors tensors = OptimizerTensors(model.parameters(), optimizer, buffers);
  if (*training.spec.method != "full") {
    NamedTensors masters;
    for (size_t i = 0; i < model.parameters().size(); ++i)
      masters.emplace_back(model.parameters()[i].name, tensors[3 * i].second);
    contents.tensor_files.emplace_back(kAdapterFile,
                                       PeftTensors(masters, training.config.tie_word_embeddings));
  }
  contents.tensor_files.emplace_back(OptimizerFileName(0, 1), std::move(tensors));
  return contents;
}

// Of a job whose ranks write their parts: what rank 0 adds. The adapter is made of the parts.
CheckpointContents BesidesParts(const Training& training, Llama& model, const TrainerState& state,
                                SnapshotBuffers* buffers) {
  CheckpointContents contents = Describe(training, model, state, buffers);
  contents.has_parts = true;
  if (*training.spec.method == "full") return contents;
  std::vector<std::pair<std::string, std::vector<int64_t>>> shapes;
  for (const Parameter& parameter : model.parameters())
    shapes.emplace_back(parameter.name, parameter.compute.sizes().vec());
  contents.derived_files.emplace_back(
      kAdapterFile,
      [shapes, tied = training.config.tie_word_embeddings](
          const std::string& folder) -> absl::StatusOr<NamedTensors> {
        LL_ASSIGN_OR_RETURN(const NamedTensors masters, ReadMasters(folder, shapes));
        return PeftTensors(masters, tied);
      });
  return contents;
}

// ---- the loop's state and its parts

class Loop {
 public:
  Loop(Training& training, Comm& comm, EventSink& events, const TrainOptions& options)
      : training_(training),
        spec_(training.spec),
        comm_(comm),
        events_(events),
        options_(options),
        layout_(LayoutOf(comm.rank(), comm.world_size(), training.context_ranks)),
        stragglers_(comm.world_size()) {}

  absl::StatusOr<TrainOutcome> Run();
  // Ends what writes and copies checkpoints, as the destructor does.
  void CloseCheckpoints();

 private:
  absl::Status Load();
  absl::Status OpenCheckpoints();
  // Steps down until the data's longest row has the memory it needs. Nothing where the first step
  // shows the same.
  absl::Status TryLongestRow(const Gang& gang);
  // False: the step did not take place, for lack of memory, and is to be repeated with less kept.
  absl::StatusOr<bool> HadMemory(const StepReport& report);
  void ReportStep(const StepReport& report);
  // Looks for ranks that hold the others up, and tells this rank's own times.
  void WatchRanks(const StepReport& report);
  // Acts on a step that a guard caught; true: state_ is an older one. An error ends the training.
  absl::StatusOr<bool> Guarded(GuardVerdict verdict, const StepReport& report);
  // Where checkpoints of this training lie, of the attempt it was resumed from too.
  std::vector<std::string> CheckpointRoots() const;
  absl::Status Evaluate();
  // Whether the newest evaluations brought no gain (spec: early_stopping_patience).
  bool StoppedEarly() const;
  // Starts writing one; `final`: no step follows.
  absl::Status Checkpoint(bool final);
  // Waits until the last checkpoint is on disk; every rank learns whether it is.
  absl::Status FinishCheckpoint(absl::Duration copy_timeout);
  nlohmann::ordered_json Times(const StepReport& report) const;
  nlohmann::ordered_json Mfu(const StepReport& report) const;
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
  std::unique_ptr<CheckpointCopier> copier_;  // rank 0 only, with a checkpoint_uri
  std::unique_ptr<CheckpointWriter> writer_;  // rank 0 only; hands what it wrote to the copier
  SnapshotBuffers snapshot_buffers_;
  std::unique_ptr<ShardedCheckpoint> parts_;  // where ranks hold parts of the optimizer's state
  TrainerState state_;
  std::optional<MemoryLadder> ladder_;
  bool checkpoint_wish_ = false;  // of a step that had no memory
  int64_t checkpoint_step_ = -1;  // of the newest checkpoint handed to the writer
  int64_t first_step_ = 0;
  int64_t tokens_here_ = 0;  // trained by this process's gang
  double seconds_here_ = 0;
  double checkpoint_seconds_ = 0;  // that steps waited for since the newest report
  StragglerWatch stragglers_;
  std::vector<std::string> hosts_;  // by rank
  absl::Duration told_times_ = -absl::InfiniteDuration();
};

absl::Status Loop::Load() {
  nlohmann::ordered_json on = {{"device", ProcessDeviceName()}};
  if (!ProcessAttention().empty()) on["attention_kernel"] = ProcessAttention();
  events_.Phase("load", on);
  comm_.EnterPhase("load");
  LL_ASSIGN_OR_RETURN(hosts_, HostNames(comm_));
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
  if (state_.step > 0 && options_.resume_from.empty()) checkpoint_step_ = state_.step;
  return OpenCheckpoints();
}

absl::Status Loop::OpenCheckpoints() {
  if (!options_.verify_against.empty()) return absl::OkStatus();
  const std::string root = options_.out + "/checkpoints";
  if (comm_.rank() == 0) {
    LL_RETURN_IF_ERROR(MakeDirs(root));
    // What a killed run left half-written, or had no time to remove.
    PruneCheckpoints(root, state_.step, RetentionOf(spec_)).IgnoreError();
    LL_ASSIGN_OR_RETURN(copier_, OpenCopier(spec_, options_.epoch, events_));
    writer_ = std::make_unique<CheckpointWriter>(
        root, RetentionOf(spec_),
        [this](const WrittenCheckpoint& written) {
          ReportCheckpoint(events_, written);
          if (copier_ != nullptr && written.sealed.ok())
            copier_->Offer(written.sealed->path, written.step);
        },
        [this] { return copier_ != nullptr ? copier_->InUse() : std::set<int64_t>(); });
    // A run that was killed may not have come to copy its newest, or not to the end of it; of an
    // earlier attempt it belongs among that one's copies, where the half of it is.
    if (copier_ != nullptr && checkpoint_step_ >= 0)
      copier_->Offer(root + "/" + CheckpointName(checkpoint_step_), checkpoint_step_);
    const auto earlier = EpochOfCheckpoint(options_.resume_from);
    if (copier_ != nullptr && earlier && *earlier < options_.epoch &&
        CheckpointStep(std::filesystem::path(options_.resume_from).filename().string()) ==
            state_.step &&
        FileExists(absl::StrCat(options_.resume_from, "/", kCompleteFile))) {
      copier_->Offer(options_.resume_from, state_.step, *earlier);
    }
  }
  if (parameters_->zero_stage() == 0) return absl::OkStatus();
  parts_ = std::make_unique<ShardedCheckpoint>(root, comm_, events_, writer_.get());
  return parts_->CheckFolder();
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
                          parts_ != nullptr ? parts_->Mine() : PartsWritten{}};
    const StepPlace place{state_.step,
                          state_.step * *spec_.global_batch_size + state_.rows_skipped};
    LL_ASSIGN_OR_RETURN(const StepReport report,
                        RunStep(place, mine, policy, state_.guard, training_, *model_, *optimizer_,
                                schedule, gang));
    if (parts_ != nullptr) parts_->Heard(report.wishes.parts);
    LL_ASSIGN_OR_RETURN(const bool had_memory, HadMemory(report));
    if (!had_memory) continue;
    if (report.verdict.action != GuardAction::kGoOn) {
      LL_ASSIGN_OR_RETURN(const bool went_back, Guarded(report.verdict, report));
      if (went_back) continue;
    }
    state_.step += 1;
    state_.rows_consumed += *spec_.global_batch_size;
    state_.tokens_consumed += report.tokens;
    if (std::isfinite(report.loss)) state_.last_loss = report.loss;
    WatchRanks(report);
    ReportStep(report);
    if (due(*spec_.eval_steps)) LL_RETURN_IF_ERROR(Evaluate());
    const bool last = state_.step == end || StoppedEarly();
    const bool final = last || report.wishes.stop;
    if (final || due(*spec_.save_steps) || report.wishes.checkpoint)
      LL_RETURN_IF_ERROR(Checkpoint(final));
    if (report.wishes.stop && !last) {
      LL_RETURN_IF_ERROR(FinishCheckpoint(kStopCopyTimeout));
      return TrainOutcome::kStopped;
    }
  }
  if (!options_.verify_against.empty()) {
    LL_RETURN_IF_ERROR(Verify());
    return TrainOutcome::kDone;
  }
  // A job resumed elsewhere at its last step still owes this folder its result.
  if (checkpoint_step_ != state_.step) LL_RETURN_IF_ERROR(Checkpoint(/*final=*/true));
  LL_RETURN_IF_ERROR(FinishCheckpoint(kFinalCopyTimeout));
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

std::vector<std::string> Loop::CheckpointRoots() const {
  std::vector<std::string> roots = {options_.out + "/checkpoints"};
  if (!options_.resume_from.empty())
    roots.push_back(std::filesystem::path(options_.resume_from).parent_path().string());
  return roots;
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
    // The newest one may still be on its way to the disk.
    if (parts_ != nullptr) {
      parts_->Finish().IgnoreError();
    } else if (writer_ != nullptr) {
      writer_->Wait().IgnoreError();
    }
    LL_ASSIGN_OR_RETURN(state_,
                        RollBack(state_, CheckpointRoots(), comm_, events_, *model_, *optimizer_));
    checkpoint_step_ = state_.step;
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

void Loop::ReportStep(const StepReport& report) {
  tokens_here_ += report.tokens;
  seconds_here_ += report.step_seconds;
  const bool last = state_.step == *spec_.max_steps;
  if (comm_.rank() != 0 || (state_.step % *spec_.logging_steps != 0 && !last)) return;
  nlohmann::ordered_json event = {
      {"step", state_.step},
      {"loss", report.loss},
      {"grad_norm", report.grad_norm},
      {"learning_rate", report.learning_rate},
      {"tokens", report.tokens},
      {"tokens_total", state_.tokens_consumed},
      {"step_seconds", report.step_seconds},
      {"tokens_per_second", static_cast<double>(report.tokens) / report.step_seconds},
      {"mfu", Mfu(report)},
      {"peak_bytes", PeakMemoryBytes()},
      {"max_steps", *spec_.max_steps}};
  event.update(Times(report));
  if (comm_.world_size() > 1) event["straggler_score"] = stragglers_.score(stragglers_.slowest());
  events_.Emit("step", event);
  checkpoint_seconds_ = 0;
}

nlohmann::ordered_json Loop::Times(const StepReport& report) const {
  return {{"data_seconds", report.data_seconds},
          {"forward_seconds", report.model.forward},
          {"head_seconds", report.model.head},
          {"backward_seconds", report.model.backward},
          {"exchange_seconds", report.exchange_seconds},
          {"wait_seconds", report.wait_seconds},
          {"reduce_seconds", report.reduce_seconds},
          {"optimizer_seconds", report.optimizer_seconds},
          {"checkpoint_seconds", checkpoint_seconds_}};
}

void Loop::WatchRanks(const StepReport& report) {
  if (comm_.world_size() == 1) return;
  for (const StragglerNews& news :
       stragglers_.Step(report.compute_seconds, report.compute_tokens)) {
    if (comm_.rank() != 0) continue;
    const std::string& host = hosts_[static_cast<size_t>(news.rank)];
    events_.Emit(
        "straggler",
        {{"step", state_.step},
         {"straggler", news.rank},
         {"host", host},
         {"slow", news.slow},
         {"score", news.score},
         {"message",
          absl::StrFormat("rank %d on %s %s %.2f times as long as the median "
                          "rank",
                          news.rank, host, news.slow ? "computes" : "no longer lags: it computes",
                          news.score)}});
  }
  const absl::Duration now = RealClock().Steady();
  if (now - told_times_ < kTimesEvery) return;
  told_times_ = now;
  nlohmann::ordered_json event = {{"step", state_.step}};
  event.update(Times(report));
  event["straggler_score"] = stragglers_.score(comm_.rank());
  events_.Emit("times", event);
}

// (4 P T + 3.5 A) / (t peak), 6 P T for `full`; A = exact causal forward FLOPs of attention. null
// without a known peak.
nlohmann::ordered_json Loop::Mfu(const StepReport& report) const {
  if (options_.peak_flops <= 0) return nullptr;
  const double tokens = static_cast<double>(report.tokens);
  const double weights =
      (training_.options.train_all ? 6.0 : 4.0) * static_cast<double>(training_.base_parameters);
  const double rows = tokens / static_cast<double>(*spec_.max_seq_length);
  // state_.step counts the step that is reported.
  const std::string kind = state_.step > training_.full_attention_from ? "full" : *spec_.attention;
  const double attention = rows * CausalAttentionFlops(training_.config, *spec_.max_seq_length,
                                                       kind, training_.attention.group_tokens);
  return (weights * tokens + 3.5 * attention) /
         (report.step_seconds * options_.peak_flops * comm_.world_size());
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
  checkpoint_step_ = state_.step;
  if (comm_.rank() == 0) events_.Phase("checkpoint", {{"step", state_.step}});
  const absl::Duration start = RealClock().Steady();
  // Not held in memory twice over: the snapshot before is on disk when the next is taken.
  if (writer_ != nullptr) writer_->Wait().IgnoreError();
  snapshot_buffers_.Begin();
  SnapshotBuffers* const buffers = final ? nullptr : &snapshot_buffers_;
  if (parts_ != nullptr) {
    comm_.EnterPhase("checkpoint");
    NamedTensors mine = OptimizerTensors(model_->parameters(), *optimizer_, buffers);
    CheckpointContents rest;
    if (comm_.rank() == 0) rest = BesidesParts(training_, *model_, state_, buffers);
    rest.step = state_.step;
    rest.hurry = final;
    LL_RETURN_IF_ERROR(parts_->Start(std::move(mine), std::move(rest)));
  } else if (writer_ != nullptr) {
    writer_->Start(Snapshot(training_, *model_, *optimizer_, state_, buffers));
  }
  checkpoint_seconds_ += absl::ToDoubleSeconds(RealClock().Steady() - start);
  return absl::OkStatus();
}

absl::Status Loop::FinishCheckpoint(absl::Duration copy_timeout) {
  comm_.EnterPhase("checkpoint");
  const absl::Status written = parts_ != nullptr    ? parts_->Finish()
                               : writer_ != nullptr ? writer_->Wait()
                                                    : absl::OkStatus();
  if (copier_ != nullptr) {
    copier_->Finish(copy_timeout).IgnoreError();  // it has told of what failed
    // What stayed because it was being copied.
    PruneAfterCopies(options_.out + "/checkpoints", checkpoint_step_, RetentionOf(spec_), events_);
  }
  at::Tensor failed = at::full({1}, written.ok() ? 0.0 : 1.0, at::kDouble);
  const absl::Status told = comm_.Broadcast(failed);
  if (!written.ok()) {
    return WithErrorClass(Annotate(written, "the final checkpoint could not be written"),
                          ErrorClass::kInfrastructure);
  }
  LL_RETURN_IF_ERROR(told);
  if (failed[0].item<double>() > 0) {
    return FieldStatus(absl::StatusCode::kUnavailable, "checkpoint",
                       "rank 0 could not write the final checkpoint");
  }
  return absl::OkStatus();
}

void Loop::CloseCheckpoints() {
  parts_.reset();
  writer_.reset();
  copier_.reset();
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

void Loop::Done() {
  if (comm_.rank() != 0) return;
  nlohmann::ordered_json result = {
      {"loss", state_.last_loss},
      {"steps", state_.step},
      {"first_step", first_step_},
      {"tokens", state_.tokens_consumed},
      {"tokens_per_second", seconds_here_ > 0 ? tokens_here_ / seconds_here_ : 0.0},
      {"peak_bytes", PeakMemoryBytes()},
      {"checkpoint", options_.out + "/checkpoints/" + CheckpointName(state_.step)}};
  if (state_.memory_steps_down > 0) {
    result["memory_steps_down"] = state_.memory_steps_down;
    result["recompute"] = *spec_.recompute;
    result["activation_offload"] = *spec_.activation_offload;
  }
  if (StoppedEarly()) {
    result["stop_reason"] =
        absl::StrCat("early stopping: perplexity did not fall below ", state_.best_perplexity,
                     " in ", state_.evaluations_without_gain, " evaluations");
  }
  events_.Emit("done", {{"result", std::move(result)}});
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
