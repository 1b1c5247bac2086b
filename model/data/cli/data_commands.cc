#include "model/data/cli/data_commands.h"

#include <memory>

#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/data/cli/live_line.h"
#include "model/data/cli/sample_encoder.h"
#include "model/data/pack.h"
#include "model/text/sentencepiece_tokenizer.h"
#include "model/text/tokenizer.h"

namespace ll {
namespace {

DocumentSplit SplitOf(const DataFlags& flags) {
  if (flags.documents == "blank-line") return DocumentSplit::kBlankLine;
  return flags.documents == "json-lines" ? DocumentSplit::kJsonLines : DocumentSplit::kFile;
}

InvalidUtf8 InvalidUtf8Of(const DataFlags& flags) {
  return flags.invalid_utf8 == "replace" ? InvalidUtf8::kReplace : InvalidUtf8::kRefuse;
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> TokenizerOf(const DataFlags& flags) {
  if (flags.tokenizer.empty()) {
    return MakeFieldError({"--tokenizer", "a model folder or a tokenizer file", "nothing"});
  }
  LL_ASSIGN_OR_RETURN(auto tokenizer, OpenTokenizer(flags.tokenizer));
  return std::shared_ptr<const Tokenizer>(std::move(tokenizer));
}

nlohmann::ordered_json PackJson(const PackFlags& flags, const PackResult& result,
                                const Tokenizer& tokenizer) {
  nlohmann::ordered_json out = {{"tokens", result.tokens},
                                {"documents", result.documents},
                                {"text_bytes", result.text_bytes},
                                {"vocab_size", tokenizer.vocab_size()},
                                {"out", flags.output}};
  if (!flags.data.prompt_template.empty()) {
    out["target_tokens"] = result.target_tokens;
    out["truncated_targets"] = result.truncated_targets;
    out["dropped"] = result.dropped;
  }
  if (flags.on_bad_sample == "skip") out["skipped"] = result.skipped;
  if (flags.data.invalid_utf8 == "replace") out["replaced"] = result.replaced;
  return out;
}

}  // namespace

absl::StatusOr<nlohmann::ordered_json> RunPack(const PackFlags& given, const DataTalk& talk) {
  PackFlags flags = given;
  if (!flags.train_tokenizer.empty()) {
    SentencePieceTraining training;
    training.inputs = flags.data.inputs;
    training.output = flags.train_tokenizer;
    training.vocab_size = flags.vocab_size;
    LL_RETURN_IF_ERROR(TrainSentencePiece(training));
    flags.data.tokenizer = flags.train_tokenizer;
    if (flags.output.empty()) return nlohmann::ordered_json();
  }
  if (flags.data.tokenizer.empty()) return TokenizerOf(flags.data).status();
  if (flags.output.empty()) return MakeFieldError({"--out", "the token file to write", "nothing"});
  LL_ASSIGN_OR_RETURN(const auto tokenizer, TokenizerOf(flags.data));
  PackOptions options;
  options.inputs = flags.data.inputs;
  options.output = flags.output;
  options.split = SplitOf(flags.data);
  options.add_bos = flags.data.add_bos;
  options.add_eos = !flags.data.no_eos;
  options.invalid_utf8 = InvalidUtf8Of(flags.data);
  options.skip_bad_records = flags.on_bad_sample == "skip";
  options.threads = flags.data.threads;
  LL_ASSIGN_OR_RETURN(options.encode_sample, MakeSampleEncoder(flags.data, tokenizer));
  LL_ASSIGN_OR_RETURN(options.sample_settings, SampleSettings(flags.data, *tokenizer));
  LiveLine line(talk);
  options.progress = [&](const PackProgress& progress) { line.Show(progress); };
  options.warn = [&](const std::string& text) { line.Say(text); };
  LL_ASSIGN_OR_RETURN(const PackResult result, PackText(options, *tokenizer));
  return PackJson(flags, result, *tokenizer);
}

absl::StatusOr<DoctorReport> RunDoctor(const DoctorFlags& flags) {
  LL_ASSIGN_OR_RETURN(const auto tokenizer, TokenizerOf(flags.data));
  DoctorOptions options;
  options.inputs = flags.data.inputs;
  options.split = SplitOf(flags.data);
  options.context_length = flags.context_length;
  options.preview = flags.preview;
  options.encode.threads = flags.data.threads;
  options.encode.invalid_utf8 = InvalidUtf8Of(flags.data);
  // Lengths are those of packed documents, but a missing token is no reason to say nothing.
  options.encode.add_bos = flags.data.add_bos && tokenizer->bos_id;
  options.encode.add_eos = !flags.data.no_eos && tokenizer->eos_id;
  LL_ASSIGN_OR_RETURN(options.encode.encode_sample, MakeSampleEncoder(flags.data, tokenizer));
  return ExamineData(options, *tokenizer);
}

}  // namespace ll
