#include "worker/agent/gpu_probe.h"

#include <unistd.h>

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/agent/capture.h"

namespace ll {
namespace {

constexpr int64_t kMebibyte = 1 << 20;

int64_t HostMemoryBytes() {
  int64_t bytes = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  // A container's limit, in the two generations of control groups.
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    const auto text = ReadFile(path);
    int64_t limit;
    if (text.ok() && absl::SimpleAtoi(absl::StripAsciiWhitespace(*text), &limit) && limit > 0) {
      bytes = std::min(bytes, limit);
    }
  }
  return bytes;
}

}  // namespace

std::string NvidiaSmi() {
  for (const char* path : {"/usr/bin/nvidia-smi", "/usr/local/nvidia/bin/nvidia-smi",
                           "/usr/local/bin/nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi"}) {
    if (access(path, X_OK) == 0) return path;
  }
  return "";
}

absl::StatusOr<std::vector<v1::Slot>> ParseGpuList(absl::string_view text) {
  std::vector<v1::Slot> out;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipWhitespace())) {
    const std::vector<absl::string_view> parts = absl::StrSplit(line, ',');
    int index;
    int64_t mebibytes;
    if (parts.size() != 3 || !absl::SimpleAtoi(absl::StripAsciiWhitespace(parts[0]), &index) ||
        !absl::SimpleAtoi(absl::StripAsciiWhitespace(parts[2]), &mebibytes)) {
      return MakeFieldError(
          {"gpus", "'INDEX, NAME, MEBIBYTES' from nvidia-smi", std::string(line)});
    }
    v1::Slot& slot = out.emplace_back();
    slot.set_index(index);
    slot.set_memory_bytes(mebibytes * kMebibyte);
    slot.set_kind(GpuKind(absl::StripAsciiWhitespace(parts[1]), slot.memory_bytes()));
  }
  return out;
}

absl::StatusOr<std::vector<v1::Slot>> ProbeGpus(absl::Duration timeout) {
  const std::string program = NvidiaSmi();
  if (program.empty()) return std::vector<v1::Slot>();
  const absl::StatusOr<Captured> run = CaptureOutput(
      {program, "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"}, timeout);
  if (run.status().code() != absl::StatusCode::kDeadlineExceeded && !run.ok()) return run.status();
  if (!run.ok() || run->exit_code != 0) {
    return FieldStatus(
        absl::StatusCode::kUnavailable, "gpus",
        absl::StrCat(program, run.ok() ? absl::StrCat(" failed: ", OneLine(run->output))
                                       : " did not answer"),
        "repair the NVIDIA driver, or give --cpu-slots N to use none of the GPUs");
  }
  return ParseGpuList(run->output);
}

absl::StatusOr<std::vector<v1::Slot>> SelectGpus(std::vector<v1::Slot> gpus,
                                                 absl::string_view selection) {
  if (selection == "all") return gpus;
  std::vector<v1::Slot> out;
  std::set<int> seen;
  for (absl::string_view part : absl::StrSplit(selection, ',')) {
    int index;
    if (!absl::SimpleAtoi(part, &index) || !seen.insert(index).second) {
      return MakeFieldError({"gpus", "'all' or indices as 0,1", std::string(selection)});
    }
    const auto it = std::find_if(gpus.begin(), gpus.end(),
                                 [&](const v1::Slot& s) { return s.index() == index; });
    if (it == gpus.end()) {
      return MakeFieldError(
          {"gpus", absl::StrCat("one of this host's ", gpus.size(), " GPUs"), std::string(part)});
    }
    out.push_back(*it);
  }
  return out;
}

std::vector<v1::Slot> CpuSlots(int count, int64_t slot_bytes) {
  std::vector<v1::Slot> out(count);
  for (int i = 0; i < count; ++i) {
    out[i].set_index(i);
    out[i].set_kind("cpu");
    out[i].set_memory_bytes(slot_bytes > 0 ? slot_bytes : HostMemoryBytes() / count);
  }
  return out;
}

}  // namespace ll
