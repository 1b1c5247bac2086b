#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/format.h"
#include "base/status_macros.h"
#include "model/plan/config.h"
#include "model/weight_source.h"
#include "model/weights/hf_writer.h"
#include "worker/trainer/cli/commands.h"
#include "worker/trainer/cli/shared_flags.h"
#include "worker/trainer/rank.h"

namespace ll {
namespace {

struct InitFlags {
  std::string config, out, dtype;
  uint64_t seed = 0;
};

absl::Status Init(const InitFlags& flags) {
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(flags.config));
  auto parsed = ParseLlamaConfig(text);
  if (!parsed.ok()) return Annotate(parsed.status(), "--config");
  LlamaConfig config = *std::move(parsed);
  if (!flags.dtype.empty()) config.dtype = flags.dtype;
  const std::string config_path = flags.out + "/config.json";
  if (FileExists(config_path)) {
    return MakeFieldError({"--out", "a folder without a model", flags.out},
                          absl::StatusCode::kAlreadyExists);
  }
  RandomWeights weights(flags.seed, config);
  LL_RETURN_IF_ERROR(MakeDirs(flags.out));
  LL_RETURN_IF_ERROR(WriteHfWeights(weights, config, flags.out, {.dtype = config.dtype}).status());
  // Last, so that a folder with a config is complete.
  LL_RETURN_IF_ERROR(WriteFileAtomic(config_path, LlamaConfigToJson(config).dump(2) + "\n"));
  std::printf("%s: %s parameters, %s, seed %llu\n", flags.out.c_str(),
              HumanCount(config.ParameterCount()).c_str(), config.dtype.c_str(),
              static_cast<unsigned long long>(flags.seed));
  return absl::OkStatus();
}

}  // namespace

void AddInit(CLI::App& program, Command& run) {
  auto flags = std::make_shared<InitFlags>();
  CLI::App* command = program.add_subcommand("init", "Writes a model folder with random weights");
  command->add_option("--config", flags->config, "config.json of the shape")
      ->required()
      ->type_name("FILE");
  command->add_option("--out", flags->out, "Folder to write")->required()->type_name("DIR");
  AddSeed(*command, flags->seed, "Seed of the weights");
  command->add_option("--dtype", flags->dtype, "Type of the weights; default: what the config says")
      ->check(CLI::IsMember({"float32", "bfloat16", "float16"}));
  command->callback([flags, &run] {
    run = [flags] {
      const absl::Status status = Init(*flags);
      return status.ok() ? 0 : ReportToStderr(status);
    };
  });
}

}  // namespace ll
