// Per task dK and dV of one KV head add up in the scratch. Its query heads' queries are cut into
// strips of 32; so many strips as stay in the cache go through the keys together, and each block of
// keys and values is widened once for them. With queries in vector lanes (fp32_tiles.h) five
// products make a block:
//
//   S^T = K Q^T,  dP^T = V dO^T;   P = exp(scale S - lse),  dS = P (dP - delta)
//   dQ^T += K^T dS^T,  dV += P^T dO,  dK += dS^T Q                    (dQ and dK times scale last)
#include "kernels/flash_attention/flash_backward_fp32.h"

#include "kernels/flash_attention/fp32_tiles.h"

namespace ll::LL_SIMD {
namespace {

struct Strip {
  float *q, *dout;     // [kStrip][padded dim]
  float *qt, *doutt;   // [dim][kStrip]
  float* dqt;          // [dim][kStrip], not yet times scale
  float *lse, *delta;  // [kStrip]; lse divided by scale
};

struct Block {
  float *k, *v;  // [kKeyBlock][dim]
  float* p;      // S^T, then P^T [kKeyBlock][kStrip]
  float* ds;     // dP^T, then dS^T
};

// S^T and dP^T of `rows` keys -> P^T and dS^T. kMasked: lane n sees key r where n >= r + diagonal.
template <bool kMasked>
inline void Softmax(const Block& block, int64_t rows, float log2_scale, int64_t diagonal,
                    const Strip& strip) {
  for (int g = 0; g < kGroups; ++g) {
    float *p = block.p + g * kLanes, *ds = block.ds + g * kLanes;
    const F lse = Load(strip.lse + g * kLanes), delta = Load(strip.delta + g * kLanes);
    for (int64_t r = 0; r < rows; ++r) {
      // At most 1, which rounding of a large lse could exceed; in this order Min hands on a NaN.
      const F below = Min(F{}, Load(p + r * kStrip) - lse);
      F weight = Power(below, log2_scale);
      if (kMasked) weight = Visible(g, r + diagonal) ? weight : F{};
      F change = weight * (Load(ds + r * kStrip) - delta);
      // What is not seen may be anything, also infinite.
      if (kMasked) change = Visible(g, r + diagonal) ? change : F{};
      Store(p + r * kStrip, weight);
      Store(ds + r * kStrip, change);
    }
  }
  // Whole tiles go into dK and dV.
  for (int64_t r = rows; r % kTile != 0; ++r) {
    memset(block.p + r * kStrip, 0, kStrip * sizeof(float));
    memset(block.ds + r * kStrip, 0, kStrip * sizeof(float));
  }
}

// The strip meets the first `rows` keys of a block, whose dk and dv are [rows][padded dim].
void Meet(const Strip& strip, const Block& block, int64_t dim, int64_t padded, int64_t rows,
          float log2_scale, bool masked, int64_t diagonal, bool first, float* dk, float* dv) {
  for (int64_t r = 0; r < rows; r += kTile) {
    Product<false, Onto::kNothing>(block.k + r * dim, dim, strip.qt, dim, kStrip, nullptr,
                                   block.p + r * kStrip);
    Product<false, Onto::kNothing>(block.v + r * dim, dim, strip.doutt, dim, kStrip, nullptr,
                                   block.ds + r * kStrip);
  }
  masked ? Softmax<true>(block, rows, log2_scale, diagonal, strip)
         : Softmax<false>(block, rows, log2_scale, diagonal, strip);
  for (int64_t d = 0; d < dim; d += kTile) {
    float* dqt = strip.dqt + d * kStrip;
    first ? Product<true, Onto::kNothing>(block.k + d, dim, block.ds, rows, kStrip, nullptr, dqt)
          : Product<true, Onto::kSum>(block.k + d, dim, block.ds, rows, kStrip, nullptr, dqt);
  }
  for (int64_t r = 0; r < rows; r += kTile) {
    Product<false, Onto::kSum>(block.p + r * kStrip, kStrip, strip.dout, kStrip, padded, nullptr,
                               dv + r * padded);
    Product<false, Onto::kSum>(block.ds + r * kStrip, kStrip, strip.q, kStrip, padded, nullptr,
                               dk + r * padded);
  }
}

// One task's place in the tensors and in its scratch.
struct Task {
  Task(const FlashBackwardFp32Params& p, int64_t task)
      : p(p),
        b(task / p.shape.kv_heads),
        kv(task % p.shape.kv_heads),
        group(p.shape.heads / p.shape.kv_heads),
        dim(p.shape.head_dim),
        padded(Fp32PaddedDim(p.shape.head_dim)) {
    const int64_t keys = (p.shape.k_tokens + 7) / 8 * 8;
    dk = static_cast<float*>(p.scratch);
    dv = dk + keys * padded;
    block.k = dv + keys * padded;
    block.v = block.k + kKeyBlock * dim;
    block.p = block.v + kKeyBlock * dim;
    block.ds = block.p + kKeyBlock * kStrip;
    strips = block.ds + kKeyBlock * kStrip;
    memset(dk, 0, 2 * keys * padded * sizeof(float));
  }
  Strip At(int64_t index) const {
    float* at = strips + index * Fp32BackwardStripFloats(dim);
    Strip s;
    s.q = at;
    s.dout = s.q + kStrip * padded;
    s.qt = s.dout + kStrip * padded;
    s.doutt = s.qt + dim * kStrip;
    s.dqt = s.doutt + dim * kStrip;
    s.lse = s.dqt + dim * kStrip;
    s.delta = s.lse + kStrip;
    return s;
  }
  // Calls run(head, first query, strip) for the strips of queries [begin, end) of all heads.
  template <typename Run>
  void ForStrips(int64_t begin, int64_t end, Run run) const {
    int64_t index = 0;
    for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
      for (int64_t query = begin; query < end; query += kStrip) run(h, query, At(index++));
    }
  }

