// Picks the instruction set for kernels compiled several times (common/simd.h).
//
// LL_SIMD_KERNEL(Name, Params) declares Name(params, begin, end), which works on items [begin, end)
// serially: the caller divides the work among threads, with a division that does not depend on
// their number.
#pragma once

#include <cstdint>

namespace ll {

enum class Isa { kGeneric, kAvx2, kAvx512 };

// The best instruction set of this CPU. LL_CPU_ISA=generic|avx2 in the environment lowers it
// (tests, comparisons).
Isa CpuIsa();

// True where AMX bf16 tiles can be used: the CPU has them, and the kernel granted this process
// their state.
bool CpuHasAmx();

}  // namespace ll

#define LL_SIMD_KERNEL(Name, Params)                              \
  namespace simd_generic {                                        \
  void Name(const Params& p, int64_t begin, int64_t end);         \
  }                                                               \
  namespace simd_avx2 {                                           \
  void Name(const Params& p, int64_t begin, int64_t end);         \
  }                                                               \
  namespace simd_avx512 {                                         \
  void Name(const Params& p, int64_t begin, int64_t end);         \
  }                                                               \
  inline void Name(const Params& p, int64_t begin, int64_t end) { \
    switch (CpuIsa()) {                                           \
      case Isa::kAvx512:                                          \
        return simd_avx512::Name(p, begin, end);                  \
      case Isa::kAvx2:                                            \
        return simd_avx2::Name(p, begin, end);                    \
      case Isa::kGeneric:                                         \
        return simd_generic::Name(p, begin, end);                 \
    }                                                             \
  }

// Declares NameCuda(params, items, stream), which enqueues all items on a cudaStream_t; pointers
// are device memory. Returns a cudaError_t, 0 for success. Same items as Name; defined in
// `<op>_cuda.cu`, which a GPU build puts into libll_cuda.so (common/cuda_kernels.h).
#define LL_CUDA_KERNEL(Name, Params) int Name##Cuda(const Params& p, int64_t items, void* stream);
