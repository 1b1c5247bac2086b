#include <cstdio>
#include <memory>

#include "worker/trainer/cli/commands.h"
#include "worker/trainer/cli/shared_flags.h"
#include "worker/trainer/rank.h"
#include "worker/trainer/setup.h"

namespace ll {
namespace {

struct TrainFlags {
  std::string spec;
  std::vector<std::string> settings;
  RankFlags rank;
};

int Execute(const TrainFlags& flags) {
  std::vector<std::string> notes;
  const auto spec = ReadSpec(flags.spec, flags.settings, &notes);
  for (const std::string& note : notes)
    std::fprintf(stderr, "ll-trainer: note: %s\n", note.c_str());
  if (!spec.ok()) return ReportToStderr(spec.status());
  return RunRank(*spec, flags.rank);
}

void AddCommonFlags(CLI::App& command, TrainFlags& flags) {
  command.add_option("--spec", flags.spec, "Job spec, YAML or JSON")->required()->type_name("FILE");
  command.add_option("--out", flags.rank.out, "Folder for checkpoints and events")
      ->required()
      ->type_name("DIR");
  command.add_option("--set", flags.settings, "Overrides one key of the spec; may be repeated")
      ->type_name("KEY=VALUE");
  AddThreads(command, flags.rank.threads,
             "CPU threads; default: OMP_NUM_THREADS, else the host's cores");
  command
      .add_option("--device", flags.rank.device,
                  "What to compute on; auto: the GPU that this process sees, else the CPU")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  command.add_option("--peak-tflops", flags.rank.peak_tflops,
                     "The device's peak, for mfu; without it mfu is null");
}

}  // namespace

void AddTrain(CLI::App& program, Command& run) {
  auto flags = std::make_shared<TrainFlags>();
  CLI::App* command = program.add_subcommand(
      "train",
      "Trains by itself; run again with the same --out it resumes from the newest good checkpoint");
  AddCommonFlags(*command, *flags);
  flags->rank.heeds_ctrl_c = true;
  command->footer(
      "\nCtrl-C and SIGTERM: the step is finished, a checkpoint written, exit status 10. A second "
      "Ctrl-C ends it at once.");
  command->add_flag("--random-weights", flags->rank.random_weights,
                    "Draws the model's weights and reads only its config.json: to measure a shape");
  command->callback([flags, &run] { run = [flags] { return Execute(*flags); }; });
}

void AddRun(CLI::App& program, Command& run) {
  auto flags = std::make_shared<TrainFlags>();
  RankFlags& rank = flags->rank;
  CLI::App* command = program.add_subcommand("run", "Runs one rank of a job; ll-worker calls this");
  AddCommonFlags(*command, *flags);
  command->add_option("--rank", rank.rank, "This process's rank")
      ->required()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--world", rank.world_size, "Ranks of the job")
      ->required()
      ->check(CLI::PositiveNumber);
  command->add_option("--epoch", rank.epoch, "The job's attempt");
  command->add_option("--nonce", rank.nonce, "Prefix in the rendezvous store");
  command->add_option("--events-fd", rank.events_fd,
                      "Inherited descriptor for events; default: standard output");
  command->add_option("--control-fd", rank.control_fd, "Inherited descriptor for control lines");
  command->add_option("--listen-host", rank.listen_host, "This host's address for its peers")
      ->capture_default_str();
  command
      ->add_option("--rendezvous", rank.rendezvous,
                   "Rank 0's address; default: told on the control descriptor")
      ->type_name("HOST:PORT");
  command->add_option("--resume-from", rank.resume_from, "Checkpoint folder to start from")
      ->type_name("DIR");
  command->add_option("--resume-manifest", rank.resume_manifest_sha256,
                      "SHA-256 its MANIFEST.json must have");
  command
      ->add_option("--collective-timeout-s", rank.collective_timeout_seconds,
                   "Seconds to wait for a slow rank, 1 to 86400")
      ->capture_default_str();
  command
      ->add_option("--peer-silence-s", rank.peer_silence_seconds,
                   "Seconds without a sign of life until a rank counts as lost, 1 to 86400")
      ->capture_default_str();
  command->callback([flags, &run] { run = [flags] { return Execute(*flags); }; });
}

}  // namespace ll
