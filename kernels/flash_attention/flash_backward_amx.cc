// Backward in one pass per KV head: K and V are packed once, dK and dV add up in fp32 in the
// scratch. Blocks of queries run over blocks of keys; each block's scores are computed anew from
// lse, 32 keys x 32 queries at a time, and leave P^T and dS^T in the forms that the three products
// want. Queries lie in vector lanes, as in the forward pass.
#include "kernels/flash_attention/flash_attention_amx.h"

#if defined(__AMX_BF16__)

#include "kernels/flash_attention/amx_tiles.h"

namespace ll {
namespace {

constexpr int64_t kStrip = 32;
constexpr int64_t kBlock = 128;  // queries, and keys, of a block
constexpr int64_t kStrips = kBlock / kStrip;
constexpr float kLog2E = 1.44269504f;

struct Scratch {
  char *k, *kt, *v;  // A forms: K [key tile][chunk], K^T [key chunk][dim tile], V [key tile][chunk]
  float *dk, *dv;    // [key tile][dim tile][16][16]
  char *q, *dout;    // B forms of Q^T, dO^T [query tile][chunk]
  char *q_pairs, *dout_pairs;  // B forms of Q, dO [strip][dim tile]
  float* dq;                   // dQ^T [strip][dim tile][2][16][16], queries in StripQuery order
  char *p, *ds;                // A forms of P^T, dS^T of a block [key tile][strip]
  char* ds_pairs;              // B form of dS^T [strip of keys][strip][2]
  float *s, *dp;               // [key tile][query tile][16][16] of 32 keys x 32 queries
  float *lse, *delta;          // [kBlock]; lse times log2(e)
};

struct Layout {
  int64_t chunks, dim_tiles, keys;
  explicit Layout(const FlashAttentionShape& shape)
      : chunks(CeilDiv(shape.head_dim, kTileDepth)),
        dim_tiles(2 * chunks),
        keys(CeilDiv(shape.k_tokens, kStrip) * kStrip) {}

