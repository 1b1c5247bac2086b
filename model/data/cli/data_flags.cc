#include "model/data/cli/data_flags.h"

#include <CLI/CLI.hpp>

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

std::vector<std::string> GivenArguments(const CLI::App& command) {
  std::vector<std::string> named, positional;
  for (const CLI::Option* option : command.get_options()) {
    if (option->count() == 0 || option == command.get_help_ptr()) continue;
    const bool is_flag = option->get_items_expected_max() == 0;
    for (const std::string& value : option->results()) {
      if (!option->nonpositional()) {
        positional.push_back(value);
        continue;
      }
      named.push_back(option->get_name());
      if (!is_flag) named.push_back(value);
    }
  }
  named.push_back("--");
  named.insert(named.end(), positional.begin(), positional.end());
  return named;
}

}  // namespace ll
