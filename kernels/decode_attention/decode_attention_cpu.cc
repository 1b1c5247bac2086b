#include "kernels/common/simd.h"
#include "kernels/decode_attention/decode_attention.h"

namespace ll::LL_SIMD {
namespace {

// Dot products of q (fp32 [dim]) with kKeys keys that lie behind each other.
template <int kKeys, typename T>
void Scores(const float* q, const T* k, int64_t dim, float scale, float* scores) {
  F sums[kKeys];
  for (int j = 0; j < kKeys; ++j) sums[j] = F{};
  ForVectors(
      dim,
      [&](int64_t i) {
        const F x = Load(q + i);
        for (int j = 0; j < kKeys; ++j) sums[j] += Load(k + j * dim + i) * x;
      },
      [&](int64_t i, int64_t n) {
        const F x = LoadPart(q + i, n);
        for (int j = 0; j < kKeys; ++j) sums[j] += LoadPart(k + j * dim + i, n) * x;
      });
  for (int j = 0; j < kKeys; ++j) scores[j] = scale * Sum(sums[j]);
}

// The block's share of one head.
template <typename T>
void Head(const T* q, const T* k, const T* v, int64_t dim, int64_t keys, float scale,
          float* partial) {
  float wide[kDecodeMaxHeadDim], scores[kDecodeBlockKeys];
  ForVectors(
      dim, [&](int64_t i) { Store(wide + i, Load(q + i)); },
      [&](int64_t i, int64_t n) { StorePart(wide + i, LoadPart(q + i, n), n); });
  int64_t t = 0;
  for (; t + 4 <= keys; t += 4) Scores<4>(wide, k + t * dim, dim, scale, scores + t);
  for (; t < keys; ++t) Scores<1>(wide, k + t * dim, dim, scale, scores + t);
  float largest = scores[0];
  for (t = 1; t < keys; ++t) largest = scores[t] > largest ? scores[t] : largest;
  F sum{};
  ForVectors(
      keys,
      [&](int64_t i) {
        const F p = Exp(Load(scores + i) - largest);
        Store(scores + i, p);
        sum += p;
      },
      [&](int64_t i, int64_t n) {
        F p = Exp(LoadPart(scores + i, n) - largest);
        for (int64_t j = n; j < kLanes; ++j) p[j] = 0;
        StorePart(scores + i, p, n);
        sum += p;
      });
  ForVectors(
      dim,
      [&](int64_t i) {
        F a{}, b{};
        int64_t j = 0;
        for (; j + 2 <= keys; j += 2) {
          a += Load(v + j * dim + i) * scores[j];
          b += Load(v + (j + 1) * dim + i) * scores[j + 1];
        }
        for (; j < keys; ++j) a += Load(v + j * dim + i) * scores[j];
        Store(partial + i, a + b);
      },
      [&](int64_t i, int64_t n) {
        F a{};
        for (int64_t j = 0; j < keys; ++j) a += LoadPart(v + j * dim + i, n) * scores[j];
        StorePart(partial + i, a, n);
      });
  partial[dim] = largest;
  partial[dim + 1] = Sum(sum);
}

template <typename T>
void Items(const DecodeAttentionParams& p, int64_t begin, int64_t end) {
  const int64_t group = p.heads / p.kv_heads, blocks = DecodeBlocks(p.keys);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t kv_head = item / blocks, block = item % blocks, first = block * kDecodeBlockKeys;
    const int64_t keys = p.keys - first < kDecodeBlockKeys ? p.keys - first : kDecodeBlockKeys;
    const int64_t offset = kv_head * p.kv_stride + first * p.head_dim;
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
      Head(static_cast<const T*>(p.q) + h * p.head_dim, static_cast<const T*>(p.k) + offset,
           static_cast<const T*>(p.v) + offset, p.head_dim, keys, p.scale,
           p.partial + (block * p.heads + h) * (p.head_dim + 2));
    }
  }
}

template <typename T>
void Merge(const DecodeAttentionParams& p, int64_t begin, int64_t end) {
  const int64_t blocks = DecodeBlocks(p.keys), width = p.head_dim + 2;
  for (int64_t h = begin; h < end; ++h) {
    const float* first = p.partial + h * width;
    const int64_t step = p.heads * width;
    float largest = first[p.head_dim];
    for (int64_t b = 1; b < blocks; ++b) {
      const float m = first[b * step + p.head_dim];
      largest = m > largest ? m : largest;
    }
    float total = 0;
    for (int64_t b = 0; b < blocks; ++b) {
      total += Exp(Splat(first[b * step + p.head_dim] - largest))[0] * first[b * step + width - 1];
    }
    T* out = static_cast<T*>(p.out) + h * p.head_dim;
    const auto merged = [&](auto load) {
      F sum{};
      for (int64_t b = 0; b < blocks; ++b)
        sum += Exp(Splat(first[b * step + p.head_dim] - largest)) * load(first + b * step);
      return sum / total;
    };
    ForVectors(
        p.head_dim,
        [&](int64_t i) { Store(out + i, merged([&](const float* at) { return Load(at + i); })); },
        [&](int64_t i, int64_t n) {
          StorePart(out + i, merged([&](const float* at) { return LoadPart(at + i, n); }), n);
        });
  }
}

}  // namespace

void DecodeAttention(const DecodeAttentionParams& p, int64_t begin, int64_t end) {
  p.dtype == DType::kFloat32 ? Items<float>(p, begin, end) : Items<BFloat16>(p, begin, end);
}

void DecodeAttentionMerge(const DecodeAttentionParams& p, int64_t begin, int64_t end) {
  p.dtype == DType::kFloat32 ? Merge<float>(p, begin, end) : Merge<BFloat16>(p, begin, end);
}

}  // namespace ll::LL_SIMD