  // Assigns the pointers (to a null base when only the size is wanted) and returns the bytes used.
  size_t Divide(char* base, Scratch& x) const {
    size_t at = 0;
    const auto take = [&](int64_t tiles) {
      char* here = base == nullptr ? nullptr : base + at;
      at += tiles * kTileBytes;
      return here;
    };
    const auto take_floats = [&](int64_t tiles) { return reinterpret_cast<float*>(take(tiles)); };
    const int64_t packed = keys / kTileRows * chunks, block = kBlock / kTileRows * chunks;
    x.k = take(packed);
    x.kt = take(packed);
    x.v = take(packed);
    x.dk = take_floats(2 * packed);
    x.dv = take_floats(2 * packed);
    x.q = take(block);
    x.dout = take(block);
    x.q_pairs = take(block);
    x.dout_pairs = take(block);
    x.dq = take_floats(2 * block);
    x.p = take(2 * kStrips * kStrips);
    x.ds = take(2 * kStrips * kStrips);
    x.ds_pairs = take(2 * kStrips * kStrips);
    x.s = take_floats(4);
    x.dp = take_floats(4);
    x.lse = take_floats(1);
    x.delta = x.lse + kBlock;
    return at;
  }
};

// What a task works on.
struct Head {
  const FlashAttentionShape* shape;
  const Layout* l;
  const Scratch* x;
  int64_t offset;  // query i sees keys <= i + offset
};

// 32 x 32 product over the head dimension: out = A B.
inline void Products(const Layout& l, const char* a, const char* b, float* out) {
  const int64_t row = l.chunks * kTileBytes;
  Zero2x2();
  Dot2x2(a, a + row, kTileBytes, b, b + row, kTileBytes, l.chunks);
  Store2x2(out, out + 256, out + 512, out + 768);
}

struct StripOut {
  char *p, *ds;    // rows of A forms: first key tile; the second follows after `tile_step` bytes
  char* ds_pairs;  // two B tiles
  int64_t tile_step;
};

// P = 2^(S factor - lse), dS = P (dP - delta) for 32 keys x 32 queries; with kMasked, P = 0 where a
// query may not see a key.
template <bool kMasked>
void Softmax(const float* s, const float* dp, __m512 factor, const float* lse, const float* delta,
             int64_t first_key, int64_t keys, int64_t first_query, int64_t offset,
             const StripOut& out) {
  const __m512 lse0 = _mm512_load_ps(lse), lse1 = _mm512_load_ps(lse + 16);
  const __m512 delta0 = _mm512_load_ps(delta), delta1 = _mm512_load_ps(delta + 16);
  for (int kt = 0; kt < 2; ++kt) {
    for (int r = 0; r < 8; ++r) {
      __m512i ds_pair[2];
      for (int i = 0; i < 2; ++i) {
        const int row = 2 * r + i, at = kt * 512 + row * 16;
        __m512 p0 = Exp2(_mm512_fmsub_ps(_mm512_load_ps(s + at), factor, lse0));
        __m512 p1 = Exp2(_mm512_fmsub_ps(_mm512_load_ps(s + at + 256), factor, lse1));
        if (kMasked) {
          const int64_t key = first_key + 16 * kt + row;
          p0 = _mm512_maskz_mov_ps(Visible(key, keys, first_query, offset), p0);
          p1 = _mm512_maskz_mov_ps(Visible(key, keys, first_query + 16, offset), p1);
        }
        const __m512 ds0 = _mm512_mul_ps(p0, _mm512_sub_ps(_mm512_load_ps(dp + at), delta0));
        const __m512 ds1 = _mm512_mul_ps(p1, _mm512_sub_ps(_mm512_load_ps(dp + at + 256), delta1));
        _mm512_store_si512(out.p + kt * out.tile_step + row * 64, ToBFloat16(p0, p1));
        ds_pair[i] = ToBFloat16(ds0, ds1);
        _mm512_store_si512(out.ds + kt * out.tile_step + row * 64, ds_pair[i]);
      }
      char* pairs = out.ds_pairs + (8 * kt + r) * 64;
      InterleaveKeys(ds_pair[0], ds_pair[1], pairs, pairs + kTileBytes);
    }
  }
}

// acc [key tiles 0, 1][dim tile] += A B over strips [begin, kStrips) of queries: A [key
// tile][strip] at a, B [strip][dim tile] at b.
void AddOverQueries(const Layout& l, const char* a, const char* b, int64_t begin, int64_t end,
                    float* acc) {
  const int64_t row = l.dim_tiles * 256;
  a += begin * kTileBytes;
  b += begin * l.dim_tiles * kTileBytes;
  for (int64_t t = 0; t < l.dim_tiles; t += 2, acc += 512, b += 2 * kTileBytes) {
    Load2x2(acc, acc + 256, acc + row, acc + row + 256);
    Dot2x2(a, a + kStrips * kTileBytes, kTileBytes, b, b + kTileBytes, l.dim_tiles * kTileBytes,
           end - begin);
    Store2x2(acc, acc + 256, acc + row, acc + row + 256);
  }
}

// One block: keys [first_key, + 32 groups), queries [first_query, + 32 strips).
void RunBlock(const Head& head, int64_t first_key, int64_t groups, int64_t first_query,
              int64_t strips) {
  const Layout& l = *head.l;
  const Scratch& x = *head.x;
  const FlashAttentionShape& shape = *head.shape;
  const __m512 factor = _mm512_set1_ps(shape.scale * kLog2E);
  const int64_t tile_row = l.chunks * kTileBytes, group_tiles = 2 * kStrips;
  int64_t first_strip[kStrips];  // of each group of keys: the first strip with a query that sees
                                 // one of them
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t key = first_key + g * kStrip, hidden = key - head.offset - first_query;
    first_strip[g] = hidden <= 0 ? 0 : MinOf(hidden / kStrip, strips);
    for (int64_t i = first_strip[g]; i < strips; ++i) {
      Products(l, x.k + key / kTileRows * tile_row, x.q + 2 * i * tile_row, x.s);
      Products(l, x.v + key / kTileRows * tile_row, x.dout + 2 * i * tile_row, x.dp);
      const StripOut out{x.p + (g * group_tiles + i) * kTileBytes,
                         x.ds + (g * group_tiles + i) * kTileBytes,
                         x.ds_pairs + (g * kStrips + i) * 2 * kTileBytes, kStrips * kTileBytes};
      const int64_t query = first_query + i * kStrip;
      const bool masked = key + kStrip - 1 > query + head.offset || key + kStrip > shape.k_tokens;
      (masked ? Softmax<true> : Softmax<false>)(x.s, x.dp, factor, x.lse + i * kStrip,
                                                x.delta + i * kStrip, key, shape.k_tokens, query,
                                                head.offset, out);
    }
  }
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t acc = (first_key + g * kStrip) / kTileRows * l.dim_tiles * 256;
    if (first_strip[g] == strips) continue;
    AddOverQueries(l, x.p + g * group_tiles * kTileBytes, x.dout_pairs, first_strip[g], strips,
                   x.dv + acc);
    AddOverQueries(l, x.ds + g * group_tiles * kTileBytes, x.q_pairs, first_strip[g], strips,
                   x.dk + acc);
  }
  for (int64_t i = 0; i < strips; ++i) {
    int64_t seen = 0;  // groups of keys that strip i sees: a prefix
    while (seen < groups && first_strip[seen] <= i) ++seen;
    if (seen == 0) continue;
    for (int64_t t = 0; t < l.dim_tiles; t += 2) {
      float* acc = x.dq + (i * l.dim_tiles + t) * 512;
      const char* a = x.kt + (first_key / kTileDepth * l.dim_tiles + t) * kTileBytes;
      const char* b = x.ds_pairs + i * 2 * kTileBytes;
      Load2x2(acc, acc + 256, acc + 512, acc + 768);
      Dot2x2(a, a + kTileBytes, l.dim_tiles * kTileBytes, b, b + kTileBytes,
             kStrips * 2 * kTileBytes, seen);
      Store2x2(acc, acc + 256, acc + 512, acc + 768);
    }
  }
}

