// FLOPs of a forward pass and of a training step, and the time they take on a device.
//
// Pure functions, thread-safe. Sources: LongLoRA's table (Chen et al. 2023) for ForwardFlops; for a
// step, GEMM = (4 + 2 rho) P S with rho the recomputed share, attention (1 + rho + 2.5) times its
// forward.
#pragma once

#include <cstdint>
#include <string>

#include "model/plan/config.h"
#include "model/spec/job_spec.h"

namespace ll {

// FLOPs (2 per multiply-add) of the forward pass of one sequence.
struct FlopCount {
  double attention = 0, projections = 0, feed_forward = 0, others = 0;
  double total() const { return attention + projections + feed_forward + others; }
};

// In the convention of LongLoRA's table: attention without the causal half, groups as full blocks.
// `group_tokens` = tokens for full attention.
FlopCount ForwardFlops(const LlamaConfig& config, int64_t tokens, int64_t group_tokens);

// Exact causal FLOPs of attention's forward in all layers: pairs (query, key) that are visible
// (in a layer's sliding window too), 4*head_dim each, over all query heads. kind: "s2" (split),
// "short" or "full"; group_tokens is unused by "full".
double CausalAttentionFlops(const LlamaConfig& config, int64_t tokens, const std::string& kind,
                            int64_t group_tokens);

// What a device reaches in practice, FLOP/s. Zero: not known.
struct Throughput {
  double gemm = 0, attention = 0;
  double peak = 0;  // data sheet, bf16 dense; for mfu
};
// By device kind ("A100-80", "H100", "H200", "B200", …); all zero for a kind whose speed depends on
// the host ("cpu").
Throughput ThroughputOf(const std::string& device_kind);

struct TimeForecast {
  double step_seconds = 0;       // one optimizer step; 0: not known
  double tokens_per_second = 0;  // of the whole job, all ranks; 0: not known
  double duration_seconds = 0;   // all steps; 0: not known
};
// `recompute` as FitResult chose it. Communication is not counted: LoRA's gradients are small.
TimeForecast ForecastTime(const LlamaConfig& config, const JobSpec& resolved,
                          const std::string& recompute, const Throughput& device);

}  // namespace ll
