// LibTorch's attention entry points under one signature, so that one set of cases judges them all.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <ATen/ATen.h>

namespace ll::gpu {

// q [B, H, Nq, D], k and v [B, K, Nk, D] with any strides of batch, head and token; H a multiple of
// K.
struct AttentionInputs {
  at::Tensor q, k, v;
};

struct AttentionGradients {
  at::Tensor dq, dk, dv;
};

// What a forward call returned and its backward needs: [0] is the output [B, H, Nq, D], [1] the
// log-sum-exp.
using Saved = std::vector<at::Tensor>;

// Causal, scaled by 1/sqrt(D). Calls throw c10::Error where the entry point refuses.
struct EntryPoint {
  std::string name;
  at::DeviceType device;
  std::function<Saved(const AttentionInputs&)> forward;
  std::function<AttentionGradients(const AttentionInputs&, const Saved&, const at::Tensor& dout)>
      backward;
};

// Every entry point there is, the CPU's too: it lets the judgement itself be tested without a GPU.
const std::vector<EntryPoint>& EntryPoints();

}  // namespace ll::gpu
