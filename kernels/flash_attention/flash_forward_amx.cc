// Forward: per task the K and V of one KV head are packed once; then blocks of 32 queries (a strip)
// run over the keys in blocks of kKeyBlock with an online softmax. Everything is kept transposed,
// S^T = K Q^T and O^T = V^T P^T: queries lie in vector lanes, so maxima, sums and factors per query
// need no horizontal step, and P^T leaves the softmax in the form that the next product wants.
#include "kernels/flash_attention/flash_attention_amx.h"

#if defined(__AMX_BF16__)

#include "kernels/flash_attention/amx_tiles.h"

namespace ll {
namespace {

constexpr int64_t kStrip = 32;      // queries, and keys of one step
constexpr int64_t kKeyBlock = 128;  // keys between two updates of O
constexpr int64_t kSteps = kKeyBlock / kStrip;
constexpr float kLog2E = 1.44269504f;

// Pointers into a task's scratch.
struct Scratch {
  char* k;   // A form of K [key tile][chunk]
  char* v;   // A form of V^T [key chunk][dim tile]
  char* q;   // B form of Q^T [2][chunk]
  char* p;   // B form of P^T [step][2]
  float* s;  // S^T of a block [step][key tile][query tile][16][16]
  float* o;  // O^T [dim tile][2][16][16]
};

struct Layout {
  int64_t chunks, dim_tiles, keys;  // keys: padded
  explicit Layout(const FlashAttentionShape& shape)
      : chunks(CeilDiv(shape.head_dim, kTileDepth)),
        dim_tiles(2 * chunks),
        keys(CeilDiv(shape.k_tokens, kStrip) * kStrip) {}
  int64_t PackedBytes() const { return keys / kTileRows * chunks * kTileBytes; }
  Scratch Divide(char* at) const {
    Scratch s;
    s.k = at;
    s.v = s.k + PackedBytes();
    s.q = s.v + PackedBytes();
    s.p = s.q + 2 * chunks * kTileBytes;
    s.s = reinterpret_cast<float*>(s.p + 2 * kSteps * kTileBytes);
    s.o = s.s + kSteps * 4 * 256;
    return s;
  }
  size_t Bytes() const {
    return 2 * PackedBytes() + (2 * chunks + 2 * kSteps + 4 * kSteps + 2 * dim_tiles) * kTileBytes;
  }
};

// Two values, one per query tile of the strip.
struct Lanes {
  __m512 x[2];
};

struct StripState {
  Lanes max;  // of the unscaled scores
  Lanes sum;  // of exp(scale * (score - max))
};

// S^T of 32 keys and the strip, and the running maximum of each query.
void Scores(const Layout& l, const char* k, const char* q, float* s) {
  const int64_t row = l.chunks * kTileBytes;
  Zero2x2();
  Dot2x2(k, k + row, kTileBytes, q, q + row, kTileBytes, l.chunks);
  Store2x2(s, s + 256, s + 512, s + 768);
}

void Mask(float* s, int64_t first_key, int64_t keys, int64_t first_query, int64_t offset) {
  const __m512 hidden = _mm512_set1_ps(-__builtin_inff());
  for (int64_t row = 0; row < 32; ++row) {
    for (int64_t t = 0; t < 2; ++t) {
      float* at = s + (row / 16) * 512 + t * 256 + (row % 16) * 16;
      const __mmask16 visible = Visible(first_key + row, keys, first_query + 16 * t, offset);
      _mm512_store_ps(at, _mm512_mask_mov_ps(hidden, visible, _mm512_load_ps(at)));
    }
  }
}

inline void UpdateMax(const float* s, Lanes& max) {
  for (int t = 0; t < 2; ++t) {
    __m512 m[4] = {max.x[t], max.x[t], max.x[t], max.x[t]};
    for (int row = 0; row < 32; row += 4) {
      for (int i = 0; i < 4; ++i) {
        const int r = row + i;
        m[i] = _mm512_max_ps(m[i], _mm512_load_ps(s + (r / 16) * 512 + t * 256 + (r % 16) * 16));
      }
    }
    max.x[t] = _mm512_max_ps(_mm512_max_ps(m[0], m[1]), _mm512_max_ps(m[2], m[3]));
  }
}

// P^T of 32 keys in B form, and its part of the sums. shift = max * factor.
inline void Probabilities(const float* s, __m512 factor, const Lanes& shift, char* p, Lanes& sum) {
  for (int kt = 0; kt < 2; ++kt) {
    for (int r = 0; r < 8; ++r) {
      __m512i pair[2];
      for (int i = 0; i < 2; ++i) {
        const float* row = s + kt * 512 + (2 * r + i) * 16;
        const __m512 p0 = Exp2(_mm512_fmsub_ps(_mm512_load_ps(row), factor, shift.x[0]));
        const __m512 p1 = Exp2(_mm512_fmsub_ps(_mm512_load_ps(row + 256), factor, shift.x[1]));
        sum.x[0] = _mm512_add_ps(sum.x[0], p0);
        sum.x[1] = _mm512_add_ps(sum.x[1], p1);
        pair[i] = ToBFloat16(p0, p1);
      }
      char* at = p + (8 * kt + r) * 64;
      InterleaveKeys(pair[0], pair[1], at, at + kTileBytes);
    }
  }
}

// O^T *= the factor by which a new maximum changes each query.
void Rescale(const Layout& l, const Lanes& alpha, float* o) {
  const __m512 a0 = InStripOrder(0, alpha.x[0], alpha.x[1]),
               a1 = InStripOrder(1, alpha.x[0], alpha.x[1]);
  for (int64_t t = 0; t < l.dim_tiles; ++t, o += 512) {
    for (int r = 0; r < 16; ++r) {
      _mm512_store_ps(o + 16 * r, _mm512_mul_ps(_mm512_load_ps(o + 16 * r), a0));
      _mm512_store_ps(o + 256 + 16 * r, _mm512_mul_ps(_mm512_load_ps(o + 256 + 16 * r), a1));
    }
  }
}

// O^T += V^T P^T over `steps` times 32 keys.
void Accumulate(const Layout& l, const char* v, const char* p, int64_t steps, bool first,
                float* o) {
  for (int64_t t = 0; t < l.dim_tiles; t += 2) {
    float* c = o + t * 512;
    first ? Zero2x2() : Load2x2(c, c + 256, c + 512, c + 768);
    const char* a = v + t * kTileBytes;
    Dot2x2(a, a + kTileBytes, l.dim_tiles * kTileBytes, p, p + kTileBytes, 2 * kTileBytes, steps);
    Store2x2(c, c + 256, c + 512, c + 768);
  }
}

// The strip's queries against keys [0, end): O^T in x.o, not yet divided by the sums.
StripState RunStrip(const Layout& l, const Scratch& x, const FlashAttentionShape& shape,
                    int64_t first_query, int64_t end, int64_t offset) {
  const __m512 factor = _mm512_set1_ps(shape.scale * kLog2E),
               low = _mm512_set1_ps(-__builtin_inff());
  StripState state{{low, low}, {_mm512_setzero_ps(), _mm512_setzero_ps()}};
  for (int64_t key = 0; key < end; key += kKeyBlock) {
    const int64_t steps = CeilDiv(MinOf(end - key, kKeyBlock), kStrip);
    const Lanes old = state.max;
    for (int64_t i = 0; i < steps; ++i) {
      const int64_t first_key = key + i * kStrip;
      float* s = x.s + i * 1024;
      Scores(l, x.k + first_key / kTileRows * l.chunks * kTileBytes, x.q, s);
      if (first_key + kStrip - 1 > first_query + offset || first_key + kStrip > shape.k_tokens) {
        Mask(s, first_key, shape.k_tokens, first_query, offset);
      }
      UpdateMax(s, state.max);
    }
    Lanes alpha, shift;
    __mmask16 changed = 0;
    for (int t = 0; t < 2; ++t) {
      shift.x[t] = _mm512_mul_ps(state.max.x[t], factor);
      alpha.x[t] = Exp2(_mm512_mul_ps(_mm512_sub_ps(old.x[t], state.max.x[t]), factor));
      state.sum.x[t] = _mm512_mul_ps(state.sum.x[t], alpha.x[t]);
      changed |= _mm512_cmp_ps_mask(old.x[t], state.max.x[t], _CMP_NEQ_UQ);
    }
    for (int64_t i = 0; i < steps; ++i) {
      Probabilities(x.s + i * 1024, factor, shift, x.p + i * 2 * kTileBytes, state.sum);
    }
    if (key > 0 && changed != 0) Rescale(l, alpha, x.o);
    Accumulate(l, x.v + key / kTileDepth * l.dim_tiles * kTileBytes, x.p, steps, key == 0, x.o);
  }
  return state;
}

template <typename T>
void WriteStrip(const Scratch& x, const FlashAttentionShape& shape, const StripState& state,
                int64_t queries, T* out, int64_t out_stride, float* lse, int64_t lse_stride) {
  alignas(64) float log_sum[kStrip];
  Lanes inverse;
  for (int t = 0; t < 2; ++t) {
    inverse.x[t] = _mm512_div_ps(_mm512_set1_ps(1.0f), state.sum.x[t]);
    _mm512_store_ps(log_sum + 16 * t, _mm512_fmadd_ps(state.max.x[t], _mm512_set1_ps(shape.scale),
                                                      Log(state.sum.x[t])));
  }
  for (int64_t i = 0; i < queries; ++i) lse[i * lse_stride] = log_sum[i];
  const __m512 f0 = InStripOrder(0, inverse.x[0], inverse.x[1]),
               f1 = InStripOrder(1, inverse.x[0], inverse.x[1]);
  for (int64_t t = 0; t * kTileRows < shape.head_dim; ++t) {
    StoreTransposed(x.o + t * 512, f0, f1, out + t * kTileRows, out_stride, queries,
                    shape.head_dim - t * kTileRows);
  }
}

// `result`: of the two views of the result the one that is wanted.
template <typename T>
void RunTask(const FlashAttentionForwardParams& p, const AttentionView<T>& result, int64_t task,
             void* scratch) {
  const FlashAttentionShape& shape = p.shape;
  // The last queries see the most keys: their tasks come first, so that no long one is left for the
  // end.
  const int64_t heads = shape.batch * shape.kv_heads,
                chunks = CeilDiv(shape.q_tokens, kForwardTaskQueries);
  const int64_t chunk = chunks - 1 - task / heads, b = task % heads / shape.kv_heads,
                kv = task % shape.kv_heads;
  const int64_t begin = chunk * kForwardTaskQueries,
                end = MinOf(begin + kForwardTaskQueries, shape.q_tokens);
  const int64_t offset = shape.causal ? shape.k_tokens - shape.q_tokens : shape.k_tokens;
  const int64_t keys = shape.causal ? end + offset : shape.k_tokens,
                group = shape.heads / shape.kv_heads;

  const Layout l(shape);
  const Scratch x = l.Divide(static_cast<char*>(scratch));
  PackAllRows(p.k.data + b * p.k.batch_stride + kv * p.k.head_stride, p.k.token_stride, keys,
              shape.head_dim, x.k, nullptr);
  PackAllRowPairs(p.v.data + b * p.v.batch_stride + kv * p.v.head_stride, p.v.token_stride, keys,
                  shape.head_dim, nullptr, x.v);
  ConfigureTiles();
  for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
    const BFloat16* q = p.q.data + b * p.q.batch_stride + h * p.q.head_stride;
    T* out = result.data + b * result.batch_stride + h * result.head_stride;
    float* lse = p.lse.data + b * p.lse.batch_stride + h * p.lse.head_stride;
    for (int64_t query = begin; query < end; query += kStrip) {
      const int64_t queries = MinOf(kStrip, end - query);
      PackAllRows(q + query * p.q.token_stride, p.q.token_stride, queries, shape.head_dim, nullptr,
                  x.q);
      PrefetchRows(q, p.q.token_stride, query + kStrip, MinOf(query + 2 * kStrip, end),
                   shape.head_dim);
      const int64_t last_key = shape.causal ? query + queries + offset : keys;
      const StripState state = RunStrip(l, x, shape, query, last_key, offset);
      WriteStrip(x, shape, state, queries, out + query * result.token_stride, result.token_stride,
                 lse + query * p.lse.token_stride, p.lse.token_stride);
    }
  }
  ReleaseTiles();
}

}  // namespace

bool FlashAttentionAmxBuilt() { return true; }

size_t FlashForwardAmxScratchBytes(const FlashAttentionShape& shape) {
  return Layout(shape).Bytes();
}

void FlashForwardAmx(const FlashAttentionForwardParams& p, int64_t task, void* scratch) {
  p.out_fp32.data != nullptr ? RunTask(p, p.out_fp32, task, scratch)
                             : RunTask(p, p.out, task, scratch);
}

}  // namespace ll

#else

namespace ll {
bool FlashAttentionAmxBuilt() { return false; }
size_t FlashForwardAmxScratchBytes(const FlashAttentionShape&) { return 0; }
void FlashForwardAmx(const FlashAttentionForwardParams&, int64_t, void*) {}
}  // namespace ll

#endif
