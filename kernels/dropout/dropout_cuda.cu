// The same masks as dropout_cpu.cc, bit for bit: thread l of a block of 128 columns has the counter
// whose eight numbers belong to columns l, l + 16, l + 32, …
#include "kernels/common/cuda.h"
#include "kernels/dropout/dropout.h"

namespace ll {
namespace {

constexpr int kThreads = 256;
constexpr int kLanes = 16, kColumns = 128;

struct Words {
  uint32_t word[4];
};

__device__ Words Philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  Words c{{c0, c1, c2, 0}};
  LL_UNROLL
  for (int round = 0; round < 10; ++round) {
    const uint32_t a_high = __umulhi(c.word[0], 0xD2511F53u), a_low = c.word[0] * 0xD2511F53u;
    const uint32_t b_high = __umulhi(c.word[2], 0xCD9E8D57u), b_low = c.word[2] * 0xCD9E8D57u;
    c = {{b_high ^ c.word[1] ^ k0, b_low, a_high ^ c.word[3] ^ k1, a_low}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

__device__ float Zero(float) { return 0; }
__device__ BFloat16 Zero(BFloat16) { return {0}; }

template <typename T>
__global__ void __launch_bounds__(kThreads) DropoutKernel(const DropoutParams p) {
  const int64_t counter = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  const int64_t first = counter / kLanes * kColumns + counter % kLanes, row = blockIdx.x;
  if (first >= p.width) return;
  const Words random = Philox(p.key, static_cast<uint32_t>(counter),
                              static_cast<uint32_t>(p.first_row + row), p.stream);
  const T* x = static_cast<const T*>(p.x) + row * p.width;
  T* y = static_cast<T*>(p.y) + row * p.width;
  LL_UNROLL
  for (int v = 0; v < 8; ++v) {
    const int64_t i = first + v * kLanes;
    if (i >= p.width) return;
    const uint32_t bits = random.word[v / 2] >> (v % 2 * 16) & 0xffffu;
    y[i] = bits < p.threshold ? Zero(T{}) : x[i];
  }
}

}  // namespace

int DropoutCuda(const DropoutParams& p, int64_t rows, void* stream) {
  if (rows == 0 || p.width == 0) return 0;
  const int64_t counters = (p.width + kColumns - 1) / kColumns * kLanes;
  const dim3 grid(static_cast<unsigned>(rows), cuda::Blocks(counters, kThreads));
  if (p.dtype == DType::kFloat32) {
    LL_LAUNCH(DropoutKernel<float>, grid, kThreads, 0, stream, p);
  } else {
    LL_LAUNCH(DropoutKernel<BFloat16>, grid, kThreads, 0, stream, p);
  }
  return cudaGetLastError();
}

}  // namespace ll
