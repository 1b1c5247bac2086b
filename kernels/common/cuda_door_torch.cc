// Part of libll_cuda.so: its kernels, on torch's current stream, and its GPU.
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include "kernels/common/cuda_device.h"
#include "kernels/common/cuda_library.h"

namespace {

struct Memory {
  size_t free = 0, total = 0;
};
Memory MemoryNow() {
  Memory memory;
  if (cudaMemGetInfo(&memory.free, &memory.total) != cudaSuccess) return {};
  return memory;
}

// Over both of the allocator's pools. It knows of no device before the first tensor on one.
c10::CachingDeviceAllocator::DeviceStats Stats() {
  if (!c10::cuda::CUDACachingAllocator::get()->initialized()) return {};
  return c10::cuda::CUDACachingAllocator::getDeviceStats(c10::cuda::current_device());
}
constexpr size_t kAllPools = 0;  // c10::CachingAllocator::StatType::AGGREGATE

const cudaDeviceProp& Properties() {
  static const cudaDeviceProp properties = [] {
    cudaDeviceProp p{};
    cudaGetDeviceProperties(&p, 0);
    return p;
  }();
  return properties;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const ll::CudaDevice* ll_cuda_device() {
  static const ll::CudaDevice device = {
      .count = []() -> int { return c10::cuda::device_count(); },
      .name = []() -> const char* { return Properties().name; },
      .compute_capability = []() -> int { return 10 * Properties().major + Properties().minor; },
      .free_bytes = []() { return static_cast<int64_t>(MemoryNow().free); },
      .total_bytes = []() { return static_cast<int64_t>(MemoryNow().total); },
      .peak_reserved_bytes = []() { return Stats().reserved_bytes[kAllPools].peak; },
      .peak_allocated_bytes = []() { return Stats().allocated_bytes[kAllPools].peak; },
      .synchronize = []() { c10::cuda::device_synchronize(); }};
  return &device;
}

extern "C" __attribute__((visibility("default"))) const ll::CudaKernels* ll_cuda_kernels() {
  static const ll::CudaKernels kernels = [] {
    ll::CudaKernels made = ll::MakeCudaKernels();
    made.current_stream = []() -> void* { return c10::cuda::getCurrentCUDAStream().stream(); };
    made.error_text = [](int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); };
    made.multiplies_fp8 = [] { return 10 * Properties().major + Properties().minor >= 89; };
    return made;
  }();
  return &kernels;
}
