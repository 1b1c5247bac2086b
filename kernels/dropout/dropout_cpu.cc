#include "kernels/dropout/dropout.h"

#include "kernels/common/simd.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace ll::LL_SIMD {
namespace {

typedef uint64_t L __attribute__((vector_size(64)));

// The 64-bit products of the even 32-bit lanes of `a` with a factor. Written out because the
// compiler takes 64-bit multiplications, three times as slow, for the vector expression.
inline L MultiplyEven(L a, uint32_t factor) {
#if defined(__AVX512F__)
  return (L)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(factor));
#elif defined(__AVX2__)
  __m256i half[2];
  std::memcpy(half, &a, sizeof a);
  for (__m256i& h : half) h = _mm256_mul_epu32(h, _mm256_set1_epi64x(factor));
  std::memcpy(&a, half, sizeof a);
  return a;
#else
  return (a & 0xffffffffu) * factor;
#endif
}

// The 64-bit products of 16 lanes and one factor, by high and low half.
inline void MultiplyWide(U a, uint32_t factor, U& high, U& low) {
  const L mask = L{} + 0xffffffffu;
  const L even = MultiplyEven((L)a, factor), odd = MultiplyEven((L)a >> 32, factor);
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

// x where `drop` is 0, 0 where it is all ones.
inline void Keep(const float* x, U drop, float* y) {
  U v;
  std::memcpy(&v, x, sizeof v);
  v &= ~drop;
  std::memcpy(y, &v, sizeof v);
}
inline void Keep(const BFloat16* x, U drop, BFloat16* y) {
  H v;
  std::memcpy(&v, x, sizeof v);
  v &= __builtin_convertvector(~drop, H);
  std::memcpy(y, &v, sizeof v);
}

template <typename T>
void Rows(const DropoutParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(p.x) + row * p.width;
    T* y = static_cast<T*>(p.y) + row * p.width;
    const auto number = static_cast<uint32_t>(p.first_row + row);
    for (int64_t first = 0; first < p.width; first += 8 * kLanes) {
      const Words random = Philox(p.key, static_cast<uint32_t>(first / 8), number, p.stream);
      for (int v = 0; v < 8; ++v) {
        const int64_t i = first + v * kLanes, n = p.width - i;
        if (n <= 0) break;
        const U word = random.word[v / 2];
        const U drop = (U)((v % 2 == 0 ? word & 0xffffu : word >> 16) < p.threshold);
        if (n >= kLanes) {
          Keep(x + i, drop, y + i);
        } else {
          T part[kLanes];
          std::memcpy(part, x + i, static_cast<size_t>(n) * sizeof(T));
          Keep(part, drop, part);
          std::memcpy(y + i, part, static_cast<size_t>(n) * sizeof(T));
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
