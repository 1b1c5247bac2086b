#include <cstdio>
#include <filesystem>
#include <memory>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_join.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/gpu_kind.h"
#include "base/status_macros.h"
#include "model/plan/flops_table.h"
#include "model/plan/models.h"
#include "worker/trainer/cli/commands.h"
#include "worker/trainer/data/text_data.h"
#include "worker/trainer/device.h"
#include "worker/trainer/profile_step.h"
#include "worker/trainer/rank.h"
#include "worker/trainer/setup.h"

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

struct StepFlags {
  std::string spec, device = "auto", calibration, output = "table";
  std::vector<std::string> settings;
  int64_t steps = 3;
  int threads = 0;
};

// What the device can do: as a probe measured it, else as its kind is known.
absl::StatusOr<DeviceRates> RatesHere(const std::string& calibration) {
  const bool gpu = ProcessDevice().is_cuda();
  // A CPU's speed is the host's: nothing is known of it beforehand.
  DeviceRates rates = gpu ? RatesOf(GpuKind(ProcessDeviceName(), GpuMemoryBytes())) : DeviceRates();
  if (calibration.empty()) return rates;
  LL_ASSIGN_OR_RETURN(const std::string json, ReadFile(calibration));
  LL_ASSIGN_OR_RETURN(const Calibration measured, ParseCalibration(json));
  return WithCalibration(rates, measured);
}

// Text is packed to a folder that is gone when this returns: the tokens are mapped by then.
absl::StatusOr<Training> Prepare(const JobSpec& spec) {
  std::string folder;
  const absl::Cleanup remove = [&folder] {
    std::error_code ignored;
    if (!folder.empty()) std::filesystem::remove_all(folder, ignored);
  };
  if (spec.data && IsTextData(*spec.data)) {
    std::string made = (std::filesystem::temp_directory_path() / "ll-profile-XXXXXX").string();
    if (mkdtemp(made.data()) == nullptr) return ErrnoStatus(errno, "cannot create", made);
    folder = made;
  }
  return PrepareTraining(spec, /*local_ranks=*/1, PackPlace{folder, 0, {}});
}

absl::Status PrintStep(const StepFlags& flags) {
  std::vector<std::string> settings = {"kind=train",   "gpus=1",           "context_parallel=1",
                                       "zero_stage=0", "shard_base=false", "eval_steps=0",
                                       "save_steps=0"};
  settings.insert(settings.end(), flags.settings.begin(), flags.settings.end());
  LL_ASSIGN_OR_RETURN(const JobSpec spec, ReadSpec(flags.spec, settings));
  LL_RETURN_IF_ERROR(UseDevice(flags.device, spec.deterministic.value_or(true)));
  SetThreads(flags.threads, /*local_ranks=*/1);
  LL_ASSIGN_OR_RETURN(const DeviceRates rates, RatesHere(flags.calibration));
  LL_ASSIGN_OR_RETURN(Training training, Prepare(spec));
  LL_ASSIGN_OR_RETURN(const StepProfile profile, ProfileStep(training, flags.steps, RealClock()));
  if (flags.output == "json") {
    std::printf("%s\n", StepProfileJson(profile, rates).dump(1).c_str());
  } else {
    std::printf("%s", StepProfileText(profile, rates).c_str());
  }
  return absl::OkStatus();
}

void AddStep(CLI::App& profile, Command& run) {
  auto flags = std::make_shared<StepFlags>();
  CLI::App* command = profile.add_subcommand(
      "step", "Takes steps of a training and tells what their time goes to, by operation");
  command->add_option("--spec", flags->spec, "Job spec, YAML or JSON")
      ->required()
      ->type_name("FILE");
  command->add_option("--set", flags->settings, "Overrides one key of the spec; may be repeated")
      ->type_name("KEY=VALUE");
  command
      ->add_option("--steps", flags->steps, "Steps with and without the trace, after a first one")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command
      ->add_option("--threads", flags->threads,
                   "CPU threads; default: OMP_NUM_THREADS, else the host's cores")
      ->check(CLI::Range(0, 4096));
  command->add_option("--device", flags->device, "What to compute on")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  command
      ->add_option(
          "--calibration", flags->calibration,
          "What ll-trainer probe printed here, for the floor; default: the GPU's data sheet")
      ->type_name("FILE");
  command->add_option("-o,--output", flags->output, "Format")
      ->capture_default_str()
      ->check(CLI::IsMember({"table", "json"}));
  command->callback([flags, &run] {
    run = [flags] {
      const absl::Status status = PrintStep(*flags);
      return status.ok() ? 0 : ReportToStderr(status);
    };
  });
}

}  // namespace

void AddProfile(CLI::App& program, Command& run) {
  auto flags = std::make_shared<FlopsFlags>();
  CLI::App* profile = program.add_subcommand(
      "profile", "Counts what a model computes, and measures what a step's time goes to");
  profile->require_subcommand(1);
  AddStep(*profile, run);
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
