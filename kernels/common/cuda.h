// What a kernel source (`<op>_cuda.cu`) includes: CUDA under nvcc, the emulation (kernels/emulate/)
// under any other compiler, and the few words on top of them that both understand. Kernel sources
// hold to these words, so that the same text runs on a GPU and, thread by thread, in the tests of a
// machine that has none.
#pragma once

#include <cstdint>

#include "kernels/common/dtype.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_runtime.h>
// Before a loop of few, known turns.
#define LL_UNROLL _Pragma("unroll")
// T name[count], one for the block; its content is undefined at first.
#define LL_SHARED(T, name, count) __shared__ T name[count]
// T* name: the dynamic shared memory of the launch, of which a kernel has one at most.
#define LL_DYNAMIC_SHARED(T, name)                                   \
  extern __shared__ __align__(16) unsigned char dynamic_shared_ll[]; \
  T* name = reinterpret_cast<T*>(dynamic_shared_ll)
// Enqueues kernel(...) on `stream` (a cudaStream_t as void*) with `bytes` of dynamic shared memory.
// A template's name stands in parentheses.
#define LL_LAUNCH(kernel, grid, block, bytes, stream, ...) \
  (kernel)<<<grid, block, bytes, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#else
#include "kernels/emulate/cuda_emulation.h"
#define LL_UNROLL
#endif

namespace ll::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline float ToFloat(float x) { return x; }
__device__ inline float ToFloat(BFloat16 x) {
  union {
    uint32_t bits;
    float value;
  } u{static_cast<uint32_t>(x.bits) << 16};
  return u.value;
}

// Rounds to nearest even.
__device__ inline void FromFloat(float x, float& out) { out = x; }
__device__ inline void FromFloat(float x, BFloat16& out) {
#if defined(__CUDA_ARCH__)
  out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
#else
  union {
    float value;
    uint32_t bits;
  } u{x};
  out.bits =
      x != x ? 0x7fc0 : static_cast<uint16_t>((u.bits + 0x7fffu + ((u.bits >> 16) & 1u)) >> 16);
#endif
}

// Elements of T in the widest access, 16 bytes.
template <typename T>
constexpr int kWidest = 16 / static_cast<int>(sizeof(T));

// kCount elements at p as floats: one or more whole accesses of 16 bytes (p aligned to that), or a
// single element where kCount is 1.
template <int kCount, typename T>
__device__ inline void Load(const T* p, float (&v)[kCount]) {
  if constexpr (kCount == 1) {
    v[0] = ToFloat(*p);
  } else {
    constexpr int kAccess = kCount < kWidest<T> ? kCount : kWidest<T>;
    static_assert(kCount % kAccess == 0 && kAccess * sizeof(T) >= 8, "whole accesses");
    LL_UNROLL
    for (int first = 0; first < kCount; first += kAccess) {
      union {
        T element[kAccess];
        uint4 whole;
        uint2 half;
      } raw;
      if constexpr (kAccess == kWidest<T>) {
        raw.whole = *reinterpret_cast<const uint4*>(p + first);
      } else {
        raw.half = *reinterpret_cast<const uint2*>(p + first);
      }
      LL_UNROLL
      for (int i = 0; i < kAccess; ++i) v[first + i] = ToFloat(raw.element[i]);
    }
  }
}

template <int kCount, typename T>
__device__ inline void Store(T* p, const float (&v)[kCount]) {
  if constexpr (kCount == 1) {
    FromFloat(v[0], *p);
  } else {
    constexpr int kAccess = kCount < kWidest<T> ? kCount : kWidest<T>;
    static_assert(kCount % kAccess == 0 && kAccess * sizeof(T) >= 8, "whole accesses");
    LL_UNROLL
    for (int first = 0; first < kCount; first += kAccess) {
      union {
        T element[kAccess];
        uint4 whole;
        uint2 half;
      } raw;
      LL_UNROLL
      for (int i = 0; i < kAccess; ++i) FromFloat(v[first + i], raw.element[i]);
      if constexpr (kAccess == kWidest<T>) {
        *reinterpret_cast<uint4*>(p + first) = raw.whole;
      } else {
        *reinterpret_cast<uint2*>(p + first) = raw.half;
      }
    }
  }
}

// The same elements, of which only the first `left` are there: whole accesses with kWide, which
// wants all of them and an aligned p, else one by one. A kernel that sums divides its elements
// among threads in one way and chooses kWide by alignment, so that its bits do not depend on it.
template <bool kWide, int kCount, typename T>
__device__ inline void LoadFirst(const T* p, int64_t left, float (&v)[kCount], float fill = 0) {
  if constexpr (kWide) {
    Load(p, v);
  } else {
    LL_UNROLL
    for (int k = 0; k < kCount; ++k) v[k] = k < left ? ToFloat(p[k]) : fill;
  }
}

template <bool kWide, int kCount, typename T>
__device__ inline void StoreFirst(T* p, int64_t left, const float (&v)[kCount]) {
  if constexpr (kWide) {
    Store(p, v);
  } else {
    LL_UNROLL
    for (int k = 0; k < kCount; ++k) {
      if (k < left) FromFloat(v[k], p[k]);
    }
  }
}

// Every lane gets the same bits: xor pairs commute.
__device__ inline float WarpSum(float v) {
  LL_UNROLL
  for (int offset = kWarp / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(kAllLanes, v, offset);
  return v;
}
__device__ inline double WarpSum(double v) {
  LL_UNROLL
  for (int offset = kWarp / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(kAllLanes, v, offset);
  return v;
}

// Sum over groups of kGroup threads that follow each other, a warp or the whole block; each thread
// gets it. `shared` [kGroup / 32] is free again when this returns.
template <int kGroup, typename V>
__device__ inline V GroupSum(V v, V* shared) {
  v = WarpSum(v);
  if constexpr (kGroup > kWarp) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    if (threadIdx.x % kWarp == 0) shared[warp] = v;
    __syncthreads();
    v = 0;
    LL_UNROLL
    for (int i = 0; i < kGroup / kWarp; ++i) v += shared[i];
    __syncthreads();
  }
  return v;
}

// Lets a kernel have `bytes` of dynamic shared memory, which beyond 48 KiB, static ones included,
// is to be asked for. More than the device has shows at the launch. Host.
template <typename... Args>
void AllowShared(void (*kernel)(Args...), size_t bytes) {
#if defined(__CUDACC__)
  if (bytes > 32 * 1024) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(bytes));
  }
#endif
}

// Whether p can be read 16 bytes at a time. Host.
inline bool Aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Blocks of `size` that cover `items`. Host.
inline unsigned Blocks(int64_t items, int64_t size) {
  return static_cast<unsigned>((items + size - 1) / size);
}

}  // namespace ll::cuda
