#include <cstdio>
#include <limits>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/format.h"
#include "base/new_folder.h"
#include "base/status_macros.h"
#include "model/weights/hf_folder.h"
#include "model/weights/hf_writer.h"
#include "model/weights/nf4_io.h"
#include "worker/trainer/cli/commands.h"
#include "worker/trainer/cli/shared_flags.h"
#include "worker/trainer/rank.h"
#include "worker/trainer/setup.h"

namespace ll {
namespace {

struct QuantizeFlags {
  std::string model, out;
  int threads = 0;
};

absl::Status Quantize(const QuantizeFlags& flags) {
  LL_ASSIGN_OR_RETURN(const LlamaConfig config, ReadModelConfig(flags.model));
  if (config.quantized) {
    return MakeFieldError({"--model", "a model in 16 or 32 bits",
                           absl::StrCat(flags.model, ", which is in NF4 already")});
  }
  LL_ASSIGN_OR_RETURN(const auto source, HfFolder::Open(flags.model, config));
  LL_ASSIGN_OR_RETURN(NewFolder out, NewFolder::Create("--out", flags.out, /*overwrite=*/false));
  HfWriteOptions options;
  options.dtype = config.dtype;
  options.nf4 = true;
  options.max_shard_bytes = std::numeric_limits<int64_t>::max();
  LL_ASSIGN_OR_RETURN(const HfWritten written,
                      WriteHfWeights(*source, config, out.partial(), options));
  nlohmann::json json = config.raw;
  json["quantization_config"] = Nf4QuantizationConfig(config.dtype);
  LL_RETURN_IF_ERROR(WriteFileAtomic(out.partial() + "/config.json", json.dump(2) + "\n"));
  for (const std::string& path : TokenizerFiles(flags.model))
    LL_RETURN_IF_ERROR(CopyFileDurably(path, out.partial() + path.substr(path.rfind('/'))));
  LL_RETURN_IF_ERROR(out.Commit());
  std::printf(
      "%s: %s linear weights in %.3f bits each\n", out.path().c_str(),
      HumanCount(written.nf4_elements).c_str(),
      8.0 * static_cast<double>(written.nf4_bytes) / static_cast<double>(written.nf4_elements));
  return absl::OkStatus();
}

}  // namespace

void AddQuantize(CLI::App& program, Command& run) {
  auto flags = std::make_shared<QuantizeFlags>();
  CLI::App* command = program.add_subcommand(
      "quantize", "Writes a model folder with its linear weights in NF4, as bitsandbytes does");
  command->add_option("--model", flags->model, "Hugging Face folder")->required()->type_name("DIR");
  command->add_option("--out", flags->out, "Folder to write; must not exist")
      ->required()
      ->type_name("DIR");
  AddThreads(*command, flags->threads, "CPU threads");
  command->callback([flags, &run] {
    run = [flags] {
      SetThreads(flags->threads, 1);
      const absl::Status status = Quantize(*flags);
      return status.ok() ? 0 : ReportToStderr(status);
    };
  });
}

}  // namespace ll
