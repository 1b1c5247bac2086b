#include <cstdio>
#include <memory>
#include <vector>

#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/plan/flops_table.h"
#include "model/plan/models.h"
#include "worker/trainer/cli/commands.h"
#include "worker/trainer/rank.h"

namespace ll {
namespace {

struct FlopsFlags {
  std::string model, output = "table";
  std::vector<int64_t> contexts;
  double group_ratio = 0.25;
};

absl::Status PrintFlops(const FlopsFlags& flags) {
  std::optional<LlamaConfig> config = BuiltInModel(flags.model);
  if (!config) {
    auto read = ReadLlamaConfig(flags.model);
    if (!read.ok()) {
      const std::string hint = "names without a folder: llama-2-7b, llama-2-13b, llama-2-70b, " +
                               absl::StrJoin(BuiltInModelNames(), ", ");
      return FieldStatus(read.status().code(), "--model", read.status().message(), hint);
    }
    config = *std::move(read);
  }
  LL_ASSIGN_OR_RETURN(const std::vector<FlopsRow> rows,
                      FlopsTable(*config, flags.contexts, flags.group_ratio));
  if (flags.output == "json") {
    std::printf("%s\n", FlopsTableJson(rows).dump(1).c_str());
    return absl::OkStatus();
  }
  std::printf(
      "TFLOPs of one sequence's forward pass, as LongLoRA counts them (2 a multiply-add, no causal "
      "half)\n%s",
      FlopsTableText(rows).c_str());
  return absl::OkStatus();
}

}  // namespace

void AddProfile(CLI::App& program, Command& run) {
  auto flags = std::make_shared<FlopsFlags>();
  CLI::App* profile = program.add_subcommand("profile", "Counts what a model computes");
  profile->require_subcommand(1);
  CLI::App* command = profile->add_subcommand(
      "flops", "LongLoRA's table: FLOPs by context, S2-Attn beside full attention");
  command->add_option("--model", flags->model, "Model folder, config.json, or a known name (7b, …)")
      ->required()
      ->type_name("M|DIR");
  command->add_option("--ctx,--context-length", flags->contexts, "Context lengths in tokens")
      ->required()
      ->delimiter(',')
      ->check(CLI::Range(1, 100'000'000))
      ->type_name("N[,N...]");
  command->add_option("--group-ratio", flags->group_ratio, "Attention group size / context")
      ->capture_default_str()
      ->check(CLI::Range(1e-6, 1.0));
  command->add_option("-o,--output", flags->output, "Format")
      ->capture_default_str()
      ->check(CLI::IsMember({"table", "json"}));
  command->callback([flags, &run] {
    run = [flags] {
      const absl::Status status = PrintFlops(*flags);
      return status.ok() ? 0 : ReportToStderr(status);
    };
  });
}

}  // namespace ll
