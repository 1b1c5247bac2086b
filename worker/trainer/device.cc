#include "worker/trainer/device.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "kernels/common/cuda_device.h"
#include "kernels/common/cuda_library.h"
#include "model/attention_cuda.h"

namespace ll {
namespace {

const CudaDevice* gpu = nullptr;  // null: the CPU
std::string attention;
// What libll_cuda.so is compiled for at least (cmake/LlTorch.cmake): 10 major + minor.
constexpr int kLeastComputeCapability = 80;

// Without asking CUDA's libraries, which a host without GPUs should not even load: the driver's
// device file, and an environment that does not hide it.
bool GpuIsShown() {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible != nullptr && (*visible == '\0' || *visible == '-')) return false;
  return FileExists("/dev/nvidiactl");
}

// CUDA's libraries come with a release, the driver does not: it belongs to the host.
bool DriverIsInstalled() {
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (driver != nullptr) dlclose(driver);
  return driver != nullptr;
}

std::string ProgramFolder() {
  std::error_code none;
  return std::filesystem::read_symlink("/proc/self/exe", none).parent_path().string();
}

// What tests/gpu/smoke.sh measured of LibTorch's attention on GPUs of this name: of the file that
// LL_ATTENTION_TABLE names, or of the one that comes with this program; none where it is not in
// there. Errors: a file that was named and cannot be read.
absl::StatusOr<std::optional<AttentionTable>> MeasuredAttention(const std::string& gpu_name) {
  const char* named = std::getenv("LL_ATTENTION_TABLE");
  const std::string path =
      named != nullptr ? named : ProgramFolder() + "/../share/ll/entrypoints.jsonl";
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok() && named == nullptr) return std::nullopt;
  absl::StatusOr<AttentionTable> table =
      text.ok() ? AttentionTable::Parse(*text, gpu_name) : text.status();
  if (table.ok()) return std::optional<AttentionTable>(*std::move(table));
  if (absl::IsNotFound(table.status()) && text.ok()) return std::nullopt;
  return FieldStatus(absl::StatusCode::kFailedPrecondition, "LL_ATTENTION_TABLE",
                     absl::StrCat(path, ": ", table.status().message()),
                     "tests/gpu/smoke.sh --speed writes it");
}

absl::Status OpenGpu(bool deterministic) {
  // They are read when CUDA and NCCL start. cuBLAS sums in an order of its own unless its workspace
  // is fixed; segments that grow keep the allocator's gaps small.
  if (deterministic) setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  if (std::getenv("PYTORCH_ALLOC_CONF") == nullptr)
    setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True", /*overwrite=*/0);
  // A device's error is the main thread's to tell; torch's thread that looks after NCCL would meet
  // it first and abort. It need not ask rank 0's store each second, nor wait before it ends, for a
  // dump of a flight recorder that is off (comm_gloo.cc). Operations of several groups are under
  // way at a time: they start in the order in which the program enqueues them, which is the same on
  // all ranks.
  setenv("TORCH_NCCL_RETHROW_CUDA_ERRORS", "0", /*overwrite=*/0);
  setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "0", /*overwrite=*/0);
  setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", /*overwrite=*/0);
  LL_ASSIGN_OR_RETURN(void* symbol, CudaSymbol(kCudaDeviceSymbol));
  const CudaDevice* device = reinterpret_cast<const CudaDevice* (*)()>(symbol)();
  if (device->count() < 1) {
    return absl::FailedPreconditionError(
        DriverIsInstalled() ? "the driver shows this process no GPU; look with nvidia-smi"
                            : "NVIDIA's driver is missing (libcuda.so.1); install release 580 or "
                              "later, in a container by NVIDIA's container toolkit");
  }
  if (device->compute_capability() < kLeastComputeCapability) {
    return absl::FailedPreconditionError(absl::StrCat(
        device->name(), " has compute capability ", device->compute_capability() / 10, ".",
        device->compute_capability() % 10, ", and the kernels need ", kLeastComputeCapability / 10,
        ".", kLeastComputeCapability % 10, " (A100) or later"));
  }
  gpu = device;
  at::globalContext().setDeterministicAlgorithms(deterministic, /*warn_only=*/true);
  // That would fill every buffer before it is written.
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  LL_ASSIGN_OR_RETURN(auto table, MeasuredAttention(device->name()));
  attention = UseAttentionTable(std::move(table), device->compute_capability() / 10);
  return absl::OkStatus();
}

// Value in bytes of a "Name:   123 kB" line; -1 where there is none.
int64_t ProcKilobytes(const char* path, const std::string& name) {
  std::ifstream file(path);
  std::string key;
  int64_t kilobytes = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(name, 0) == 0 &&
        absl::SimpleAtoi(line.substr(name.size(), line.find("kB") - name.size()), &kilobytes)) {
      return kilobytes * 1024;
    }
  }
  return -1;
}

}  // namespace

absl::Status UseDevice(absl::string_view wanted, bool deterministic) {
  gpu = nullptr;
  if (wanted == "cuda" || (wanted == "auto" && GpuIsShown())) {
    const absl::Status opened = OpenGpu(deterministic);
    if (!opened.ok()) {
      return FieldStatus(absl::StatusCode::kFailedPrecondition, "--device",
                         absl::StrCat("a GPU cannot be used: ", opened.message()),
                         "or compute without one: --device cpu");
    }
  }
  return absl::OkStatus();
}

at::Device ProcessDevice() {
  return gpu == nullptr ? at::Device(at::kCPU) : at::Device(at::kCUDA, 0);
}

std::string ProcessDeviceName() { return gpu == nullptr ? "cpu" : gpu->name(); }

const std::string& ProcessAttention() { return attention; }

void WaitForDevice() {
  if (gpu != nullptr) gpu->synchronize();
}

int64_t AvailableMemoryBytes() {
  if (gpu != nullptr) return gpu->free_bytes();
  int64_t available = ProcKilobytes("/proc/meminfo", "MemAvailable:");
  if (available < 0) available = std::numeric_limits<int64_t>::max();
  const auto limit = ReadFile("/sys/fs/cgroup/memory.max"),
             current = ReadFile("/sys/fs/cgroup/memory.current");
  int64_t limit_bytes = 0, current_bytes = 0;
  if (limit.ok() && current.ok() && absl::SimpleAtoi(*limit, &limit_bytes) &&
      absl::SimpleAtoi(*current, &current_bytes)) {
    available = std::min(available, limit_bytes - current_bytes);
  }
  return available;
}

int64_t GpuMemoryBytes() { return gpu == nullptr ? 0 : gpu->total_bytes(); }

int64_t PeakMemoryBytes() {
  return gpu == nullptr ? ProcKilobytes("/proc/self/status", "VmHWM:") : gpu->peak_reserved_bytes();
}

}  // namespace ll
