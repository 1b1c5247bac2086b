#include "model/generation/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"

namespace ll {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

void PenalizeRepetition(double penalty, absl::Span<const int32_t> context,
                        absl::Span<float> logits) {
  std::vector<bool> seen(logits.size());
  for (const int32_t id : context) {
    const auto i = static_cast<size_t>(id);
    if (seen[i]) continue;
    seen[i] = true;
    logits[i] = static_cast<float>(logits[i] < 0 ? logits[i] * penalty : logits[i] / penalty);
  }
}

// Where the likeliest one's quotient would leave fp32's range all are taken relative to it: the
// same distribution.
void Cool(double temperature, absl::Span<float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  const bool fits = std::abs(largest) / temperature <= std::numeric_limits<float>::max();
  const double from = fits ? 0 : largest;
  for (float& logit : logits) logit = static_cast<float>((logit - from) / temperature);
}

void KeepTopK(int64_t k, absl::Span<float> logits) {
  if (k <= 0 || k >= static_cast<int64_t>(logits.size())) return;
  std::vector<float> sorted(logits.begin(), logits.end());
  std::nth_element(sorted.begin(), sorted.begin() + (k - 1), sorted.end(), std::greater<>());
  const float kth = sorted[static_cast<size_t>(k - 1)];
  for (float& logit : logits) {
    if (logit < kth) logit = kNever;
  }
}

// A token stays while those likelier than it have together less than p.
void KeepTopP(double p, absl::Span<float> logits) {
  if (p >= 1) return;
  const float largest = *std::max_element(logits.begin(), logits.end());
  std::vector<size_t> order;
  double total = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] == kNever) continue;
    order.push_back(i);
    total += std::exp(static_cast<double>(logits[i] - largest));
  }
  const auto likelier = [&](size_t a, size_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  // Few tokens usually hold the mass: the rest is sorted only when it is needed.
  size_t sorted = 0, kept = 0;
  for (double mass = 0; kept < order.size() && (kept == 0 || mass < p * total); ++kept) {
    if (kept == sorted) {
      const size_t end = std::min(order.size(), std::max<size_t>(64, 8 * sorted));
      std::partial_sort(order.begin() + static_cast<std::ptrdiff_t>(sorted),
                        order.begin() + static_cast<std::ptrdiff_t>(end), order.end(), likelier);
      sorted = end;
    }
    mass += std::exp(static_cast<double>(logits[order[kept]] - largest));
  }
  for (size_t i = kept; i < order.size(); ++i) logits[order[i]] = kNever;
}

// In [0, 1), of (seed, draw) alone: two rounds of SplitMix64's finalizer (Steele et al. 2014).
double Uniform(uint64_t seed, uint64_t draw) {
  const auto mix = [](uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  };
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;
  return static_cast<double>(mix(mix(seed + kGolden) + (draw + 1) * kGolden) >> 11) * 0x1p-53;
}

}  // namespace

absl::Status CheckSampling(const SamplingOptions& o) {
  if (!(o.temperature >= 0) || !std::isfinite(o.temperature))
    return MakeFieldError({"temperature", "0 (greedy) or more", absl::StrCat(o.temperature)});
  if (o.top_k < 0)
    return MakeFieldError({"top_k", "0 (all tokens) or more", absl::StrCat(o.top_k)});
  if (!(o.top_p > 0 && o.top_p <= 1))
    return MakeFieldError({"top_p", "more than 0 and at most 1", absl::StrCat(o.top_p)});
  if (!(o.repetition_penalty > 0) || !std::isfinite(o.repetition_penalty)) {
    return MakeFieldError(
        {"repetition_penalty", "more than 0 (1: no penalty)", absl::StrCat(o.repetition_penalty)});
  }
  return absl::OkStatus();
}

void ProcessLogits(const SamplingOptions& options, absl::Span<const int32_t> context,
                   absl::Span<float> logits) {
  if (options.repetition_penalty != 1)
    PenalizeRepetition(options.repetition_penalty, context, logits);
  if (options.greedy()) return;
  if (options.temperature != 1) Cool(options.temperature, logits);
  KeepTopK(options.top_k, logits);
  KeepTopP(options.top_p, logits);
}

int32_t DrawToken(const SamplingOptions& options, uint64_t draw, absl::Span<const float> logits) {
  size_t best = 0;
  bool comparable = true;
  for (size_t i = 0; i < logits.size(); ++i) {
    comparable = comparable && !std::isnan(logits[i]);
    if (logits[i] > logits[best]) best = i;
  }
  if (logits.empty() || !comparable || logits[best] == kNever) return -1;
  if (options.greedy() || std::isinf(logits[best])) return static_cast<int32_t>(best);
  double total = 0;
  for (const float logit : logits) {
    if (logit != kNever) total += std::exp(static_cast<double>(logit - logits[best]));
  }
  double left = Uniform(options.seed, draw) * total;
  size_t last = best;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] == kNever) continue;
    last = i;
    left -= std::exp(static_cast<double>(logits[i] - logits[best]));
    if (left < 0) break;
  }
  return static_cast<int32_t>(last);  // rounding may leave a rest behind the last token
}

}  // namespace ll
