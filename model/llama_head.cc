#include "model/llama_head.h"

#include <algorithm>

#include "kernels/common/torch_op_trace.h"
#include "kernels/ops.h"

namespace ll {
namespace {

// Bytes of logits held at a time where the caller does not say: larger chunks mean fewer passes
// over the head, and in training over its fp32 gradient. A model that is not trained has room for
// more (model/plan/memory_pass.cc counts both).
constexpr int64_t kTrainingChunkBytes = 96 << 20;
constexpr int64_t kChunkBytes = 384 << 20;

}  // namespace

int64_t LlamaHead::ChunkTokens(int64_t tokens, const Workspace& w) const {
  int64_t chunk = chunk_tokens_;
  if (chunk <= 0) {
    const int64_t bytes = trainable_ ? kTrainingChunkBytes : kChunkBytes;
    chunk = std::max<int64_t>(64, bytes / (weight_.size(0) * weight_.element_size()) / 64 * 64);
  }
  return std::min({chunk, tokens, w.normed.size(0)});
}

at::Tensor LlamaHead::Normalize(const at::Tensor& x, at::Tensor& h) const {
  at::Tensor rstd = at::empty({x.size(0)}, x.options().dtype(at::kFloat));
  RmsNormForward(x, norm_.w, eps_, h, rstd);
  return rstd;
}

void LlamaHead::Nll(const at::Tensor& x, const at::Tensor& labels, at::Tensor& nll, Workspace& w) {
  const int64_t tokens = x.size(0), chunk = ChunkTokens(tokens, w);
  if (!logits_.defined() || logits_.size(0) < chunk)
    logits_ = at::empty({chunk, weight_.size(0)}, x.options());
  for (int64_t t = 0; t < tokens; t += chunk) {
    const int64_t n = std::min(chunk, tokens - t);
    at::Tensor h = w.normed.narrow(0, 0, n), logits = logits_.narrow(0, 0, n),
               nll_chunk = nll.narrow(0, t, n);
    Normalize(x.narrow(0, t, n), h);
    at::mm_out(logits, h, weight_.t());
    CrossEntropyInPlace(logits, labels.narrow(0, t, n), 0, /*write_grad=*/false, nll_chunk);
  }
}

void LlamaHead::NllAndGradient(at::Tensor& x, const at::Tensor& labels, double grad_scale,
                               at::Tensor& nll, Workspace& w) {
  const int64_t tokens = x.size(0), chunk = ChunkTokens(tokens, w);
  if (!logits_.defined() || logits_.size(0) < chunk)
    logits_ = at::empty({chunk, weight_.size(0)}, x.options());
  if (!input_.defined() || input_.size(0) < chunk)
    input_ = at::empty({chunk, x.size(1)}, x.options());
  if (dweight_.defined() && weight_.scalar_type() != at::kFloat && !weight_.is_cuda() &&
      !dw_chunk_.defined()) {
    dw_chunk_ = at::empty_like(weight_);
  }
  at::Tensor dw_norm = norm_.grad;
  for (int64_t t = 0; t < tokens; t += chunk) {
    const int64_t n = std::min(chunk, tokens - t);
    at::Tensor x_chunk = x.narrow(0, t, n), input = input_.narrow(0, 0, n),
               h = w.normed.narrow(0, 0, n), dh = w.dnormed.narrow(0, 0, n),
               logits = logits_.narrow(0, 0, n), nll_chunk = nll.narrow(0, t, n);
    input.copy_(x_chunk);
    const at::Tensor rstd = Normalize(input, h);
    {
      const OpScope scope("product", [&] { return ProductWork(logits, h, weight_); });
      at::mm_out(logits, h, weight_.t());
    }
    CrossEntropyInPlace(logits, labels.narrow(0, t, n), grad_scale, /*write_grad=*/true, nll_chunk);
    {
      const OpScope scope("product", [&] { return ProductWork(dh, logits, weight_); });
      at::mm_out(dh, logits, weight_);
    }
    if (dweight_.defined()) AddOuterProduct(dweight_, logits, h, /*scale=*/1, dw_chunk_);
    {
      const OpScope scope("fill with zeros", [&] { return Moves({x_chunk}); });
      x_chunk.zero_();
    }
    RmsNormBackward(dh, input, norm_.w, rstd, x_chunk, dw_norm);
  }
}

at::Tensor LlamaHead::Logits(const at::Tensor& x) const {
  at::Tensor h = at::empty_like(x);
  Normalize(x, h);
  if (x.size(0) > 1) return at::mm(h, weight_.t()).to(at::kFloat);
  at::Tensor logits = at::empty({1, weight_.size(0)}, x.options().dtype(at::kFloat));
  MatVec(weight_, h, {}, logits);
  return logits;
}

}  // namespace ll
