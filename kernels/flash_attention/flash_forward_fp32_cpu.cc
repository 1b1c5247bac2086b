// Per task the queries of one KV head's query heads are cut into strips of 32; each block of keys
// and values is copied once and then met by all strips, whose online softmax and output stay in the
// cache. Everything is kept transposed, S^T = K Q^T and O^T = V^T P^T: queries lie in vector lanes,
// so maxima, sums and factors per query need no horizontal step, and keys and values are used as
// they lie, one broadcast element at a time.
#include "kernels/flash_attention/flash_forward_fp32.h"

#include <math.h>
#include <string.h>

#include "kernels/common/simd.h"
#include "kernels/common/transpose.h"

namespace ll::LL_SIMD {
namespace {

// Products keep kTile rows of two native vectors in registers: as many as there are, less the
// operands.
#if defined(__AVX512F__)
constexpr int kWidth = 16, kTile = 8;
#elif defined(__AVX2__)
constexpr int kWidth = 8, kTile = 4;
#else
constexpr int kWidth = 4, kTile = 4;
#endif
typedef float V __attribute__((vector_size(4 * kWidth)));

constexpr int64_t kStrip = kFp32Strip, kKeyBlock = kFp32KeyBlock;
constexpr float kLog2E = 1.44269504f;
constexpr int kGroups = kStrip / kLanes;  // vectors of simd.h in a strip

inline int64_t MinOf(int64_t a, int64_t b) { return a < b ? a : b; }

inline V LoadV(const float* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}

// C [kTile][kStrip] = A B, or C * factor + A B with `factor` [kStrip]; B [depth][kStrip]. Element
// (i, d) of A lies at a[i * distance + d], with kColumns at a[i + d * distance].
template <bool kColumns>
inline void Product(const float* a, int64_t distance, const float* b, int64_t depth,
                    const float* factor, float* c) {
  for (int64_t lane = 0; lane < kStrip; lane += 2 * kWidth) {
    V sum[kTile][2];
    for (int i = 0; i < kTile; ++i) {
      for (int j = 0; j < 2; ++j) {
        const int64_t at = lane + j * kWidth;
        sum[i][j] = factor == nullptr ? V{} : LoadV(c + i * kStrip + at) * LoadV(factor + at);
      }
    }
    for (int64_t d = 0; d < depth; ++d) {
      const V b0 = LoadV(b + d * kStrip + lane), b1 = LoadV(b + d * kStrip + lane + kWidth);
      for (int i = 0; i < kTile; ++i) {
        const float x = kColumns ? a[d * distance + i] : a[i * distance + d];
        sum[i][0] += x * b0;
        sum[i][1] += x * b1;
      }
    }
    for (int i = 0; i < kTile; ++i) {
      for (int j = 0; j < 2; ++j) {
        memcpy(c + i * kStrip + lane + j * kWidth, &sum[i][j], sizeof(V));
      }
    }
  }
}

// A strip in the task's scratch.
struct Strip {
  float* q;    // Q^T [D][kStrip]
  float* o;    // O^T [D][kStrip], not yet divided by the sums
  float* max;  // [kStrip] of the unscaled scores
  float* sum;  // [kStrip] of exp(scale * (score - max))
};

struct Block {
  float* k;  // [kKeyBlock][D]
  float* v;
  float* s;  // S^T, then P^T [kKeyBlock][kStrip]
};

// 2^(factor x) for x <= 0 and factor > 0, cheaper than Exp of simd.h. With n the integer nearest to
// factor x and r the rest, a polynomial of degree 6 in r with value 1 at 0 (relative error 2.2e-8,
// with rounding 2e-7; coefficients by a minimax fit on [-1/2, 1/2]) times 2^n. Below 2^-126 the
// result is 2^-126. The NaN of an invalid operation stays a NaN.
inline F Power(F x, float factor) {
  x = Max(Splat(-126.0f / factor), x);  // in this order Max hands on a NaN
  const F magic = Splat(12582912.0f);   // as in Exp; its low nine bits are zero
  const F shifted = x * factor + magic;
  const F r = x * factor - (shifted - magic);
  F p = Splat(0x1.470b4ap-13f);
  p = p * r + 0x1.5f7276p-10f;
  p = p * r + 0x1.3b270ep-7f;
  p = p * r + 0x1.c6ae72p-5f;
  p = p * r + 0x1.ebfbe2p-3f;
  p = p * r + 0x1.62e432p-1f;
  p = p * r + 1.0f;
  return (F)((I)p + ((I)shifted << 23));
}

// All ones where a lane of group g may see key row r: lane >= first_lane + r.
inline I Visible(int g, int64_t row) {
  const I lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return lanes >= static_cast<int32_t>(row - g * kLanes);
}

// S^T -> P^T of `rows` keys, the strip's max and sum brought up to date; `factor` is what its
// output so far must be multiplied by. kMasked: lane n sees key r where n >= r + diagonal.
template <bool kMasked>
inline void Softmax(float* s, int64_t rows, float log2_scale, int64_t diagonal, const Strip& strip,
                    float* factor) {
  constexpr int kChains = 4;  // independent maxima, which need not wait for each other
  for (int g = 0; g < kGroups; ++g) {
    float* column = s + g * kLanes;
    F most[kChains];
    for (F& m : most) m = Splat(-INFINITY);
    const auto score = [&](int64_t r) {
      const F x = Load(column + r * kStrip);
      return kMasked ? (Visible(g, r + diagonal) ? x : Splat(-INFINITY)) : x;
    };
    int64_t r = 0;
    for (; r + kChains <= rows; r += kChains) {
      for (int i = 0; i < kChains; ++i) most[i] = Max(most[i], score(r + i));
    }
    for (; r < rows; ++r) most[0] = Max(most[0], score(r));
    const F old = Load(strip.max + g * kLanes);
    const F max = Max(old, Max(Max(most[0], most[1]), Max(most[2], most[3])));
    F sum{};
    for (r = 0; r < rows; ++r) {
      F p = Power(Load(column + r * kStrip) - max, log2_scale);
      if (kMasked) p = Visible(g, r + diagonal) ? p : F{};
      Store(column + r * kStrip, p);
      sum += p;
    }
    const F change = Power(old - max, log2_scale);
    Store(factor + g * kLanes, change);
    Store(strip.max + g * kLanes, max);
    Store(strip.sum + g * kLanes, Load(strip.sum + g * kLanes) * change + sum);
  }
}

// The strip meets the first `rows` keys of a block.
void Meet(const Strip& strip, const Block& block, int64_t dim, int64_t rows, float log2_scale,
          bool masked, int64_t diagonal, bool first) {
  for (int64_t r = 0; r < rows; r += kTile) {
    Product<false>(block.k + r * dim, dim, strip.q, dim, nullptr, block.s + r * kStrip);
  }
  float factor[kStrip];
  masked ? Softmax<true>(block.s, rows, log2_scale, diagonal, strip, factor)
         : Softmax<false>(block.s, rows, log2_scale, diagonal, strip, factor);
  for (int64_t d = 0; d < dim; d += kTile) {
    Product<true>(block.v + d, dim, block.s, rows, first ? nullptr : factor, strip.o + d * kStrip);
  }
}

// Rows of x; zeros up to a whole tile.
void CopyRows(const float* x, int64_t stride, int64_t rows, int64_t dim, float* to) {
  for (int64_t r = 0; r < rows; ++r) memcpy(to + r * dim, x + r * stride, dim * sizeof(float));
  for (int64_t r = rows; r % kTile != 0; ++r) memset(to + r * dim, 0, dim * sizeof(float));
}

inline void Transpose(U x[kLanes]) {
  SwapBlocks<8>(x);
  SwapBlocks<4>(x);
  SwapBlocks<2>(x);
  SwapBlocks<1>(x);
}

void Start(const float* q, int64_t stride, int64_t queries, int64_t dim, const Strip& strip) {
  for (int64_t n = 0; n < kStrip; n += kLanes) {
    for (int64_t d = 0; d < dim; d += kLanes) {
      U x[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        x[i] = n + i < queries ? (U)Load(q + (n + i) * stride + d) : U{};
      }
      Transpose(x);
      for (int i = 0; i < kLanes; ++i) Store(strip.q + (d + i) * kStrip + n, (F)x[i]);
    }
    Store(strip.max + n, Splat(-INFINITY));
    Store(strip.sum + n, F{});
  }
}

void Finish(const Strip& strip, int64_t queries, int64_t dim, float scale, float* out,
            int64_t out_stride, float* lse, int64_t lse_stride) {
  for (int64_t n = 0; n < queries; n += kLanes) {
    const F inverse = 1.0f / Load(strip.sum + n);
    const int64_t count = MinOf(kLanes, queries - n);
    for (int64_t d = 0; d < dim; d += kLanes) {
      U x[kLanes];
      for (int i = 0; i < kLanes; ++i) x[i] = (U)(Load(strip.o + (d + i) * kStrip + n) * inverse);
      Transpose(x);
      for (int64_t i = 0; i < count; ++i) Store(out + (n + i) * out_stride + d, (F)x[i]);
    }
  }
  for (int64_t n = 0; n < queries; ++n) {
    lse[n * lse_stride] = strip.max[n] * scale + logf(strip.sum[n]);
  }
}

// One task's place in the tensors and in its scratch.
struct Task {
  Task(const FlashForwardFp32Params& p, int64_t task) : p(p) {
    const FlashAttentionShape& s = p.shape;
    // The last queries see the most keys: their tasks come first, so that no long one is left for
    // the end.
    const int64_t heads = s.batch * s.kv_heads, size = Fp32TaskQueries(s),
                  chunks = (s.q_tokens + size - 1) / size;
    b = task % heads / s.kv_heads;
    kv = task % s.kv_heads;
    begin = (chunks - 1 - task / heads) * size;
    end = MinOf(begin + size, s.q_tokens);
    group = s.heads / s.kv_heads;
    block.k = static_cast<float*>(p.scratch);
    block.v = block.k + kKeyBlock * s.head_dim;
    block.s = block.v + kKeyBlock * s.head_dim;
    strips = block.s + kKeyBlock * kStrip;
  }
  // The strip of queries [query, query + kStrip) of head kv * group + h.
  Strip At(int64_t h, int64_t query) const {
    const int64_t per_head = (end - begin + kStrip - 1) / kStrip, part = p.shape.head_dim * kStrip;
    float* at = strips + (h * per_head + (query - begin) / kStrip) * (2 * part + 2 * kStrip);
    return {at, at + part, at + 2 * part, at + 2 * part + kStrip};
  }
  template <typename T>
  T* Row(const AttentionView<T>& x, int64_t head, int64_t token) const {
    return x.data + b * x.batch_stride + head * x.head_stride + token * x.token_stride;
  }
  template <typename Run>
  void ForStrips(Run run) const {
    for (int64_t h = 0; h < group; ++h) {
      for (int64_t query = begin; query < end; query += kStrip) run(h, query, At(h, query));
    }
  }

