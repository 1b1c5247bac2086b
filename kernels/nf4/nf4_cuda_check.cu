// nf4_cuda_check: the GPU's NF4 against the host's, byte for byte, and its bandwidth. For a machine
// with a GPU; exits with 0 when all bytes are equal, 1 when not, 2 without a GPU.
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include <cuda_runtime.h>

#include "kernels/nf4/nf4.h"

namespace ll {
namespace {

template <typename T>
struct DeviceArray {
  explicit DeviceArray(size_t n) : size(n) { cudaMalloc(&data, n * sizeof(T)); }
  explicit DeviceArray(const std::vector<T>& host) : DeviceArray(host.size()) {
    cudaMemcpy(data, host.data(), size * sizeof(T), cudaMemcpyHostToDevice);
  }
  ~DeviceArray() { cudaFree(data); }
  std::vector<T> Host() const {
    std::vector<T> out(size);
    cudaMemcpy(out.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost);
    return out;
  }
  T* data = nullptr;
  size_t size;
};

// Arbitrary but valid nested absmax; the map is any 256 rising values.
struct Nested {
  std::vector<uint8_t> codes;
  std::vector<float> absmax, map;
};

template <typename T>
int Check(DType dtype, int64_t blocks, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<T> x(blocks * kNf4Block);
  for (T& value : x) {
    const float v = normal(generator);
    std::memcpy(&value, reinterpret_cast<const char*>(&v) + (sizeof v - sizeof value),
                sizeof value);
  }
  Nested nested;
  for (int i = 0; i < 256; ++i) nested.map.push_back(static_cast<float>(i - 128) / 128);
  for (int64_t b = 0; b < blocks; ++b) nested.codes.push_back(static_cast<uint8_t>(generator()));
  nested.absmax.resize((blocks + kNf4NestedBlock - 1) / kNf4NestedBlock, 0.37f);

  std::vector<uint8_t> codes(blocks * kNf4Block / 2);
  std::vector<float> absmax(blocks);
  std::vector<T> y(x.size());
  Nf4Quantize({x.data(), codes.data(), absmax.data(), dtype}, 0, blocks);
  Nf4Dequantize({codes.data(), nested.codes.data(), nested.absmax.data(), nested.map.data(), 0.71f,
                 y.data(), dtype},
                0, blocks);

  DeviceArray<T> dx(x), dy(x.size());
  DeviceArray<uint8_t> dcodes(codes.size()), dnested_codes(nested.codes);
  DeviceArray<float> dabsmax(absmax.size()), dnested_absmax(nested.absmax), dmap(nested.map);
  const Nf4QuantizeParams quantize{dx.data, dcodes.data, dabsmax.data, dtype};
  const Nf4DequantizeParams dequantize{
      dcodes.data, dnested_codes.data, dnested_absmax.data, dmap.data, 0.71f, dy.data, dtype};
  if (Nf4QuantizeCuda(quantize, blocks, nullptr) != cudaSuccess ||
      Nf4DequantizeCuda(dequantize, blocks, nullptr) != cudaSuccess ||
      cudaDeviceSynchronize() != cudaSuccess) {
    std::printf("FAIL %s\n", cudaGetErrorString(cudaGetLastError()));
    return 1;
  }
  const std::vector<T> got = dy.Host();
  const bool equal = dcodes.Host() == codes && dabsmax.Host() == absmax &&
                     std::memcmp(got.data(), y.data(), y.size() * sizeof(T)) == 0;

  cudaEvent_t start, stop;
  cudaEventCreate(&start);
  cudaEventCreate(&stop);
  cudaEventRecord(start);
  constexpr int kRepeats = 20;
  for (int i = 0; i < kRepeats; ++i) Nf4DequantizeCuda(dequantize, blocks, nullptr);
  cudaEventRecord(stop);
  cudaEventSynchronize(stop);
  float milliseconds = 0;
  cudaEventElapsedTime(&milliseconds, start, stop);
  const double bytes = static_cast<double>(x.size()) * (0.5 + 1.0 / kNf4Block + sizeof(T));
  std::printf("%s %s, %lld blocks, seed %u: dequantises at %.0f GB/s\n", equal ? "ok  " : "FAIL",
              dtype == DType::kFloat32 ? "fp32" : "bf16", static_cast<long long>(blocks), seed,
              bytes * kRepeats / milliseconds / 1e6);
  return equal ? 0 : 1;
}

}  // namespace
}  // namespace ll

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("nf4_cuda_check: no GPU here\n");
    return 2;
  }
  const unsigned seed = std::random_device()();
  int failed = 0;
  for (int64_t blocks : {1, 3, 257, 1 << 20}) {
    failed += ll::Check<float>(ll::DType::kFloat32, blocks, seed);
    failed += ll::Check<ll::BFloat16>(ll::DType::kBFloat16, blocks, seed);
  }
  std::printf("%d failed\n", failed);
  return failed == 0 ? 0 : 1;
}
