#include "worker/trainer/eval/perplexity.h"

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

// Sums of the windows this rank computes, zero elsewhere: adding the ranks' vectors is then exact.
absl::StatusOr<at::Tensor> WindowSums(Llama& model, const TokenFile& file,
                                      const std::vector<int64_t>& starts, int64_t seq_len,
                                      Comm& comm) {
  at::Tensor sums = at::zeros({static_cast<int64_t>(starts.size())}, at::kDouble);
  const AttentionSpec full;
  for (size_t w = static_cast<size_t>(comm.rank()); w < starts.size();
       w += static_cast<size_t>(comm.world_size())) {
    LL_ASSIGN_OR_RETURN(const double nll,
                        model.Nll(ReadRow(file, starts[w], starts[w] + seq_len), full));
    sums[static_cast<int64_t>(w)] = nll;
  }
  LL_RETURN_IF_ERROR(comm.AllReduceSum({sums}));
  return sums;
}

}  // namespace

nlohmann::ordered_json ToJson(const PerplexityResult& result) {
  return {{"perplexity", result.perplexity},
          {"nll", result.nll},
          {"tokens", result.tokens},
          {"windows", result.windows},
          {"seconds", result.seconds}};
}

absl::StatusOr<PerplexityResult> Perplexity(Llama& model, const TokenFile& file,
                                            const PerplexityOptions& options, Comm& comm) {
  const absl::Duration start = RealClock().Steady();
  LL_ASSIGN_OR_RETURN(
      const std::vector<int64_t> starts,
      WindowStarts(file.size(), options.seq_len, options.sliding_window, options.mode));
  LL_ASSIGN_OR_RETURN(const at::Tensor sums,
                      WindowSums(model, file, starts, options.seq_len, comm));
  PerplexityResult result;
  result.windows = static_cast<int64_t>(starts.size());
  const int64_t predictions = options.seq_len - 1;
  result.tokens = result.windows * predictions;
  // Every window has as many predictions as any other, so the mean of means and the total over the
  // total are one value.
  double total = 0;
  const double* values = sums.const_data_ptr<double>();
  for (int64_t w = 0; w < result.windows; ++w)
    total += values[w] / static_cast<double>(predictions);
  result.nll = total / static_cast<double>(result.windows);
  result.perplexity = std::exp(result.nll);
  if (!std::isfinite(result.nll)) {
    return WithErrorClass(
        FieldStatus(absl::StatusCode::kInternal, "nll", absl::StrCat("became ", result.nll)),
        ErrorClass::kNotANumber);
  }
  result.seconds = absl::ToDoubleSeconds(RealClock().Steady() - start);
  return result;
}

}  // namespace ll
