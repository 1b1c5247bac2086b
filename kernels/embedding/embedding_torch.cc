#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/common/torch_adapter.h"
#include "kernels/embedding/embedding.h"
#include "kernels/ops.h"

namespace ll {
namespace {

// On a GPU the positions are sorted there, so that the host need not wait.
void BackwardOnGpu(const at::Tensor& dy, const at::Tensor& tokens, at::Tensor& grad) {
  const at::Tensor order = std::get<1>(at::sort(tokens, std::optional<bool>(true), 0, false));
  const EmbeddingBackwardParams p{dy.const_data_ptr(),
                                  grad.data_ptr<float>(),
                                  tokens.const_data_ptr<int64_t>(),
                                  order.const_data_ptr<int64_t>(),
                                  nullptr,
                                  dy.size(1),
                                  DTypeOf(dy)};
  RunKernel(dy, p, tokens.numel(), 1, EmbeddingBackward, &CudaKernels::embedding_backward);
}

}  // namespace

void EmbeddingForward(const at::Tensor& table, const at::Tensor& tokens, at::Tensor& out) {
  CheckOperand(table);
  CheckOperand(tokens);
  CheckOperand(out);
  LL_CHECK(table.scalar_type() == out.scalar_type() && out.size(0) == tokens.numel());
  const OpScope scope("embedding", [&] { return Moves({out, out, tokens}); });
  if (table.is_cuda()) {
    at::index_select_out(out, table, 0, tokens);
    return;
  }
  const int64_t row_bytes = table.size(1) * table.element_size();
  const char* from = static_cast<const char*>(table.const_data_ptr());
  char* to = static_cast<char*>(out.data_ptr());
  const int64_t* ids = tokens.const_data_ptr<int64_t>();
  at::parallel_for(0, tokens.numel(), Grain(table.size(1)), [&](int64_t b, int64_t e) {
    for (int64_t t = b; t < e; ++t)
      std::memcpy(to + t * row_bytes, from + ids[t] * row_bytes, row_bytes);
  });
}

void EmbeddingBackward(const at::Tensor& dy, const at::Tensor& tokens, at::Tensor& grad) {
  CheckOperand(dy);
  CheckOperand(tokens);
  CheckOperand(grad);
  LL_CHECK(dy.size(0) == tokens.numel() && dy.size(1) == grad.size(1));
  const OpScope scope("embedding", [&] {
    // Every row of dy is read once and added to one of the table's.
    OpWork work = Moves({dy, tokens});
    work.bytes += 8.0 * static_cast<double>(dy.numel());
    return work;
  });
  if (CudaKernelsFor(dy) != nullptr) return BackwardOnGpu(dy, tokens, grad);
  const int64_t* ids = tokens.const_data_ptr<int64_t>();
  std::vector<int64_t> order(tokens.numel());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return ids[a] < ids[b]; });
  std::vector<int64_t> starts;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || ids[order[i]] != ids[order[i - 1]]) starts.push_back(static_cast<int64_t>(i));
  }
  const int64_t groups = static_cast<int64_t>(starts.size());
  starts.push_back(static_cast<int64_t>(order.size()));
  const EmbeddingBackwardParams p{dy.const_data_ptr(), grad.data_ptr<float>(), ids,
                                  order.data(),        starts.data(),          dy.size(1),
                                  DTypeOf(dy)};
  at::parallel_for(0, groups, Grain(dy.size(1)),
                   [&](int64_t b, int64_t e) { EmbeddingBackward(p, b, e); });
}

}  // namespace ll
