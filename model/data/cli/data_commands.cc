#include "model/data/cli/data_commands.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/data/cli/live_line.h"
#include "model/data/cli/sample_encoder.h"
#include "model/text/sentencepiece_tokenizer.h"
#include "model/text/tokenizer.h"

namespace ll {
namespace {

constexpr char kInputs[] = "Files, folders or patterns: .txt, .jsonl, .json, also .gz and .zst";

void AddDataFlags(CLI::App& command, DataFlags& flags) {
  command.add_option("inputs", flags.inputs, kInputs)->required()->type_name("PATH");
  command
      .add_option("--tokenizer", flags.tokenizer, "Model folder, tokenizer.json or tokenizer.model")
      ->type_name("PATH");
  command.add_option("--documents", flags.documents, "Where a document of a text file ends")
      ->capture_default_str()
      ->check(CLI::IsMember({"file", "blank-line", "json-lines"}));
  command.add_flag("--bos", flags.add_bos, "Puts the begin token in front of each text document");
  command.add_flag("--no-eos", flags.no_eos, "Leaves out the end token after each text document");
  command
      .add_option("--prompt-template", flags.prompt_template,
                  "Takes the records as supervised samples, in this template")
      ->check(CLI::IsMember({"longlora", "llama2", "vicuna", "chatml", "chat_template"}));
  command
      .add_option("--max-seq-length", flags.max_seq_length,
                  "Longest supervised sample in tokens; 0: any")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command.add_option("--truncation", flags.truncation, "What becomes of a longer sample")
      ->capture_default_str()
      ->check(CLI::IsMember({"right", "left", "drop", "error"}));
  command
      .add_option("--invalid-utf8", flags.invalid_utf8,
                  "What becomes of bytes that are not UTF-8; replace: U+FFFD")
      ->capture_default_str()
      ->check(CLI::IsMember({"error", "replace"}));
  command.add_option("--threads", flags.threads, "Threads; 0: one for each core")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
}

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

void AddPackFlags(CLI::App& command, PackFlags& flags) {
  AddDataFlags(command, flags.data);
  command.add_option("--out", flags.output, "Token file to write; FILE.json is written beside it")
      ->type_name("FILE");
  command
      .add_option("--on-bad-sample", flags.on_bad_sample,
                  "What a record that cannot be used does; skip: it is told and left out")
      ->capture_default_str()
      ->check(CLI::IsMember({"stop", "skip"}));
  CLI::Option* train =
      command
          .add_option(
              "--train-tokenizer", flags.train_tokenizer,
              "First trains a SentencePiece model on the inputs (plain text) and writes it here")
          ->type_name("FILE");
  command.add_option("--vocab-size", flags.vocab_size, "Vocabulary of the tokenizer to train")
      ->check(CLI::PositiveNumber)
      ->needs(train);
}

void AddDoctorFlags(CLI::App& command, DoctorFlags& flags) {
  AddDataFlags(command, flags.data);
  command
      .add_option("--ctx", flags.context_length,
                  "Context length in tokens, to say how many records are shorter")
      ->check(CLI::PositiveNumber);
  command.add_option("--preview", flags.preview, "How many records to show")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000));
}

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
  options.sample_settings = SampleSettings(flags.data);
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
