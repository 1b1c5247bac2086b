// Ranges, and rules between keys.
#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/spec/parallel_rules.h"
#include "model/spec/spec_fields.h"
#include "model/spec/stages.h"

namespace ll {
namespace {

// ---- ranges, one key at a time

absl::Status CheckNumber(const SpecField& field, double number, const std::string& found) {
  if (number >= field.min && number <= field.max && (!field.positive || number > 0))
    return absl::OkStatus();
  std::string expected = DescribeType(field);
  if (number > field.max && (field.positive || field.max > kMaxPrintedRange)) {
    absl::StrAppend(&expected, ", at most ", field.max);
  }
  return MakeFieldError({field.name, expected, found});
}

absl::Status CheckText(const SpecField& field, const std::string& text) {
  if (text.find('\0') != std::string::npos) {
    return MakeFieldError({field.name, "text without a zero byte", "one"});
  }
  if (field.choices.empty()) return absl::OkStatus();
  if (std::find(field.choices.begin(), field.choices.end(), text) != field.choices.end())
    return absl::OkStatus();
  return MakeFieldError({field.name, DescribeType(field),
                         absl::StrCat("\"", absl::Utf8SafeCEscape(text.substr(0, 80)), "\"")});
}

struct CheckRange {
  const JobSpec& spec;
  const SpecField& field;
  absl::Status operator()(std::optional<std::string> JobSpec::*m) const {
    return CheckText(field, *(spec.*m));
  }
  absl::Status operator()(std::optional<int64_t> JobSpec::*m) const {
    return CheckNumber(field, static_cast<double>(*(spec.*m)), absl::StrCat(*(spec.*m)));
  }
  absl::Status operator()(std::optional<double> JobSpec::*m) const {
    return CheckNumber(field, *(spec.*m), absl::StrCat(*(spec.*m)));
  }
  absl::Status operator()(std::optional<bool> JobSpec::*) const { return absl::OkStatus(); }
  absl::Status operator()(std::vector<std::string> JobSpec::*m) const {
    std::set<std::string> seen;
    for (const std::string& item : spec.*m) {
      LL_RETURN_IF_ERROR(CheckText(field, item));
      if (!seen.insert(item).second) {
        return MakeFieldError({field.name, "each item once", absl::StrCat("\"", item, "\" twice")});
      }
    }
    return absl::OkStatus();
  }
  absl::Status operator()(std::vector<int64_t> JobSpec::*m) const {
    for (int64_t item : spec.*m) {
      LL_RETURN_IF_ERROR(CheckNumber(field, static_cast<double>(item), absl::StrCat(item)));
    }
    return absl::OkStatus();
  }
  absl::Status operator()(std::map<std::string, std::string> JobSpec::*m) const {
    for (const auto& [key, value] : spec.*m) {
      if (key.empty())
        return MakeFieldError({field.name, "names that are not empty", "an empty one"});
      LL_RETURN_IF_ERROR(CheckText(field, value));
    }
    return absl::OkStatus();
  }
};

// ---- rules between keys

absl::Status CheckLengths(const JobSpec& spec) {
  if (spec.context_length && spec.max_seq_length && *spec.max_seq_length > *spec.context_length) {
    return MakeFieldError({"max_seq_length",
                           absl::StrCat("at most context_length (", *spec.context_length, ")"),
                           absl::StrCat(*spec.max_seq_length)});
  }
  if (spec.max_seq_length.value_or(2) < 2) {
    return MakeFieldError({"max_seq_length", "at least 2 tokens (one and its successor)",
                           absl::StrCat(*spec.max_seq_length)});
  }
  if (spec.context_length.value_or(2) < 2) {
    return MakeFieldError(
        {"context_length", "at least 2 tokens", absl::StrCat(*spec.context_length)});
  }
  if (spec.context_length && spec.group_ratio &&
      std::floor(*spec.context_length * *spec.group_ratio) < 1 &&
      spec.attention.value_or("s2") != "full") {
    return MakeFieldError(
        {"group_ratio", "groups of at least one token",
         absl::StrCat(*spec.group_ratio, " of ", *spec.context_length, " tokens")});
  }
  if (spec.eval_seq_len && spec.eval_context_size && *spec.eval_context_size < *spec.eval_seq_len) {
    return MakeFieldError({"eval_context_size",
                           absl::StrCat("at least eval_seq_len (", *spec.eval_seq_len, ")"),
                           absl::StrCat(*spec.eval_context_size)});
  }
  return absl::OkStatus();
}

// "50" or "10%" as steps; -1 for anything else.
int64_t ParseStepShare(absl::string_view text, int64_t max_steps) {
  int64_t steps;
  double percent;
  if (absl::ConsumeSuffix(&text, "%")) {
    if (!absl::SimpleAtod(text, &percent) || !(percent >= 0 && percent <= 100)) return -1;
    return static_cast<int64_t>(std::ceil(percent / 100 * static_cast<double>(max_steps)));
  }
  return absl::SimpleAtoi(text, &steps) && steps >= 0 ? steps : -1;
}

absl::Status CheckFullAttentionSteps(const JobSpec& spec) {
  if (!spec.full_attention_steps) return absl::OkStatus();
  const int64_t steps =
      ParseStepShare(*spec.full_attention_steps, spec.max_steps.value_or(1'000'000'000));
  if (steps >= 0 && (!spec.max_steps || steps <= *spec.max_steps)) return absl::OkStatus();
  return MakeFieldError({"full_attention_steps",
                         "a number of steps up to max_steps, or a share such as 10%",
                         absl::StrCat("\"", absl::CEscape(*spec.full_attention_steps), "\"")});
}

absl::Status CheckMethod(const JobSpec& spec) {
  const std::string method = spec.method.value_or(spec.model_config ? "full" : "longlora");
  if (std::count(spec.trainable.begin(), spec.trainable.end(), "none") > 0 &&
      spec.trainable.size() > 1) {
    return MakeFieldError({"trainable", "`none` alone", "`none` beside others"});
  }
  if (spec.model_config && spec.model) {
    return FieldStatus(absl::StatusCode::kInvalidArgument, "model_config",
                       "given together with model",
                       "give a model to start from, or a config to start from random weights");
  }
  if (spec.model_config && method != "full") {
    return MakeFieldError(
        {"method", "full, because model_config starts from random weights", method});
  }
  if (method == "full" && !spec.target_modules.empty()) {
    return MakeFieldError(
        {"target_modules", "nothing, because method full trains every weight", "a list"});
  }
  if (std::count(spec.target_modules.begin(), spec.target_modules.end(), "all-linear") > 0 &&
      spec.target_modules.size() > 1) {
    return MakeFieldError({"target_modules", "`all-linear` alone", "`all-linear` beside others"});
  }
  if (spec.wrap.value_or("split") == "roll" && spec.document_boundaries.value_or(false)) {
    return MakeFieldError({"wrap", "split, because document_boundaries is set", "roll"});
  }
  return absl::OkStatus();
}

absl::Status CheckBase(const JobSpec& spec) {
  const BaseFormat base = spec.Base();
  if (base == BaseFormat::kCompute) return absl::OkStatus();
  const std::string kind = spec.kind.value_or("train");
  if (kind == "train" && spec.method.value_or(spec.model_config ? "full" : "longlora") == "full") {
    return MakeFieldError(
        {"quantization", "none, because method full trains every weight", *spec.quantization});
  }
  if (base != BaseFormat::kFp8) return absl::OkStatus();
  if (kind != "train") {
    return MakeFieldError({"quantization", absl::StrCat("none or nf4, because kind is ", kind),
                           "fp8", "fp8 is for training alone: leave it out"});
  }
  if (spec.precision.value_or("auto") == "fp32") {
    return MakeFieldError({"precision", "bf16, because quantization is fp8", "fp32"});
  }
  return absl::OkStatus();
}

// A training that may have another number of ranks at each start.
absl::Status CheckElastic(const JobSpec& spec) {
  const int64_t fewest = spec.gpus.value_or(1), most = spec.max_gpus.value_or(fewest);
  const std::string found = absl::StrCat(fewest, "-", most);
  if (most < fewest)
    return MakeFieldError({"gpus", "a range from the fewest ranks to the most, as 4-8", found});
  if (most == fewest) return absl::OkStatus();
  const std::string kind = spec.kind.value_or("train");
  if (kind != "train")
    return MakeFieldError({"gpus", absl::StrCat("one number, because kind is ", kind), found});
  const int64_t row_ranks = spec.context_parallel.value_or(1);
  if (fewest % row_ranks != 0 || most % row_ranks != 0) {
    return MakeFieldError(
        {"gpus", absl::StrCat("multiples of context_parallel (", row_ranks, ")"), found});
  }
  if (spec.global_batch_size.value_or(most) < most / row_ranks) {
    return MakeFieldError({"gpus",
                           absl::StrCat("at most ", *spec.global_batch_size * row_ranks, " ranks, ",
                                        row_ranks == 1 ? "one" : absl::StrCat(row_ranks),
                                        " for each row of global_batch_size"),
                           found, "give a larger global_batch_size, or a smaller range"});
  }
  return absl::OkStatus();
}

absl::Status CheckContextParallel(const JobSpec& spec) {
  const int64_t ranks = spec.context_parallel.value_or(1);
  if (ranks == 1) return absl::OkStatus();
  const auto only_one = [&](absl::string_view why, absl::string_view hint) {
    return MakeFieldError(
        {"context_parallel", absl::StrCat("1, because ", why), absl::StrCat(ranks), hint});
  };
  if (spec.kind.value_or("train") != "train")
    return only_one("only training divides rows", "other kinds divide windows and prompts: gpus");
  if (spec.wrap.value_or("split") == "roll")
    return only_one("wrap: roll lets the first tokens see the last", "use wrap: split");
  if (spec.gpus.value_or(ranks) % ranks != 0) {
    return MakeFieldError({"gpus", absl::StrCat("a multiple of context_parallel (", ranks, ")"),
                           absl::StrCat(*spec.gpus)});
  }
  return absl::OkStatus();
}

// What ranks divide that only a training has.
absl::Status CheckSharding(const JobSpec& spec) {
  const bool train = spec.kind.value_or("train") == "train";
  if (spec.activation_offload.value_or(false)) {
    const std::string recompute = spec.recompute.value_or("auto");
    if (recompute != "auto" && recompute != "full") {
      return MakeFieldError({"recompute",
                             "full or auto, because activation_offload is set: it keeps "
                             "the layers' inputs alone, elsewhere",
                             recompute});
    }
  }
  if (!train && spec.zero_stage.value_or(0) > 0) {
    return MakeFieldError({"zero_stage", "0, because only a training has optimizer state",
                           absl::StrCat(*spec.zero_stage)});
  }
  if (!spec.shard_base.value_or(false)) return absl::OkStatus();
  const auto never = [](absl::string_view why, absl::string_view hint) {
    return MakeFieldError({"shard_base", absl::StrCat("false, because ", why), "true", hint});
  };
  if (!train) return never("only a training's ranks compute in step", "leave it out");
  if (spec.method.value_or(spec.model_config ? "full" : "longlora") == "full")
    return never("method full freezes nothing", "use zero_stage to divide what is trained");
  if (!spec.passkey_lengths.empty())
    return never("passkey_lengths generates, each rank at its own pace",
                 "leave passkey_lengths out, or evaluate the adapter in a job of its own");
  return absl::OkStatus();
}

absl::Status CheckSft(const JobSpec& spec) {
  if (!spec.sft_packing.value_or(false)) return absl::OkStatus();
  if (spec.wrap.value_or("split") == "roll")
    return MakeFieldError({"wrap", "split, because sft_packing is set", "roll"});
  if (spec.sft_group.value_or("context") == "longlora_sft") {
    return MakeFieldError({"sft_packing", "false, because sft_group goes by a sample's length",
                           "true", "set sft_group: context to pack samples"});
  }
  return absl::OkStatus();
}

absl::Status CheckEvaluation(const JobSpec& spec) {
  if (!spec.passkey_lengths.empty() && (spec.passkey_max_tokens || spec.passkey_interval)) {
    return FieldStatus(absl::StatusCode::kInvalidArgument, "passkey_lengths",
                       "given together with passkey_max_tokens or passkey_interval",
                       "lengths are a grid over depths, the others LongLoRA's protocol");
  }
  if (spec.passkey_interval.value_or(1) > spec.passkey_max_tokens.value_or(32000)) {
    return MakeFieldError(
        {"passkey_interval",
         absl::StrCat("at most passkey_max_tokens (", spec.passkey_max_tokens.value_or(32000), ")"),
         absl::StrCat(*spec.passkey_interval)});
  }
  if (spec.kind.value_or("train") != "train") return absl::OkStatus();
  const bool evaluates = spec.eval_steps.value_or(0) > 0;
  if (!spec.passkey_lengths.empty() && !evaluates) {
    return MakeFieldError({"eval_steps", "a positive number, because passkey_lengths is given",
                           absl::StrCat(spec.eval_steps.value_or(0))});
  }
  if (spec.early_stopping_patience.value_or(0) > 0 && !evaluates) {
    return MakeFieldError({"eval_steps",
                           "a positive number, because early_stopping_patience is given",
                           absl::StrCat(spec.eval_steps.value_or(0))});
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckParallelRules(const JobSpec& spec) {
  LL_RETURN_IF_ERROR(CheckContextParallel(spec));
  return CheckSharding(spec);
}

int64_t JobSpec::FullAttentionSteps() const {
  if (!full_attention_steps || !max_steps) return 0;
  return std::clamp<int64_t>(ParseStepShare(*full_attention_steps, *max_steps), 0, *max_steps);
}

absl::Status Validate(const JobSpec& spec) {
  for (const SpecField& field : SpecFields()) {
    if (IsGiven(spec, field)) LL_RETURN_IF_ERROR(std::visit(CheckRange{spec, field}, field.member));
  }
  LL_RETURN_IF_ERROR(CheckLengths(spec));
  LL_RETURN_IF_ERROR(CheckFullAttentionSteps(spec));
  LL_RETURN_IF_ERROR(CheckSft(spec));
  LL_RETURN_IF_ERROR(CheckParallelRules(spec));
  LL_RETURN_IF_ERROR(CheckEvaluation(spec));
  LL_RETURN_IF_ERROR(CheckStages(spec));
  LL_RETURN_IF_ERROR(CheckElastic(spec));
  LL_RETURN_IF_ERROR(CheckMethod(spec));
  return CheckBase(spec);
}

}  // namespace ll
