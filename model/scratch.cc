#include "model/scratch.h"

#include <c10/util/accumulate.h>

namespace ll {

at::Tensor Scratch(ScratchUse use, at::IntArrayRef sizes, const at::TensorOptions& options) {
  static thread_local at::Tensor buffers[static_cast<size_t>(ScratchUse::kCount)];
  at::Tensor& buffer = buffers[static_cast<size_t>(use)];
  const int64_t elements = c10::multiply_integers(sizes);
  if (!buffer.defined() || buffer.numel() < elements || buffer.dtype() != options.dtype() ||
      buffer.device() != options.device()) {
    buffer = at::Tensor();  // the old one goes before the new one comes
    buffer = at::empty({elements}, options);
  }
  return buffer.narrow(0, 0, elements).view(sizes);
}

}  // namespace ll