  const FlashBackwardFp32Params& p;
  int64_t b, kv, group, dim, padded;
  float *dk, *dv;
  Block block;
  float* strips;
};

// Rows past the last query have q, dout, lse and delta of zero and so add nothing.
template <typename In>
void Start(const Task& t, int64_t head, int64_t query, int64_t queries, const Strip& strip) {
  const FlashBackwardFp32Params& p = t.p;
  const In *q = RowOf<const In>(p.q, t.b, head, query),
           *out = RowOf<const In>(p.out, t.b, head, query),
           *dout = RowOf<const In>(p.dout, t.b, head, query);
  const float* lse = RowOf<const float>(p.lse, t.b, head, query);
  memset(strip.q, 0, 2 * kStrip * t.padded * sizeof(float));
  CopyRows(q, p.q.token_stride, queries, t.dim, t.padded, strip.q);
  CopyRows(dout, p.dout.token_stride, queries, t.dim, t.padded, strip.dout);
  TransposeIn(q, p.q.token_stride, queries, t.dim, strip.qt);
  TransposeIn(dout, p.dout.token_stride, queries, t.dim, strip.doutt);
  for (int64_t n = 0; n < kStrip; ++n) {
    F sum{};
    for (int64_t d = 0; n < queries && d < t.dim; d += kLanes) {
      sum += Load(out + n * p.out.token_stride + d) * Load(strip.dout + n * t.padded + d);
    }
    strip.delta[n] = Sum(sum);
    strip.lse[n] = n < queries ? lse[n * p.lse.token_stride] / p.shape.scale : 0;
  }
}

// fp32 rows times factor -> dk or dv.
template <typename Out>
void StoreKeys(const Task& t, const float* sums, float factor, const AttentionView<void>& to) {
  for (int64_t key = 0; key < t.p.shape.k_tokens; ++key) {
    Out* row = RowOf<Out>(to, t.b, t.kv, key);
    for (int64_t d = 0; d < t.dim; d += kLanes) {
      F x = Load(sums + key * t.padded + d) * factor;
      if (t.p.accumulate_dkv) x += Load(row + d);
      Store(row + d, x);
    }
  }
}

template <typename In, typename Dq, typename Dkv>
void RunTask(const Task& t) {
  const FlashBackwardFp32Params& p = t.p;
  const FlashAttentionShape& s = p.shape;
  // Query i sees keys [0, Seen(i)).
  const auto seen = [&](int64_t i) {
    return s.causal ? i + 1 + s.k_tokens - s.q_tokens : s.k_tokens;
  };
  float scales[kStrip];
  for (float& x : scales) x = s.scale;
  const int64_t step = Fp32BackwardQueries(s);
  for (int64_t begin = 0; begin < s.q_tokens; begin += step) {
    const int64_t end = MinOf(begin + step, s.q_tokens);
    t.ForStrips(begin, end, [&](int64_t head, int64_t query, const Strip& strip) {
      Start<In>(t, head, query, MinOf(kStrip, end - query), strip);
    });
    for (int64_t key = 0; key < seen(end - 1); key += kKeyBlock) {
      const int64_t keys = MinOf(kKeyBlock, s.k_tokens - key);
      CopyRows(RowOf<const In>(p.k, t.b, t.kv, key), p.k.token_stride, keys, t.dim, t.dim,
               t.block.k);
      CopyRows(RowOf<const In>(p.v, t.b, t.kv, key), p.v.token_stride, keys, t.dim, t.dim,
               t.block.v);
      t.ForStrips(begin, end, [&](int64_t, int64_t query, const Strip& strip) {
        const int64_t last = MinOf(query + kStrip, end) - 1;
        const int64_t rows = MinOf(keys, seen(last) - key);
        if (rows <= 0) return;
        const int64_t diagonal = key + 1 - seen(query);
        Meet(strip, t.block, t.dim, t.padded, rows, s.scale * kLog2E,
             s.causal && rows + diagonal > 1, diagonal, key == 0, t.dk + key * t.padded,
             t.dv + key * t.padded);
      });
    }
    t.ForStrips(begin, end, [&](int64_t head, int64_t query, const Strip& strip) {
      TransposeOut(strip.dqt, scales, MinOf(kStrip, end - query), t.dim,
                   RowOf<Dq>(p.dq, t.b, head, query), p.dq.token_stride);
    });
  }
  StoreKeys<Dkv>(t, t.dk, s.scale, p.dk);
  StoreKeys<Dkv>(t, t.dv, 1, p.dv);
}

}  // namespace

void FlashBackwardFp32(const FlashBackwardFp32Params& p, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task) {
    const Task t(p, task);
    if (p.in_type == DType::kFloat32) {
      RunTask<float, float, float>(t);
    } else if (p.dq_type == DType::kFloat32) {
      RunTask<BFloat16, float, float>(t);
    } else if (p.dkv_type == DType::kFloat32) {
      RunTask<BFloat16, BFloat16, float>(t);
    } else {
      RunTask<BFloat16, BFloat16, BFloat16>(t);
    }
  }
}

}  // namespace ll::LL_SIMD
