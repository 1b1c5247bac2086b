// Every product and sum is rounded by itself (__fmul_rn, __fadd_rn), as in nf4_cpu.cc, so that the
// host's and the device's bytes are equal.
#include <cuda_bf16.h>

#include "kernels/nf4/nf4_cuda.h"

namespace ll {
namespace {

constexpr int kThreads = 256;
// A thread of the dequantiser expands 4 bytes of codes: 8 elements.
constexpr int kBytesAThread = 4;
constexpr int kThreadsABlock = kNf4Block / 2 / kBytesAThread;

__constant__ float kCodes[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

__device__ float Load(const float* p) { return *p; }
__device__ float Load(const __nv_bfloat16* p) { return __bfloat162float(*p); }

// Nearest code: how many midpoints between codes lie below `v`.
__device__ unsigned Nearest(float v) {
  unsigned index = 0;
#pragma unroll
  for (int c = 1; c < 16; ++c)
    index += v > __fmul_rn(__fadd_rn(kCodes[c - 1], kCodes[c]), 0.5f) ? 1u : 0u;
  return index;
}

// One warp a block of 64: a lane has the two elements of one byte.
template <typename T>
__global__ void QuantizeKernel(const T* x, uint8_t* codes, float* absmax, int64_t blocks) {
  const int64_t block = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 32;
  const int lane = threadIdx.x % 32;
  if (block >= blocks) return;  // whole warps: 32 divides kThreads
  const int64_t first = block * kNf4Block + 2 * lane;
  const float a = Load(x + first), b = Load(x + first + 1);
  float largest = fmaxf(fabsf(a), fabsf(b));
  for (int offset = 16; offset > 0; offset /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
  if (lane == 0) absmax[block] = largest;
  const float inverse = __fdiv_rn(1.0f, fmaxf(largest, kNf4SmallestAbsmax));
  const unsigned high = Nearest(fminf(fmaxf(__fmul_rn(a, inverse), -1.0f), 1.0f));
  const unsigned low = Nearest(fminf(fmaxf(__fmul_rn(b, inverse), -1.0f), 1.0f));
  codes[block * (kNf4Block / 2) + lane] = static_cast<uint8_t>(high << 4 | low);
}

__device__ void Store8(float* y, const float (&v)[8]) {
  reinterpret_cast<float4*>(y)[0] = make_float4(v[0], v[1], v[2], v[3]);
  reinterpret_cast<float4*>(y)[1] = make_float4(v[4], v[5], v[6], v[7]);
}
__device__ void Store8(__nv_bfloat16* y, const float (&v)[8]) {
  union {
    __nv_bfloat16 halves[8];
    uint4 whole;
  } out;
#pragma unroll
  for (int i = 0; i < 8; ++i) out.halves[i] = __float2bfloat16_rn(v[i]);
  *reinterpret_cast<uint4*>(y) = out.whole;
}

// Bound by memory: 0.5 bytes in and 2 (bf16) out an element, all accesses coalesced. The codes'
// table lies in shared memory, where 32 lanes reading 16 entries meet few bank conflicts; constant
// memory would serve one entry at a time.
template <typename T>
__global__ void DequantizeKernel(const uint8_t* codes, const uint8_t* absmax_codes,
                                 const float* nested_absmax, const float* nested_map, float offset,
                                 T* y, int64_t blocks) {
  __shared__ float table[16];
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
#pragma unroll
  for (int i = 0; i < kBytesAThread; ++i) {
    const uint32_t byte = bytes >> (8 * i) & 0xff;
    v[2 * i] = __fmul_rn(table[byte >> 4], absmax);
    v[2 * i + 1] = __fmul_rn(table[byte & 15], absmax);
  }
  Store8(y + thread * 8, v);
}

unsigned Grid(int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

}  // namespace

cudaError_t Nf4QuantizeCuda(const Nf4QuantizeParams& p, int64_t blocks, cudaStream_t stream) {
  if (blocks == 0) return cudaSuccess;
  const unsigned grid = Grid(blocks * 32);
  if (p.dtype == DType::kFloat32) {
    QuantizeKernel<<<grid, kThreads, 0, stream>>>(static_cast<const float*>(p.x), p.codes, p.absmax,
                                                  blocks);
  } else {
    QuantizeKernel<<<grid, kThreads, 0, stream>>>(static_cast<const __nv_bfloat16*>(p.x), p.codes,
                                                  p.absmax, blocks);
  }
  return cudaGetLastError();
}

cudaError_t Nf4DequantizeCuda(const Nf4DequantizeParams& p, int64_t blocks, cudaStream_t stream) {
  if (blocks == 0) return cudaSuccess;
  const unsigned grid = Grid(blocks * kThreadsABlock);
  if (p.dtype == DType::kFloat32) {
    DequantizeKernel<<<grid, kThreads, 0, stream>>>(p.codes, p.absmax_codes, p.nested_absmax,
                                                    p.nested_map, p.offset,
                                                    static_cast<float*>(p.y), blocks);
  } else {
    DequantizeKernel<<<grid, kThreads, 0, stream>>>(p.codes, p.absmax_codes, p.nested_absmax,
                                                    p.nested_map, p.offset,
                                                    static_cast<__nv_bfloat16*>(p.y), blocks);
  }
  return cudaGetLastError();
}

}  // namespace ll
