#include "kernels/merge_attention/merge_attention.h"

#include "kernels/common/torch_adapter.h"
#include "kernels/ops.h"

namespace ll {

void MergeAttention(at::Tensor& out, at::Tensor& lse, const at::Tensor& part,
                    const at::Tensor& part_lse) {
  CheckOperand(out);
  CheckOperand(part);
  LL_CHECK(out.dim() == 3 && out.sizes() == part.sizes());
  const int64_t tokens = out.size(0), heads = out.size(1), dim = out.size(2);
  for (const at::Tensor& t : {lse, part_lse}) {
    LL_CHECK(t.dim() == 2 && t.size(0) == heads && t.size(1) == tokens && t.stride(1) == 1);
  }
  const MergeAttentionParams p{out.data_ptr<float>(),
                               lse.data_ptr<float>(),
                               part.const_data_ptr<float>(),
                               part_lse.const_data_ptr<float>(),
                               lse.stride(0),
                               part_lse.stride(0),
                               heads,
                               dim};
  const OpScope scope("attention merge", [&] { return Moves({out, out, part}); });
  RunKernel(out, p, tokens, Grain(heads * dim), MergeAttention, &CudaKernels::merge_attention);
}

}  // namespace ll