// The gradients in the type that is wanted.
template <typename Dq, typename Dkv>
struct Results {
  const AttentionView<Dq>& dq;
  const AttentionView<Dkv>&dk, &dv;
};

// One query head's tensors.
struct QueryHead {
  const BFloat16 *q, *out, *dout;
  const float* lse;
};

// lse and delta of a block's queries. Queries past the end get lse = infinity, hence P = 0.
void LoadRowTerms(const FlashAttentionBackwardParams& p, const QueryHead& h, int64_t first,
                  int64_t queries, const Scratch& x) {
  const int64_t d = p.shape.head_dim;
  for (int64_t i = 0; i < kBlock; ++i) {
    x.lse[i] = __builtin_inff();
    x.delta[i] = 0;
    if (i >= queries) continue;
    x.lse[i] = h.lse[(first + i) * p.lse.token_stride] * kLog2E;
    const BFloat16* out = h.out + (first + i) * p.out.token_stride;
    const BFloat16* dout = h.dout + (first + i) * p.dout.token_stride;
    __m512 sum = _mm512_setzero_ps();
    for (int64_t c = 0; c < d; c += 16) {
      sum = _mm512_fmadd_ps(LoadBFloat16(out + c, 0xffff), LoadBFloat16(dout + c, 0xffff), sum);
    }
    x.delta[i] = _mm512_reduce_add_ps(sum);
  }
}

template <typename T>
void RunQueryHead(const FlashAttentionBackwardParams& p, const Head& head, const QueryHead& h,
                  T* dq, int64_t dq_stride) {
  const Layout& l = *head.l;
  const Scratch& x = *head.x;
  const FlashAttentionShape& shape = p.shape;
  const __m512 scale = _mm512_set1_ps(shape.scale);
  for (int64_t query = 0; query < shape.q_tokens; query += kBlock) {
    const int64_t queries = MinOf(kBlock, shape.q_tokens - query),
                  strips = CeilDiv(queries, kStrip);
    PrefetchRows(h.out + query * p.out.token_stride, p.out.token_stride, 0, queries,
                 shape.head_dim);
    PackAllRows(h.q + query * p.q.token_stride, p.q.token_stride, queries, shape.head_dim, nullptr,
                x.q);
    PackAllRowPairs(h.q + query * p.q.token_stride, p.q.token_stride, queries, shape.head_dim,
                    x.q_pairs, nullptr);
    PackAllRows(h.dout + query * p.dout.token_stride, p.dout.token_stride, queries, shape.head_dim,
                nullptr, x.dout);
    PackAllRowPairs(h.dout + query * p.dout.token_stride, p.dout.token_stride, queries,
                    shape.head_dim, x.dout_pairs, nullptr);
    LoadRowTerms(p, h, query, queries, x);
    memset(x.dq, 0, strips * l.dim_tiles * 2 * kTileBytes);
    const int64_t keys = shape.causal ? query + queries + head.offset : shape.k_tokens;
    for (int64_t key = 0; key < keys; key += kBlock) {
      RunBlock(head, key, CeilDiv(MinOf(keys - key, kBlock), kStrip), query, strips);
    }
    for (int64_t i = 0; i < strips; ++i) {
      for (int64_t t = 0; t * kTileRows < shape.head_dim; ++t) {
        StoreTransposed(x.dq + (i * l.dim_tiles + t) * 512, scale, scale,
                        dq + (query + i * kStrip) * dq_stride + t * kTileRows, dq_stride,
                        queries - i * kStrip, kTileRows);
      }
    }
  }
}

