// CUDA's execution model on the host, for testing kernel sources where there is no GPU: the blocks
// of a launch run one after the other, the threads of a block are fibres that meet at
// __syncthreads, shuffles and votes. What a GPU leaves undefined ends the program with a sentence:
// a barrier that not all threads reach or that they reach in different lines, a shuffle whose lanes
// are not all there, a block that is no multiple of a warp. Shared memory is filled with NaN
// patterns before each block. Order decides which thread runs first wherever a GPU does not say: a
// kernel whose result depends on it has a race.
//
// Included by kernels/common/cuda.h in place of CUDA's headers. Not thread-safe: one launch at a
// time. It says nothing about speed.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __constant__ static const
#define LL_SHARED(T, name, count)    \
  static const char name##_site = 0; \
  T* const name = static_cast<T*>(::ll::emulate::SharedMemory(&name##_site, (count) * sizeof(T)))
#define LL_DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(::ll::emulate::DynamicSharedMemory())
#define LL_LAUNCH(kernel, grid, block, bytes, stream, ...) \
  ::ll::emulate::Launch(grid, block, bytes, [&] { (kernel)(__VA_ARGS__); })
#define __syncthreads() ::ll::emulate::SyncBlock(__FILE__, __LINE__)
#define __syncwarp() ::ll::emulate::SyncWarp(0xffffffffu)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

// Of the thread that runs now.
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

inline int cudaGetLastError() { return 0; }

namespace ll::emulate {

enum class Order { kForward, kReverse, kShuffled };
// Holds until it is set again; `seed` for kShuffled.
void SetOrder(Order order, uint64_t seed = 0);

// Runs body() once for each thread of each block.
void Launch(dim3 grid, dim3 block, size_t dynamic_shared_bytes, const std::function<void()>& body);

// What kernels call, through the words above.
void* SharedMemory(const void* site, size_t bytes);
void* DynamicSharedMemory();
void SyncBlock(const char* file, int line);
void SyncWarp(unsigned mask);
// Hands in this lane's value and returns all 32 of the warp's.
const uint64_t* Exchange(unsigned mask, uint64_t value);
int Lane();

template <typename T>
uint64_t ToBits(T value) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <typename T>
T FromBits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace ll::emulate

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int offset) {
  const uint64_t* all = ll::emulate::Exchange(mask, ll::emulate::ToBits(value));
  return ll::emulate::FromBits<T>(all[ll::emulate::Lane() ^ offset]);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int lane) {
  return ll::emulate::FromBits<T>(ll::emulate::Exchange(mask, ll::emulate::ToBits(value))[lane]);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint64_t* all = ll::emulate::Exchange(mask, predicate != 0);
  unsigned votes = 0;
  for (int lane = 0; lane < 32; ++lane) votes |= static_cast<unsigned>(all[lane]) << lane;
  return votes;
}

inline uint32_t __umulhi(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32);
}
// Compiled without contraction, so these round as CUDA's do.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
template <typename T>
T __ldg(const T* p) {
  return *p;
}
