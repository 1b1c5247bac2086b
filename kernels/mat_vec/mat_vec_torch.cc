#include "kernels/mat_vec/mat_vec.h"

#include <vector>

#include "kernels/common/torch_adapter.h"
#include "kernels/ops.h"

namespace ll {
namespace {

float Widen(float x) { return x; }
float Widen(at::BFloat16 x) { return static_cast<float>(x); }

template <typename T>
void Arrange(const T* x, int64_t in, bool pairs, float* out) {
  int64_t i = 0;
  if (pairs) {
    for (; i + kMatVecBlock <= in; i += kMatVecBlock) {
      for (int64_t j = 0; j < kMatVecBlock / 2; ++j) {
        out[i + j] = Widen(x[i + 2 * j]);
        out[i + kMatVecBlock / 2 + j] = Widen(x[i + 2 * j + 1]);
      }
    }
  }
  for (; i < in; ++i) out[i] = Widen(x[i]);
}

}  // namespace

void MatVec(const at::Tensor& w, const at::Tensor& x, const at::Tensor& add, at::Tensor& y) {
  CheckOperand(w);
  CheckOperand(x);
  CheckOperand(y);
  const int64_t in = w.size(1), out = w.size(0);
  LL_CHECK(w.dim() == 2 && x.numel() == in && y.numel() == out);
  LL_CHECK(x.scalar_type() == w.scalar_type());
  LL_CHECK(y.scalar_type() == w.scalar_type() || y.scalar_type() == at::kFloat);
  if (add.defined()) {
    CheckOperand(add);
    LL_CHECK(add.numel() == out && add.scalar_type() == w.scalar_type());
  }
  if (w.is_cuda()) {
    const at::Tensor product = at::mv(w, x.view({in}));
    y.view({out}).copy_(add.defined() ? product + add.view({out}) : product);
    return;
  }
  thread_local std::vector<float> arranged;
  arranged.resize(static_cast<size_t>(in));
  if (w.scalar_type() == at::kFloat) {
    Arrange(x.const_data_ptr<float>(), in, /*pairs=*/false, arranged.data());
  } else {
    Arrange(x.const_data_ptr<at::BFloat16>(), in, /*pairs=*/true, arranged.data());
  }
  const MatVecParams p{w.const_data_ptr(),
                       arranged.data(),
                       add.defined() ? add.const_data_ptr() : nullptr,
                       y.data_ptr(),
                       in,
                       DTypeOf(w),
                       DTypeOf(y)};
  at::parallel_for(0, out, Grain(in), [&](int64_t b, int64_t e) { MatVec(p, b, e); });
}

}  // namespace ll
