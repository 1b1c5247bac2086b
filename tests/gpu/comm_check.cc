#include "tests/gpu/comm_check.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "base/subprocess.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/comm/conformance.h"

namespace ll::gpu {
namespace {

using Write = std::function<void(const nlohmann::ordered_json&)>;

nlohmann::ordered_json Line(const CommCheckOptions& options, int rank, const std::string& name,
                            const std::string& status, const std::string& message = "") {
  nlohmann::ordered_json line = {{"comm", options.device == "cuda" ? "nccl" : "gloo"},
                                 {"ranks", options.ranks},
                                 {"one_gpu", options.share},
                                 {"rank", rank},
                                 {"case", name},
                                 {"status", status}};
  if (!message.empty()) line["message"] = message;
  return line;
}

CommOptions OptionsOf(const CommCheckOptions& check, int rank) {
  CommOptions options;
  options.rank = rank;
  options.world_size = check.ranks;
  options.nonce = "conformance";
  options.rendezvous_timeout = check.limit / 4;
  options.collective_timeout = check.limit / 4;
  return options;
}

// Communicators are made by the first operation.
absl::StatusOr<std::unique_ptr<Comm>> ConnectRank(const CommCheckOptions& check, int rank,
                                                  const std::string& address, at::Device device) {
  const CommOptions options = OptionsOf(check, rank);
  LL_ASSIGN_OR_RETURN(auto store, RendezvousStore::Connect(options, address));
  LL_ASSIGN_OR_RETURN(auto comm, device.is_cpu()
                                     ? MakeGlooComm(std::move(store), options)
                                     : MakeNcclComm(std::move(store), options, device.index()));
  LL_RETURN_IF_ERROR(comm->AllReduceSum({at::ones({1}, at::device(device))}));
  return comm;
}

absl::StatusOr<Subprocess> StartRank(const CommCheckOptions& check, int rank,
                                     const std::string& address) {
  SubprocessOptions process;
  process.argv = {std::filesystem::read_symlink("/proc/self/exe").string(),
                  "comm",
                  "--ranks",
                  absl::StrCat(check.ranks),
                  "--device",
                  check.device,
                  "--limit",
                  absl::StrCat(absl::ToInt64Seconds(check.limit)),
                  "--rank",
                  absl::StrCat(rank),
                  "--rendezvous",
                  address};
  if (check.share) {
    process.argv.push_back("--share");
    process.environment = {{"NCCL_HOSTID", absl::StrCat("rank-", rank)},
                           {"NCCL_P2P_DISABLE", "1"},
                           {"NCCL_SHM_DISABLE", "1"},
                           {"NCCL_IB_DISABLE", "1"},
                           {"NCCL_SOCKET_IFNAME", "lo"}};
  }
  process.environment["NCCL_DEBUG"] = "WARN";  // says why NCCL refuses
  process.environment["NCCL_DEBUG_FILE"] = "/dev/stderr";
  return Subprocess::Start(process);
}

}  // namespace

bool CheckComm(const CommCheckOptions& options, const Write& write) {
  const absl::Duration end = RealClock().Steady() + options.limit;
  std::string address;
  const auto store = RendezvousStore::Listen(OptionsOf(options, 0), &address);
  std::vector<Subprocess> ranks;
  absl::Status started = store.status();
  for (int rank = 0; started.ok() && rank < options.ranks; ++rank) {
    auto process = StartRank(options, rank, address);
    started = process.status();
    if (started.ok()) ranks.push_back(*std::move(process));
  }
  if (!started.ok()) {
    write(Line(options, static_cast<int>(ranks.size()), "start", "wrong",
               std::string(started.message())));
    return false;
  }
  bool all_ok = true;
  for (int rank = 0; rank < options.ranks; ++rank) {
    const auto exit = ranks[static_cast<size_t>(rank)].Wait(
        std::max(end - RealClock().Steady(), absl::ZeroDuration()));
    all_ok = all_ok && exit && exit->signal == 0 && exit->exit_code == 0;
    if (!exit) {
      write(Line(options, rank, "end", "wrong",
                 absl::StrCat("still ran after ", absl::FormatDuration(options.limit))));
    } else if (exit->signal != 0) {
      write(Line(options, rank, "end", "wrong", absl::StrCat("ended by signal ", exit->signal)));
    }
  }
  return all_ok;
}

bool CheckRank(const CommCheckOptions& options, int rank, const std::string& address,
               const Write& write) {
  const at::Device device =
      options.device == "cpu"
          ? at::Device(at::kCPU)
          : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(options.share ? 0 : rank));
  const auto comm = ConnectRank(options, rank, address, device);
  if (!comm.ok()) {
    const bool refused = options.share && device.is_cuda();
    write(Line(options, rank, "connect", refused ? "refused" : "wrong",
               std::string(comm.status().message())));
    return refused;
  }
  for (const ConformanceCase& c : ConformanceCases()) {
    const absl::Status status = c.run(**comm, device);
    write(Line(options, rank, c.name, status.ok() ? "ok" : "wrong", std::string(status.message())));
    if (!status.ok()) return false;  // the ranks may no longer be at the same operation
  }
  return true;
}

}  // namespace ll::gpu
