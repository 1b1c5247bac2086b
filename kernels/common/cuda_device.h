// What the host needs to know of the GPU it was given, through libll_cuda.so.
#pragma once

#include <cstdint>

namespace ll {

// Of the first GPU that this process sees. Memory in bytes.
struct CudaDevice {
  int (*count)();  // GPUs this process sees; 0 where the driver is missing
  // The name as the driver has it, "NVIDIA H100 80GB HBM3"; static storage.
  const char* (*name)();
  int (*compute_capability)();  // 10 major + minor: 90 of an H100
  int64_t (*free_bytes)();
  int64_t (*total_bytes)();
  // The most that torch's allocator has reserved since the start, which is what admission counts,
  // and the most that tensors took of it.
  int64_t (*peak_reserved_bytes)();
  int64_t (*peak_allocated_bytes)();
  void (*synchronize)();
};

// Exported by libll_cuda.so: `const CudaDevice* ll_cuda_device()`.
inline constexpr char kCudaDeviceSymbol[] = "ll_cuda_device";

}  // namespace ll
