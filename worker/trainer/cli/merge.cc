#include <cstdio>
#include <memory>

#include "base/clock.h"
#include "worker/trainer/cli/commands.h"
#include "worker/trainer/cli/shared_flags.h"
#include "worker/trainer/control.h"
#include "worker/trainer/merge/merge.h"
#include "worker/trainer/rank.h"

namespace ll {
namespace {

// Ctrl-C and SIGTERM end a merge between two weights, and its partial folder with it.
void CatchInterrupts() {
  InstallSignalHandlers();
  StopOnInterrupt(kMergeInterrupted);
}

int Print(const absl::StatusOr<nlohmann::ordered_json>& result) {
  if (!result.ok()) return ReportToStderr(result.status());
  // Paths need not be text.
  using Handler = nlohmann::json::error_handler_t;
  std::printf("%s\n", result->dump(-1, ' ', false, Handler::replace).c_str());
  return 0;
}

struct MergeFlags {
  MergeRequest request;
  int threads = 0;
};

void AddMergeFlags(CLI::App& command, MergeFlags& flags) {
  MergeRequest& r = flags.request;
  command.add_option("--adapter", r.adapter, "Adapter folder, or a checkpoint of any method")
      ->required()
      ->type_name("DIR");
  command.add_option("--model", r.model, "Base folder; default: what the adapter names")
      ->type_name("DIR");
  command.add_option("--out", r.out, "Folder to write")->required()->type_name("DIR");
  command.add_option("--dtype", r.dtype, "Type of the weights; default: the base's")
      ->check(CLI::IsMember({"bf16", "fp16", "fp32"}));
  command
      .add_option("--onto", r.onto,
                  "Of a quantised base: its original weights, or its values in NF4, which the "
                  "adapter saw; default: what the base folder holds")
      ->check(CLI::IsMember({"16bit", "nf4"}));
  command.add_option("--quantization", r.quantization, "Of the folder that is written")
      ->capture_default_str()
      ->check(CLI::IsMember({"none", "nf4"}));
  command.add_option("--max-shard-size", r.max_shard_bytes, "Bytes of one safetensors file")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true).description(""))
      ->check(CLI::PositiveNumber.description(""))
      ->default_str("5GB")
      ->type_name("SIZE");
  command
      .add_option("--context-length", r.context_length,
                  "Scales the positions to this; default: as the adapter was trained")
      ->check(CLI::PositiveNumber);
  command.add_option("--rope", r.rope, "How, where --context-length reaches further")
      ->capture_default_str()
      ->check(CLI::IsMember({"linear", "ntk", "dynamic", "yarn", "llama3"}));
  command
      .add_option("--verify", r.verify,
                  "Token file: measures perplexity and KL of the adapter beside its base and of "
                  "the merged model")
      ->type_name("FILE");
  command.add_option("--verify-windows", r.verify_windows, "Windows to measure")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command
      .add_option("--verify-seq-len", r.verify_seq_len,
                  "Tokens a window; default: the context, at most 1024")
      ->check(CLI::Range(2, 16'000'000));
  command.add_flag("--overwrite", r.overwrite, "Replaces an existing model folder, all at once");
  command.add_flag("--allow-missing-tokenizer", r.allow_missing_tokenizer,
                   "Writes a folder without one");
  command.add_flag("--allow-other-base", r.allow_other_base,
                   "Takes weights that are not those the adapter was trained on");
  AddThreads(command, flags.threads, "CPU threads");
}

}  // namespace

void AddMerge(CLI::App& program, Command& run) {
  auto flags = std::make_shared<MergeFlags>();
  CLI::App* command = program.add_subcommand(
      "merge", "Writes base and adapter as one Hugging Face folder, with a model card");
  AddMergeFlags(*command, *flags);
  command->callback([flags, &run] {
    run = [flags] {
      SetThreads(flags->threads, 1);
      CatchInterrupts();
      EventSink events(RealClock(), 0, STDERR_FILENO);  // the result alone goes to standard output
      return Print(Merge(flags->request, events, StopRequested));
    };
  });
}

void AddPublish(CLI::App& program, Command& run) {
  struct Flags {
    std::string from, to;
    bool overwrite = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = program.add_subcommand(
      "publish", "Copies a model folder and checks every file of the copy by its hash");
  command->add_option("DIR", flags->from, "Model folder")->required();
  command->add_option("--to", flags->to, "Folder or s3://BUCKET/PREFIX to write")
      ->required()
      ->type_name("DEST");
  command->add_flag("--overwrite", flags->overwrite,
                    "Replaces an existing model folder, all at once");
  command->callback([flags, &run] {
    run = [flags] {
      CatchInterrupts();
      return Print(Publish(flags->from, flags->to, flags->overwrite, StopRequested));
    };
  });
}

}  // namespace ll
