// gpu_check: what a GPU, LibTorch and this project's kernels make of each other. tests/gpu/run.sh
// calls it. Every line of output is one JSON object; the exit status is 0 when all that was judged
// is right, 1 when something is wrong, 2 without what was asked for.
#include <cstdio>
#include <optional>

#include <ATen/detail/CUDAHooksInterface.h>
#include <CLI/CLI.hpp>

#include "kernels/common/cuda_library.h"
#include "tests/gpu/comm_check.h"
#include "tests/gpu/judge.h"
#include "tests/gpu/kernels_check.h"
#include "tests/gpu/model_check.h"

namespace ll::gpu {
namespace {

void Write(const nlohmann::ordered_json& line) {
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

bool DeviceThere(at::DeviceType device) {
  if (device == at::kCPU) return true;
  const absl::StatusOr<void*> library = OpenCudaLibrary();
  if (library.ok() && at::detail::getCUDAHooks().deviceCount() > 0) return true;
  std::fprintf(
      stderr, "gpu_check: no GPU: %s\n",
      library.ok() ? "the driver shows none" : std::string(library.status().message()).c_str());
  return false;
}

// `first`: of the cases, then of the timed ones, where an earlier process ended.
// `ended`: with what the process of that case ended; it is only written down then.
int JudgeEntryPoint(const std::string& name, int repeats, bool speed, size_t first,
                    std::optional<int> ended) {
  for (const EntryPoint& entry : EntryPoints()) {
    if (entry.name != name) continue;
    if (ended) {
      const size_t judged = Cases().size();
      Write(Ended(entry, first < judged ? Cases()[first] : SpeedCases().at((first - judged) / 2),
                  *ended));
      return 0;
    }
    if (!DeviceThere(entry.device)) return 2;
    // Each case is timed twice, without a fixed order of sums and with it.
    const size_t judged = Cases().size(), timed = speed ? 2 * SpeedCases().size() : 0;
    for (size_t i = first; i < judged + timed; ++i) {
      const size_t t = i - judged;
      Write(i < judged ? Judge(entry, Cases()[i], repeats, 42)
                       : Time(entry, SpeedCases()[t / 2], 10, 42, /*deterministic=*/t % 2 == 1));
    }
    return 0;  // wrong and refused are results here: the attention choice reads them
  }
  std::fprintf(stderr, "gpu_check: no entry point '%s'; see gpu_check list\n", name.c_str());
  return 2;
}

int Models() {
  if (!DeviceThere(at::kCUDA)) return 2;
  return CheckModels(Write) ? 0 : 1;
}

int Communication(const CommCheckOptions& options, int rank, const std::string& rendezvous) {
  if (!DeviceThere(options.device == "cpu" ? at::kCPU : at::kCUDA)) return 2;
  if (rank >= 0) return CheckRank(options, rank, rendezvous, Write) ? 0 : 1;
  const int gpus = at::detail::getCUDAHooks().deviceCount();
  if (options.device == "cuda" && !options.share && options.ranks > gpus) {
    std::fprintf(stderr, "gpu_check: %d ranks, but %d GPUs: give --share\n", options.ranks, gpus);
    return 2;
  }
  return CheckComm(options, Write) ? 0 : 1;
}

int Kernels(at::DeviceType device, bool small, bool speed) {
  if (!DeviceThere(device)) return 2;
  const bool ok = CheckKernels(device, small, Write);
  if (speed && device == at::kCUDA) TimeKernels(Write);
  return ok ? 0 : 1;
}

}  // namespace
}  // namespace ll::gpu

int main(int argc, char** argv) {
  using namespace ll::gpu;
  CLI::App app("Checks and times what a GPU runs; one JSON object a line");
  app.require_subcommand(1);
  std::string device = "cuda", name;
  int repeats = 20;
  size_t first = 0;
  bool speed = false, small = false;
  std::optional<int> ended;
  CLI::App* list = app.add_subcommand("list", "Names of LibTorch's attention entry points");
  const auto add_device = [&device](CLI::App* to) {
    to->add_option("--device", device, "Of which device")->check(CLI::IsMember({"cpu", "cuda"}));
  };
  add_device(list);
  CLI::App* entry = app.add_subcommand(
      "entry-point", "Judges one entry point; by itself, since a fault poisons its process");
  entry->add_option("name", name, "As list prints it")->required();
  entry->add_option("--repeats", repeats, "Runs whose bits must be equal")
      ->check(CLI::Range(1, 1000));
  entry->add_option("--from", first, "Leave out so many cases");
  entry->add_option("--ended", ended,
                    "Only write that the process of the case --from ended with this exit status");
  entry->add_flag("--speed", speed, "S2-Attn's calls on 32,768 tokens, timed, too");
  CLI::App* kernels =
      app.add_subcommand("kernels", "This project's kernels: their error beside plain torch's");
  add_device(kernels);
  kernels->add_flag("--small", small, "Small shapes alone, under a sanitizer");
  kernels->add_flag("--speed", speed, "Of a GPU the bandwidth beside a copy's, too");
  CommCheckOptions comm;
  int rank = -1;
  int64_t limit_seconds = 120;
  std::string rendezvous;
  CLI::App* ranks =
      app.add_subcommand("comm", "What ranks exchange, over NCCL (on a CPU over Gloo)");
  add_device(ranks);
  ranks->add_option("--ranks", comm.ranks, "Processes, each on a GPU of its own")
      ->check(CLI::Range(1, 64));
  ranks->add_flag("--share", comm.share, "All on the first GPU");
  ranks->add_option("--limit", limit_seconds, "Seconds for everything")->check(CLI::Range(4, 3600));
  ranks->add_option("--rank", rank, "One rank alone; this program starts itself so");
  ranks->add_option("--rendezvous", rendezvous, "Where that rank finds the others");
  CLI::App* models = app.add_subcommand("models", "Steps of small models against the CPU's");
  CLI11_PARSE(app, argc, argv);
  if (list->parsed()) {
    for (const EntryPoint& e : EntryPoints()) {
      if ((e.device == at::kCPU) == (device == "cpu")) std::printf("%s\n", e.name.c_str());
    }
    return 0;
  }
  try {
    if (models->parsed()) return Models();
    if (ranks->parsed()) {
      comm.device = device;
      comm.limit = absl::Seconds(limit_seconds);
      return Communication(comm, rank, rendezvous);
    }
    if (entry->parsed()) return JudgeEntryPoint(name, repeats, speed, first, ended);
    return Kernels(device == "cpu" ? at::kCPU : at::kCUDA, small, speed);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "gpu_check: %s\n", e.what());
    return 1;
  }
}
