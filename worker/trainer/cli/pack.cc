#include <cstdio>
#include <memory>

#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/data/pack.h"
#include "model/text/sentencepiece_tokenizer.h"
#include "model/text/tokenizer.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/cli/commands.h"
#include "worker/trainer/rank.h"

namespace ll {
namespace {

struct PackFlags {
  PackOptions pack;
  std::string tokenizer, documents = "file", train_tokenizer;
  int64_t vocab_size = 0;
  bool no_eos = false;
};

absl::Status Pack(PackFlags& flags) {
  if (!flags.train_tokenizer.empty()) {
    SentencePieceTraining training;
    training.inputs = flags.pack.inputs;
    training.output = flags.train_tokenizer;
    training.vocab_size = flags.vocab_size;
    LL_RETURN_IF_ERROR(TrainSentencePiece(training));
    flags.tokenizer = flags.train_tokenizer;
    if (flags.pack.output.empty()) return absl::OkStatus();
  }
  if (flags.tokenizer.empty()) {
    return MakeFieldError({"--tokenizer", "a model folder or a tokenizer file", "nothing"});
  }
  if (flags.pack.output.empty())
    return MakeFieldError({"--out", "the token file to write", "nothing"});
  LL_ASSIGN_OR_RETURN(const auto tokenizer, OpenTokenizer(flags.tokenizer));
  flags.pack.add_eos = !flags.no_eos;
  flags.pack.split = flags.documents == "blank-line"   ? DocumentSplit::kBlankLine
                     : flags.documents == "json-lines" ? DocumentSplit::kJsonLines
                                                       : DocumentSplit::kFile;
  LL_ASSIGN_OR_RETURN(const PackResult result, PackText(flags.pack, *tokenizer));
  const nlohmann::ordered_json json = {{"tokens", result.tokens},
                                       {"documents", result.documents},
                                       {"text_bytes", result.text_bytes},
                                       {"vocab_size", tokenizer->vocab_size()},
                                       {"out", flags.pack.output}};
  std::printf("%s\n", json.dump().c_str());
  return absl::OkStatus();
}

}  // namespace

void AddPack(CLI::App& program, Command& run) {
  auto flags = std::make_shared<PackFlags>();
  CLI::App* command = program.add_subcommand("pack", "Turns text into a token file");
  command->add_option("inputs", flags->pack.inputs, "Text files, UTF-8")
      ->required()
      ->type_name("FILE");
  command
      ->add_option("--out", flags->pack.output,
                   "Token file to write; FILE.json is written beside it")
      ->type_name("FILE");
  command
      ->add_option("--tokenizer", flags->tokenizer,
                   "Model folder, tokenizer.json or tokenizer.model")
      ->type_name("PATH");
  command->add_option("--documents", flags->documents, "Where a document ends")
      ->capture_default_str()
      ->check(CLI::IsMember({"file", "blank-line", "json-lines"}));
  command->add_flag("--bos", flags->pack.add_bos, "Puts the begin token in front of each document");
  command->add_flag("--no-eos", flags->no_eos, "Leaves out the end token after each document");
  CLI::Option* train =
      command
          ->add_option("--train-tokenizer", flags->train_tokenizer,
                       "First trains a SentencePiece model on the inputs and writes it here")
          ->type_name("FILE");
  command->add_option("--vocab-size", flags->vocab_size, "Vocabulary of the tokenizer to train")
      ->check(CLI::PositiveNumber)
      ->needs(train);
  command->callback([flags, &run] {
    run = [flags] {
      const absl::Status status = Pack(*flags);
      return status.ok() ? 0 : ReportToStderr(status);
    };
  });
}

}  // namespace ll
