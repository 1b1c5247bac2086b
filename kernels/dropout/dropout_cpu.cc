#include "kernels/dropout/dropout.h"

#include "kernels/common/simd.h"

namespace ll::LL_SIMD {
namespace {

typedef uint64_t L __attribute__((vector_size(64)));

// The 64-bit products of 16 lanes and one factor, by even and odd lanes.
inline void MultiplyWide(U a, uint32_t factor, U& high, U& low) {
  const L mask = L{} + 0xffffffffu;
  const L even = ((L)a & mask) * factor, odd = ((L)a >> 32) * factor;
  high = (U)((even >> 32) | (odd & ~mask));
  low = (U)((even & mask) | (odd << 32));
}

// Philox4x32-10 of 16 counters that follow each other: word[k][lane].
struct Words {
  U word[4];
};

inline Words Philox(uint64_t key, uint32_t first_counter, uint32_t c1, uint32_t c2) {
  const U lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  Words c{{lanes + first_counter, U{} + c1, U{} + c2, U{}}};
  for (int round = 0; round < 10; ++round) {
    U a_high, a_low, b_high, b_low;
    MultiplyWide(c.word[0], 0xD2511F53u, a_high, a_low);
    MultiplyWide(c.word[2], 0xCD9E8D57u, b_high, b_low);
    c = {{b_high ^ c.word[1] ^ k0, b_low, a_high ^ c.word[3] ^ k1, a_low}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

// Element 4 * lane + k has word k of the lane's counter: four vectors of 16 elements in order.
inline void InOrder(const Words& c, U (&out)[4]) {
  const I low = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
  const I high = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const U even_low = __builtin_shuffle(c.word[0], c.word[2], low),
          even_high = __builtin_shuffle(c.word[0], c.word[2], high),
          odd_low = __builtin_shuffle(c.word[1], c.word[3], low),
          odd_high = __builtin_shuffle(c.word[1], c.word[3], high);
  out[0] = __builtin_shuffle(even_low, odd_low, low);
  out[1] = __builtin_shuffle(even_low, odd_low, high);
  out[2] = __builtin_shuffle(even_high, odd_high, low);
  out[3] = __builtin_shuffle(even_high, odd_high, high);
}

template <typename T>
void Rows(const DropoutParams& p, int64_t begin, int64_t end) {
  const F keep = Splat(1.0f / (1.0f - p.p));
  const uint32_t threshold = static_cast<uint32_t>(static_cast<double>(p.p) * 4294967296.0);
  for (int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(p.x) + row * p.width;
    T* y = static_cast<T*>(p.y) + row * p.width;
    for (int64_t first = 0; first < p.width; first += 4 * kLanes) {
      U random[4];
      InOrder(Philox(p.key, static_cast<uint32_t>(first / 4), static_cast<uint32_t>(row), p.stream),
              random);
      for (int64_t v = 0; v < 4; ++v) {
        const int64_t i = first + v * kLanes, n = p.width - i;
        if (n <= 0) break;
        const F scale = random[v] < threshold ? F{} : keep;
        if (n >= kLanes) {
          Store(y + i, Load(x + i) * scale);
        } else {
          StorePart(y + i, LoadPart(x + i, n) * scale, n);
        }
      }
    }
  }
}

}  // namespace

void Dropout(const DropoutParams& p, int64_t begin, int64_t end) {
  p.dtype == DType::kFloat32 ? Rows<float>(p, begin, end) : Rows<BFloat16>(p, begin, end);
}

}  // namespace ll::LL_SIMD
