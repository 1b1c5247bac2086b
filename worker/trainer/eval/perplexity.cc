#include "worker/trainer/eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/torch_edge.h"
#include "worker/trainer/data/loader.h"
#include "worker/trainer/error_class.h"

namespace ll {
namespace {

// Positions 1 … seq_len - 1 in equal parts, the last one perhaps smaller.
struct Buckets {
  Buckets(int64_t seq_len, int64_t wanted)
      : width((seq_len - 1 + std::clamp<int64_t>(wanted, 1, seq_len - 1) - 1) /
              std::clamp<int64_t>(wanted, 1, seq_len - 1)),
        count((seq_len - 1 + width - 1) / width) {}
  int64_t Of(int64_t position) const { return (position - 1) / width; }

  int64_t width, count;
};

// A row a window: the sum over scored tokens, then the sums by bucket. Rows of other ranks' windows
// are zero until the sum over ranks, which is therefore exact.
absl::StatusOr<at::Tensor> WindowSums(Llama& model, const TokenFile& file,
                                      const std::vector<Window>& windows, const Buckets& buckets,
                                      Comm& comm) {
  const int64_t columns = 1 + buckets.count;
  at::Tensor sums = at::zeros({static_cast<int64_t>(windows.size()), columns}, at::kDouble);
  const AttentionSpec full;
  at::Tensor per_token;
  for (size_t first = 0; first < windows.size(); first += static_cast<size_t>(comm.world_size())) {
    const size_t w = first + static_cast<size_t>(comm.rank());
    if (w >= windows.size()) {  // the others' windows are one more
      LL_RETURN_IF_ERROR(model.SitOut(/*backward=*/false));
      continue;
    }
    const Window& window = windows[w];
    LL_RETURN_IF_ERROR(
        model.Nll(ReadRow(file, window.begin, window.end), full, &per_token).status());
    const at::Tensor host = per_token.cpu();
    const float* nll = host.const_data_ptr<float>();  // of the token after each position
    double* row = sums.mutable_data_ptr<double>() + static_cast<int64_t>(w) * columns;
    for (int64_t position = 1; position < window.end - window.begin; ++position) {
      const double value = nll[position - 1];
      if (window.begin + position >= window.first_scored) row[0] += value;
      row[1 + buckets.Of(position)] += value;
    }
  }
  LL_RETURN_IF_ERROR(comm.AllReduceSum({sums}));
  return sums;
}

void AddUp(const std::vector<Window>& windows, const at::Tensor& sums, const Buckets& buckets,
           WindowMode mode, PerplexityResult& result) {
  const double* row = sums.const_data_ptr<double>();
  result.by_position.resize(static_cast<size_t>(buckets.count));
  double total = 0, mean_of_means = 0;
  for (const Window& window : windows) {
    const int64_t scored = window.end - window.first_scored;
    result.tokens += scored;
    total += row[0];
    mean_of_means += row[0] / static_cast<double>(scored);
    for (int64_t b = 0; b < buckets.count; ++b) {
      PositionBucket& bucket = result.by_position[static_cast<size_t>(b)];
      bucket.first = 1 + b * buckets.width;
      const int64_t last = std::min((b + 1) * buckets.width, window.end - window.begin - 1);
      bucket.last = std::max(bucket.last, last);
      bucket.tokens += std::max<int64_t>(0, last - bucket.first + 1);
      bucket.nll += row[1 + b];
    }
    row += 1 + buckets.count;
  }
  for (PositionBucket& bucket : result.by_position)
    bucket.nll /= static_cast<double>(std::max<int64_t>(1, bucket.tokens));
  result.windows = static_cast<int64_t>(windows.size());
  result.nll = mode == WindowMode::kOfficial ? mean_of_means / static_cast<double>(result.windows)
                                             : total / static_cast<double>(result.tokens);
  result.perplexity = std::exp(result.nll);
}

}  // namespace

nlohmann::ordered_json ToJson(const PerplexityResult& result) {
  nlohmann::ordered_json by_position = nlohmann::ordered_json::array();
  for (const PositionBucket& bucket : result.by_position) {
    by_position.push_back({{"first", bucket.first},
                           {"last", bucket.last},
                           {"tokens", bucket.tokens},
                           {"nll", bucket.nll},
                           {"perplexity", std::exp(bucket.nll)}});
  }
  return {{"perplexity", result.perplexity}, {"nll", result.nll},
          {"tokens", result.tokens},         {"windows", result.windows},
          {"seconds", result.seconds},       {"by_position", std::move(by_position)}};
}

absl::StatusOr<PerplexityResult> Perplexity(Llama& model, const TokenFile& file,
                                            const PerplexityOptions& options, Comm& comm) {
  const absl::Duration start = RealClock().Steady();
  LL_ASSIGN_OR_RETURN(
      const std::vector<Window> windows,
      PlanWindows(file.size(), options.seq_len, options.sliding_window, options.mode));
  const Buckets buckets(options.seq_len, options.position_buckets);
  LL_ASSIGN_OR_RETURN(const at::Tensor sums, WindowSums(model, file, windows, buckets, comm));
  PerplexityResult result;
  AddUp(windows, sums, buckets, options.mode, result);
  if (!std::isfinite(result.nll)) {
    return WithErrorClass(
        FieldStatus(absl::StatusCode::kInternal, "nll", absl::StrCat("became ", result.nll)),
        ErrorClass::kNotANumber);
  }
  result.seconds = absl::ToDoubleSeconds(RealClock().Steady() - start);
  return result;
}

}  // namespace ll
