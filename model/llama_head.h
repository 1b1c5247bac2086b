// The end of the model: final norm, logits, loss. Logits exist for a chunk of tokens at a time
// only.
#pragma once

#include <vector>

#include <ATen/ATen.h>

#include "model/llama_layer.h"

namespace ll {

class LlamaHead {
 public:
  // `weight` [V, d] is the head's matrix in the compute dtype (the embedding where tied); `dweight`
  // fp32 [V, d] receives its gradient, undefined where it is frozen. `trainable`: NllAndGradient
  // will be called.
  LlamaHead(NormWeight norm, double eps, at::Tensor weight, at::Tensor dweight, bool trainable,
            int64_t chunk_tokens)
      : norm_(std::move(norm)),
        eps_(eps),
        weight_(weight),
        dweight_(dweight),
        trainable_(trainable),
        chunk_tokens_(chunk_tokens) {}

  // Writes nll fp32 [N] (0 where labels [N] int64 is -100). Of the layers' workspace, which is free
  // here, `normed` is overwritten.
  void Nll(const at::Tensor& x, const at::Tensor& labels, at::Tensor& nll, Workspace& w);
  // The same, and x [N, d] becomes the gradient of grad_scale * sum(nll) by x; adds dW and the
  // norm's gradient. Overwrites `dnormed` too.
  void NllAndGradient(at::Tensor& x, const at::Tensor& labels, double grad_scale, at::Tensor& nll,
                      Workspace& w);
  // All logits, fp32 [N, V]; of a single row without rounding to the compute dtype in between, so
  // that two tokens are seldom equal.
  at::Tensor Logits(const at::Tensor& x) const;

  const NormWeight& norm() const { return norm_; }
  // Frees the logits buffer.
  void ReleaseBuffers() { logits_ = input_ = at::Tensor(); }

 private:
  int64_t ChunkTokens(int64_t tokens, const Workspace& w) const;
  // Writes h = norm(x) and returns what it divided by, fp32 [N].
  at::Tensor Normalize(const at::Tensor& x, at::Tensor& h) const;

  NormWeight norm_;
  double eps_;
  at::Tensor weight_, dweight_;
  bool trainable_;
  int64_t chunk_tokens_;
  at::Tensor logits_;    // [chunk, V], reused
  at::Tensor input_;     // [chunk, d], reused: a copy of what its gradient is written over
  at::Tensor dw_chunk_;  // [V, d] bf16, reused
};

}  // namespace ll
