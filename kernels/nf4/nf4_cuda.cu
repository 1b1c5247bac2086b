// Every product and sum is rounded by itself (__fmul_rn, __fadd_rn), as in nf4_cpu.cc, so that the
// host's and the device's bytes are equal.
#include "kernels/common/cuda.h"
#include "kernels/nf4/nf4.h"

namespace ll {
namespace {

constexpr int kThreads = 256;
// A thread of the dequantiser expands 4 bytes of codes: 8 elements.
constexpr int kBytesAThread = 4;
constexpr int kThreadsABlock = kNf4Block / 2 / kBytesAThread;

// The device cannot index the header's constexpr array.
__constant__ float kCodes[16] = {kNf4Codes[0],  kNf4Codes[1],  kNf4Codes[2],  kNf4Codes[3],
                                 kNf4Codes[4],  kNf4Codes[5],  kNf4Codes[6],  kNf4Codes[7],
                                 kNf4Codes[8],  kNf4Codes[9],  kNf4Codes[10], kNf4Codes[11],
                                 kNf4Codes[12], kNf4Codes[13], kNf4Codes[14], kNf4Codes[15]};

// Nearest code: how many midpoints between codes lie below `v`.
__device__ unsigned Nearest(float v) {
  unsigned index = 0;
  LL_UNROLL
  for (int c = 1; c < 16; ++c)
    index += v > __fmul_rn(__fadd_rn(kCodes[c - 1], kCodes[c]), 0.5f) ? 1u : 0u;
  return index;
}

// One warp a block of 64: a lane has the two elements of one byte.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    QuantizeKernel(const T* x, uint8_t* codes, float* absmax, int64_t blocks) {
  const int64_t block = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (block >= blocks) return;  // whole warps: 32 divides kThreads
  const int64_t first = block * kNf4Block + 2 * lane;
  const float a = cuda::ToFloat(x[first]), b = cuda::ToFloat(x[first + 1]);
  float largest = fmaxf(fabsf(a), fabsf(b));
  for (int offset = 16; offset > 0; offset /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
  if (lane == 0) absmax[block] = largest;
  const float inverse = __fdiv_rn(1.0f, fmaxf(largest, kNf4SmallestAbsmax));
  const unsigned high = Nearest(fminf(fmaxf(__fmul_rn(a, inverse), -1.0f), 1.0f));
  const unsigned low = Nearest(fminf(fmaxf(__fmul_rn(b, inverse), -1.0f), 1.0f));
  codes[block * (kNf4Block / 2) + lane] = static_cast<uint8_t>(high << 4 | low);
}

// Bound by memory: 0.5 bytes in and 2 (bf16) out an element, all accesses coalesced. The codes'
// table lies in shared memory, where 32 lanes reading 16 entries meet few bank conflicts; constant
// memory would serve one entry at a time.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    DequantizeKernel(const uint8_t* codes, const uint8_t* absmax_codes, const float* nested_absmax,
                     const float* nested_map, float offset, T* y, int64_t blocks) {
  LL_SHARED(float, table, 16);
  if (threadIdx.x < 16) table[threadIdx.x] = kCodes[threadIdx.x];
  __syncthreads();
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t block = thread / kThreadsABlock;
  if (block >= blocks) return;
  const float centred =
      __fmul_rn(__ldg(nested_map + absmax_codes[block]), nested_absmax[block / kNf4NestedBlock]);
  const float absmax = __fadd_rn(centred, offset);
  const uint32_t bytes = reinterpret_cast<const uint32_t*>(codes)[thread];
  float v[8];
  LL_UNROLL
  for (int i = 0; i < kBytesAThread; ++i) {
    const uint32_t byte = bytes >> (8 * i) & 0xff;
    v[2 * i] = __fmul_rn(table[byte >> 4], absmax);
    v[2 * i + 1] = __fmul_rn(table[byte & 15], absmax);
  }
  cuda::Store(y + thread * 8, v);
}

template <typename T>
void Quantize(const Nf4QuantizeParams& p, int64_t blocks, void* stream) {
  LL_LAUNCH(QuantizeKernel<T>, cuda::Blocks(blocks * 32, kThreads), kThreads, 0, stream,
            static_cast<const T*>(p.x), p.codes, p.absmax, blocks);
}

template <typename T>
void Dequantize(const Nf4DequantizeParams& p, int64_t blocks, void* stream) {
  LL_LAUNCH(DequantizeKernel<T>, cuda::Blocks(blocks * kThreadsABlock, kThreads), kThreads, 0,
            stream, p.codes, p.absmax_codes, p.nested_absmax, p.nested_map, p.offset,
            static_cast<T*>(p.y), blocks);
}

}  // namespace

// x, codes and y are aligned to 16 bytes, as an allocator's memory is.
int Nf4QuantizeCuda(const Nf4QuantizeParams& p, int64_t blocks, void* stream) {
  if (blocks == 0) return 0;
  p.dtype == DType::kFloat32 ? Quantize<float>(p, blocks, stream)
                             : Quantize<BFloat16>(p, blocks, stream);
  return cudaGetLastError();
}

int Nf4DequantizeCuda(const Nf4DequantizeParams& p, int64_t blocks, void* stream) {
  if (blocks == 0) return 0;
  p.dtype == DType::kFloat32 ? Dequantize<float>(p, blocks, stream)
                             : Dequantize<BFloat16>(p, blocks, stream);
  return cudaGetLastError();
}

}  // namespace ll