  const FlashForwardFp32Params& p;
  int64_t b, kv, begin, end, group;
  Block block;
  float* strips;
};

void RunTask(const Task& t) {
  const FlashForwardFp32Params& p = t.p;
  const FlashAttentionShape& s = p.shape;
  // Query i sees keys [0, Seen(i)).
  const auto seen = [&](int64_t i) {
    return s.causal ? i + 1 + s.k_tokens - s.q_tokens : s.k_tokens;
  };
  t.ForStrips([&](int64_t h, int64_t query, const Strip& strip) {
    Start(t.Row(p.q, t.kv * t.group + h, query), p.q.token_stride, MinOf(kStrip, t.end - query),
          s.head_dim, strip);
  });
  for (int64_t key = 0; key < seen(t.end - 1); key += kKeyBlock) {
    const int64_t keys = MinOf(kKeyBlock, s.k_tokens - key);
    CopyRows(t.Row(p.k, t.kv, key), p.k.token_stride, keys, s.head_dim, t.block.k);
    CopyRows(t.Row(p.v, t.kv, key), p.v.token_stride, keys, s.head_dim, t.block.v);
    t.ForStrips([&](int64_t, int64_t query, const Strip& strip) {
      const int64_t last = MinOf(query + kStrip, t.end) - 1;
      const int64_t rows = MinOf(keys, seen(last) - key);
      if (rows <= 0) return;
      const int64_t diagonal = key + 1 - seen(query);
      Meet(strip, t.block, s.head_dim, rows, s.scale * kLog2E, s.causal && rows + diagonal > 1,
           diagonal, key == 0);
    });
  }
  t.ForStrips([&](int64_t h, int64_t query, const Strip& strip) {
    const int64_t head = t.kv * t.group + h;
    Finish(strip, MinOf(kStrip, t.end - query), s.head_dim, s.scale, t.Row(p.out, head, query),
           p.out.token_stride, t.Row(p.lse, head, query), p.lse.token_stride);
  });
}

}  // namespace

void FlashForwardFp32(const FlashForwardFp32Params& p, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task) RunTask(Task(p, task));
}

}  // namespace ll::LL_SIMD