// Writes [keys, head_dim] from C tiles times factor, or adds them to what is there.
template <typename T>
void StoreKeys(const Layout& l, const float* acc, float factor, const FlashAttentionShape& shape,
               T* to, int64_t stride, bool add) {
  for (int64_t key = 0; key < shape.k_tokens; ++key) {
    for (int64_t c = 0; c < shape.head_dim; c += 16) {
      const float* from = acc + (key / 16 * l.dim_tiles + c / 16) * 256 + key % 16 * 16;
      __m512 value = _mm512_mul_ps(_mm512_load_ps(from), _mm512_set1_ps(factor));
      T* at = to + key * stride + c;
      if (add) value = _mm512_add_ps(value, LoadRow(at));
      StoreRow(at, value, 0xffff);
    }
  }
}

template <typename Dq, typename Dkv>
void RunTask(const FlashAttentionBackwardParams& p, const Results<Dq, Dkv>& r, int64_t task,
             void* scratch) {
  const FlashAttentionShape& shape = p.shape;
  const int64_t b = task / shape.kv_heads, kv = task % shape.kv_heads,
                group = shape.heads / shape.kv_heads;
  const Layout l(shape);
  Scratch x;
  l.Divide(static_cast<char*>(scratch), x);
  const Head head{&shape, &l, &x, shape.causal ? shape.k_tokens - shape.q_tokens : shape.k_tokens};

  const BFloat16* k = p.k.data + b * p.k.batch_stride + kv * p.k.head_stride;
  const BFloat16* v = p.v.data + b * p.v.batch_stride + kv * p.v.head_stride;
  PackAllRows(k, p.k.token_stride, shape.k_tokens, shape.head_dim, x.k, nullptr);
  PackAllRowPairs(k, p.k.token_stride, shape.k_tokens, shape.head_dim, nullptr, x.kt);
  PackAllRows(v, p.v.token_stride, shape.k_tokens, shape.head_dim, x.v, nullptr);
  memset(x.dk, 0, l.keys / kTileRows * l.dim_tiles * kTileBytes);
  memset(x.dv, 0, l.keys / kTileRows * l.dim_tiles * kTileBytes);

  ConfigureTiles();
  for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
    RunQueryHead(p, head,
                 {p.q.data + b * p.q.batch_stride + h * p.q.head_stride,
                  p.out.data + b * p.out.batch_stride + h * p.out.head_stride,
                  p.dout.data + b * p.dout.batch_stride + h * p.dout.head_stride,
                  p.lse.data + b * p.lse.batch_stride + h * p.lse.head_stride},
                 r.dq.data + b * r.dq.batch_stride + h * r.dq.head_stride, r.dq.token_stride);
  }
  ReleaseTiles();
  StoreKeys(l, x.dk, shape.scale, shape, r.dk.data + b * r.dk.batch_stride + kv * r.dk.head_stride,
            r.dk.token_stride, p.accumulate_dkv);
  StoreKeys(l, x.dv, 1.0f, shape, r.dv.data + b * r.dv.batch_stride + kv * r.dv.head_stride,
            r.dv.token_stride, p.accumulate_dkv);
}

}  // namespace

size_t FlashBackwardAmxScratchBytes(const FlashAttentionShape& shape) {
  Scratch unused;
  return Layout(shape).Divide(nullptr, unused);
}

void FlashBackwardAmx(const FlashAttentionBackwardParams& p, int64_t task, void* scratch) {
  if (p.dq_fp32.data != nullptr) {
    RunTask(p, Results<float, float>{p.dq_fp32, p.dk_fp32, p.dv_fp32}, task, scratch);
  } else if (p.dk_fp32.data != nullptr) {
    RunTask(p, Results<BFloat16, float>{p.dq, p.dk_fp32, p.dv_fp32}, task, scratch);
  } else {
    RunTask(p, Results<BFloat16, BFloat16>{p.dq, p.dk, p.dv}, task, scratch);
  }
}

}  // namespace ll

#else

namespace ll {
size_t FlashBackwardAmxScratchBytes(const FlashAttentionShape&) { return 0; }
void FlashBackwardAmx(const FlashAttentionBackwardParams&, int64_t, void*) {}
}  // namespace ll

#endif
