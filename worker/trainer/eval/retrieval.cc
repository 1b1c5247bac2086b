#include "worker/trainer/eval/retrieval.h"

#include <algorithm>
#include <numeric>

#include "base/status_macros.h"

namespace ll {

absl::StatusOr<std::vector<bool>> RunTests(absl::Span<const RetrievalTest> tests,
                                           CompleteFn complete, Comm& comm,
                                           const ProgressFn& progress) {
  std::vector<size_t> order(tests.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // Neighbours in the order of their ids share the longest prefixes there are to share.
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return tests[a].prompt < tests[b].prompt; });
  at::Tensor passed = at::zeros({static_cast<int64_t>(tests.size())}, at::kDouble);
  double* answers = passed.mutable_data_ptr<double>();
  const size_t rank = static_cast<size_t>(comm.rank()),
               world = static_cast<size_t>(comm.world_size());
  const int64_t mine = static_cast<int64_t>((tests.size() + world - 1 - rank) / world);
  int64_t done = 0;
  for (size_t i = rank; i < order.size(); i += world) {
    const RetrievalTest& test = tests[order[i]];
    LL_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, complete(test.prompt, test.new_tokens));
    answers[order[i]] = test.is_right(ids) ? 1 : 0;
    if (progress) progress(++done, mine);
  }
  LL_RETURN_IF_ERROR(comm.AllReduceSum({passed}));
  std::vector<bool> out(tests.size());
  for (size_t i = 0; i < tests.size(); ++i) out[i] = answers[i] > 0;
  return out;
}

int64_t EffectiveContextLength(std::vector<LengthScore> by_length) {
  std::sort(by_length.begin(), by_length.end(),
            [](const LengthScore& a, const LengthScore& b) { return a.length < b.length; });
  int64_t effective = 0;
  for (const LengthScore& at : by_length) {
    if (at.score.accuracy() < kEffectiveAccuracy) break;
    effective = at.length;
  }
  return effective;
}

}  // namespace ll
