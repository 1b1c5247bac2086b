#include "kernels/dropout/dropout.h"

#include "kernels/common/simd.h"

namespace ll::LL_SIMD {
namespace {

struct Words {
  uint32_t w[4];
};

inline Words Philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  Words c{{c0, c1, c2, 0}};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = static_cast<uint64_t>(0xD2511F53u) * c.w[0],
                   b = static_cast<uint64_t>(0xCD9E8D57u) * c.w[2];
    c = {{static_cast<uint32_t>(b >> 32) ^ c.w[1] ^ k0, static_cast<uint32_t>(b),
          static_cast<uint32_t>(a >> 32) ^ c.w[3] ^ k1, static_cast<uint32_t>(a)}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

template <typename T>
void Rows(const DropoutParams& p, int64_t begin, int64_t end) {
  const float keep = 1.0f / (1.0f - p.p);
  const uint32_t threshold = static_cast<uint32_t>(static_cast<double>(p.p) * 4294967296.0);
  for (int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(p.x) + row * p.width;
    T* y = static_cast<T*>(p.y) + row * p.width;
    for (int64_t i = 0; i < p.width; i += kLanes) {
      const int64_t n = p.width - i < kLanes ? p.width - i : kLanes;
      F scale;
      for (int lane = 0; lane < kLanes; lane += 4) {
        const Words r = Philox(p.key, static_cast<uint32_t>((i + lane) / 4),
                               static_cast<uint32_t>(row), p.stream);
        for (int k = 0; k < 4; ++k) scale[lane + k] = r.w[k] < threshold ? 0.0f : keep;
      }
      StorePart(y + i, LoadPart(x + i, n) * scale, n);
    }
  }
}

}  // namespace

void Dropout(const DropoutParams& p, int64_t begin, int64_t end) {
  p.dtype == DType::kFloat32 ? Rows<float>(p, begin, end) : Rows<BFloat16>(p, begin, end);
}

}  // namespace ll::LL_SIMD
