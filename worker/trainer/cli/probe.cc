#include "worker/trainer/probe.h"

#include <cstdio>
#include <memory>

#include "base/status_macros.h"
#include "worker/trainer/cli/commands.h"
#include "worker/trainer/device.h"
#include "worker/trainer/rank.h"

namespace ll {
namespace {

struct ProbeFlags {
  std::string device = "auto";
  int threads = 0;
  double seconds = 8;
  bool small = false;
};

absl::Status Probe(const ProbeFlags& flags) {
  LL_RETURN_IF_ERROR(UseDevice(flags.device, /*deterministic=*/true));
  SetThreads(flags.threads, /*local_ranks=*/1);
  ProbeOptions options;
  options.budget = absl::Seconds(flags.seconds);
  options.small = flags.small;
  LL_ASSIGN_OR_RETURN(const nlohmann::ordered_json measured, ProbeDevice(options, RealClock()));
  std::printf("%s\n", measured.dump(1).c_str());
  return absl::OkStatus();
}

}  // namespace

void AddProbe(CLI::App& program, Command& run) {
  auto flags = std::make_shared<ProbeFlags>();
  CLI::App* command = program.add_subcommand(
      "probe", "Measures this host's device for plans: products, attention, memory, loopback");
  command->add_option("--device", flags->device, "What is measured")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  command->add_option("--threads", flags->threads, "Threads of a CPU, as one slot has them; 0: all")
      ->capture_default_str()
      ->check(CLI::Range(0, 4096));
  command
      ->add_option("--seconds", flags->seconds,
                   "About how long its measurements take, without making models ready; half a "
                   "minute at most even on a slow CPU")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 30.0));
  command->add_flag("--small", flags->small,
                    "Tiny shapes: whether it works, with figures that say nothing");
  command->callback([flags, &run] {
    run = [flags] {
      const absl::Status status = Probe(*flags);
      return status.ok() ? 0 : ReportToStderr(status);
    };
  });
}

}  // namespace ll
