// Per task the queries of one KV head's query heads are cut into strips of 32; each block of keys
// and values is copied once and then met by all strips, whose online softmax and output stay in the
// cache, transposed as fp32_tiles.h says: O^T = V^T P^T.
#include "kernels/flash_attention/flash_forward_fp32.h"

#include "kernels/flash_attention/fp32_tiles.h"

namespace ll::LL_SIMD {
namespace {

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
    Product<false, Onto::kNothing>(block.k + r * dim, dim, strip.q, dim, kStrip, nullptr,
                                   block.s + r * kStrip);
  }
  float factor[kStrip];
  masked ? Softmax<true>(block.s, rows, log2_scale, diagonal, strip, factor)
         : Softmax<false>(block.s, rows, log2_scale, diagonal, strip, factor);
  for (int64_t d = 0; d < dim; d += kTile) {
    float* o = strip.o + d * kStrip;
    first ? Product<true, Onto::kNothing>(block.v + d, dim, block.s, rows, kStrip, nullptr, o)
          : Product<true, Onto::kScaled>(block.v + d, dim, block.s, rows, kStrip, factor, o);
  }
}

template <typename T>
void Start(const T* q, int64_t stride, int64_t queries, int64_t dim, const Strip& strip) {
  TransposeIn(q, stride, queries, dim, strip.q);
  for (int64_t n = 0; n < kStrip; n += kLanes) {
    Store(strip.max + n, Splat(-INFINITY));
    Store(strip.sum + n, F{});
  }
}

template <typename T>
void Finish(const Strip& strip, int64_t queries, int64_t dim, float scale, T* out,
            int64_t out_stride, float* lse, int64_t lse_stride) {
  float inverse[kStrip];
  for (int64_t n = 0; n < kStrip; n += kLanes) Store(inverse + n, 1.0f / Load(strip.sum + n));
  TransposeOut(strip.o, inverse, queries, dim, out, out_stride);
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

template <typename In, typename Out>
void RunTask(const Task& t) {
  const FlashForwardFp32Params& p = t.p;
  const FlashAttentionShape& s = p.shape;
  // Query i sees keys [0, Seen(i)).
  const auto seen = [&](int64_t i) {
    return s.causal ? i + 1 + s.k_tokens - s.q_tokens : s.k_tokens;
  };
  t.ForStrips([&](int64_t h, int64_t query, const Strip& strip) {
    Start(RowOf<const In>(p.q, t.b, t.kv * t.group + h, query), p.q.token_stride,
          MinOf(kStrip, t.end - query), s.head_dim, strip);
  });
  for (int64_t key = 0; key < seen(t.end - 1); key += kKeyBlock) {
    const int64_t keys = MinOf(kKeyBlock, s.k_tokens - key);
    CopyRows(RowOf<const In>(p.k, t.b, t.kv, key), p.k.token_stride, keys, s.head_dim, s.head_dim,
             t.block.k);
    CopyRows(RowOf<const In>(p.v, t.b, t.kv, key), p.v.token_stride, keys, s.head_dim, s.head_dim,
             t.block.v);
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
    Finish(strip, MinOf(kStrip, t.end - query), s.head_dim, s.scale,
           RowOf<Out>(p.out, t.b, head, query), p.out.token_stride,
           RowOf<float>(p.lse, t.b, head, query), p.lse.token_stride);
  });
}

}  // namespace

void FlashForwardFp32(const FlashForwardFp32Params& p, int64_t begin, int64_t end) {
  const bool narrow = p.in_type == DType::kBFloat16, narrow_out = p.out_type == DType::kBFloat16;
  for (int64_t task = begin; task < end; ++task) {
    const Task t(p, task);
    narrow_out ? RunTask<BFloat16, BFloat16>(t)
               : (narrow ? RunTask<BFloat16, float>(t) : RunTask<float, float>(t));
  }
}

}  // namespace ll::LL_SIMD
