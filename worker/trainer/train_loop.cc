#include "worker/trainer/train_loop.h"

#include <algorithm>
#include <memory>
#include <utility>

#include <ATen/Parallel.h>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/plan/time_plan.h"
#include "worker/trainer/checkpoint/peft.h"
#include "worker/trainer/checkpoint/state.h"
#include "worker/trainer/checkpoint/trainer_state.h"
#include "worker/trainer/checkpoint/writer.h"
#include "worker/trainer/error_class.h"
#include "worker/trainer/eval/eval_model.h"
#include "worker/trainer/eval/perplexity.h"
#include "worker/trainer/eval/run_retrieval.h"
#include "worker/trainer/resume.h"
#include "worker/trainer/step.h"

namespace ll {
namespace {

// ---- what a checkpoint holds

// The snapshot shares one copy of each master between the optimizer's file and the adapter's. With
// `copy` false it is no copy at all: training has ended, nothing changes the tensors any more.
CheckpointContents Snapshot(const Training& training, Llama& model, AdamWOptimizer& optimizer,
                            const TrainerState& state, bool copy) {
  CheckpointContents contents;
  contents.step = state.step;
  NamedTensors optimizer_tensors = OptimizerTensors(model.parameters(), optimizer, copy);
  const bool full = *training.spec.method == "full";
  const bool tied = training.config.tie_word_embeddings;
  NamedTensors weights;
  if (full) {
    for (const Parameter& parameter : model.parameters()) {
      weights.emplace_back(parameter.name, copy ? parameter.compute.clone() : parameter.compute);
    }
    contents.copied_files = training.tokenizer_files;
  } else {
    std::vector<Parameter> frozen = model.parameters();
    for (size_t i = 0; i < frozen.size(); ++i) frozen[i].master = optimizer_tensors[3 * i].second;
    weights = PeftTensors(frozen, tied);
    contents.text_files.emplace_back(
        kAdapterConfigFile,
        PeftConfig(training.options.lora, training.options.train_embedding,
                   training.options.train_norm, tied, training.spec.model.value_or(""))
            .dump(1));
  }
  contents.tensor_files.emplace_back(full ? "model.safetensors" : kAdapterFile, std::move(weights));
  contents.tensor_files.emplace_back(kOptimizerFile, std::move(optimizer_tensors));
  contents.text_files.emplace_back("config.json", LlamaConfigToJson(training.config).dump(1));
  contents.text_files.emplace_back(kTrainerStateFile, TrainerStateToText(state));
  return contents;
}

void ReportCheckpoint(EventSink& events, const WrittenCheckpoint& written) {
  if (written.sealed.ok()) {
    events.Emit("checkpoint", {{"step", written.step},
                               {"path", written.sealed->path},
                               {"manifest_sha256", written.sealed->manifest_sha256},
                               {"bytes", written.sealed->size_bytes},
                               {"seconds", written.seconds}});
  } else {
    events.Warning(absl::StrCat("checkpoint of step ", written.step,
                                " could not be written: ", written.sealed.status().message()));
  }
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
        layout_(LayoutOf(comm.rank(), comm.world_size(), training.context_ranks)) {}

  absl::StatusOr<TrainOutcome> Run();

 private:
  absl::Status Load();
  void ReportStep(const StepReport& report);
  absl::Status Evaluate();
  // Whether the newest evaluations brought no gain (spec: early_stopping_patience).
  bool StoppedEarly() const;
  // Starts writing one; `final`: no step follows.
  void Checkpoint(bool final);
  // Waits until the last checkpoint is on disk; every rank learns whether it is.
  absl::Status FinishCheckpoint();
  nlohmann::ordered_json Mfu(const StepReport& report) const;
  void Done();

  Training& training_;
  const JobSpec& spec_;
  Comm& comm_;
  EventSink& events_;
  const TrainOptions& options_;
  const RankLayout layout_;

  std::unique_ptr<Comm> context_;  // the ranks that share this rank's rows
  std::unique_ptr<Llama> model_;
  std::unique_ptr<AdamWOptimizer> optimizer_;
  std::unique_ptr<CheckpointWriter> writer_;  // rank 0 only
  TrainerState state_;
  int64_t checkpoint_step_ = -1;  // of the newest checkpoint handed to the writer
  int64_t first_step_ = 0;
  int64_t tokens_here_ = 0;  // trained by this process's gang
  double seconds_here_ = 0;
};

absl::Status Loop::Load() {
  events_.Phase("load");
  comm_.EnterPhase("load");
  LL_ASSIGN_OR_RETURN(context_,
                      comm_.Split(absl::StrCat("context ", layout_.data), ContextRanks(layout_)));
  LL_ASSIGN_OR_RETURN(model_,
                      Llama::Create(training_.config, *training_.weights, training_.options));
  training_.weights
      .reset();  // the model holds what it needs; files stay mapped where it views them
  optimizer_ = std::make_unique<AdamWOptimizer>(
      model_->parameters(),
      AdamWOptions{*spec_.adam_beta1, *spec_.adam_beta2, 1e-8, *spec_.weight_decay});
  LL_ASSIGN_OR_RETURN(state_,
                      ResumeOrStart(training_, *model_, *optimizer_, comm_, events_, options_));
  first_step_ = state_.step;
  if (state_.step > 0 && options_.resume_from.empty()) checkpoint_step_ = state_.step;
  if (comm_.rank() != 0) return absl::OkStatus();
  const std::string root = options_.out + "/checkpoints";
  LL_RETURN_IF_ERROR(MakeDirs(root));
  PruneCheckpoints(root, 0, 0).IgnoreError();  // what a killed run left half-written
  writer_ = std::make_unique<CheckpointWriter>(
      root, *spec_.save_total_limit,
      [this](const WrittenCheckpoint& written) { ReportCheckpoint(events_, written); });
  return absl::OkStatus();
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
  const Gang gang{comm_, layout_, *context_};
  const auto due = [this](int64_t every) { return every > 0 && state_.step % every == 0; };
  while (state_.step < *spec_.max_steps && !StoppedEarly()) {
    if (state_.step == training_.full_attention_from &&
        training_.attention.kind != AttentionKind::kFull) {
      events_.Phase("full_attention", {{"step", state_.step}});
    }
    const StepWishes mine{options_.stop_requested(), options_.take_checkpoint_request()};
    LL_ASSIGN_OR_RETURN(const StepReport report, RunStep(state_.step, mine, training_, *model_,
                                                         *optimizer_, schedule, gang));
    state_.step += 1;
    state_.rows_consumed += *spec_.global_batch_size;
    state_.tokens_consumed += report.tokens;
    state_.last_loss = report.loss;
    ReportStep(report);
    if (due(*spec_.eval_steps)) LL_RETURN_IF_ERROR(Evaluate());
    const bool last = state_.step == *spec_.max_steps || StoppedEarly();
    const bool final = last || report.wishes.stop;
    if (final || due(*spec_.save_steps) || report.wishes.checkpoint) Checkpoint(final);
    if (report.wishes.stop && !last) {
      LL_RETURN_IF_ERROR(FinishCheckpoint());
      return TrainOutcome::kStopped;
    }
  }
  // A job resumed elsewhere at its last step still owes this folder its result.
  if (checkpoint_step_ != state_.step) Checkpoint(/*final=*/true);
  LL_RETURN_IF_ERROR(FinishCheckpoint());
  Done();
  return TrainOutcome::kDone;
}

void Loop::ReportStep(const StepReport& report) {
  tokens_here_ += report.tokens;
  seconds_here_ += report.step_seconds;
  const bool last = state_.step == *spec_.max_steps;
  if (comm_.rank() != 0 || (state_.step % *spec_.logging_steps != 0 && !last)) return;
  events_.Emit("step",
               {{"step", state_.step},
                {"loss", report.loss},
                {"grad_norm", report.grad_norm},
                {"learning_rate", report.learning_rate},
                {"tokens", report.tokens},
                {"tokens_total", state_.tokens_consumed},
                {"step_seconds", report.step_seconds},
                {"tokens_per_second", static_cast<double>(report.tokens) / report.step_seconds},
                {"mfu", Mfu(report)},
                {"peak_bytes", PeakMemoryBytes()},
                {"max_steps", *spec_.max_steps},
                {"data_seconds", report.data_seconds},
                {"forward_seconds", report.model.forward},
                {"head_seconds", report.model.head},
                {"backward_seconds", report.model.backward},
                {"reduce_seconds", report.reduce_seconds},
                {"optimizer_seconds", report.optimizer_seconds}});
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

void Loop::Checkpoint(bool final) {
  checkpoint_step_ = state_.step;
  if (writer_ == nullptr) return;
  events_.Phase("checkpoint", {{"step", state_.step}});
  // Not held in memory twice over: the snapshot before is on disk when the next is taken.
  writer_->Wait().IgnoreError();
  writer_->Start(Snapshot(training_, *model_, *optimizer_, state_, /*copy=*/!final));
}

absl::Status Loop::FinishCheckpoint() {
  comm_.EnterPhase("checkpoint");
  const absl::Status written = writer_ != nullptr ? writer_->Wait() : absl::OkStatus();
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
  return Loop(training, comm, events, options).Run();
}

}  // namespace ll
