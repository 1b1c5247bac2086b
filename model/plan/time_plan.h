// FLOPs of a forward pass and of a training step, and the time they take on a device.
//
// Pure functions, thread-safe. Sources: LongLoRA's table (Chen et al. 2023) for ForwardFlops; for a
// step, GEMM = (4 + 2 rho) P S with rho the recomputed share, attention (1 + rho + 2.5) times its
// forward; bytes on the wire as the ZeRO paper (Rajbhandari et al. 2020) counts them. What a
// layer's operations do is counted as `ll-trainer profile step` counts it, and a probe's rates are
// by the same counts (worker/trainer/probe.h).
#pragma once

#include <cstdint>
#include <string>

#include "model/plan/config.h"
#include "model/plan/devices.h"
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

// Of one query and key in every head and layer.
double AttentionQueryFlops(const LlamaConfig& config);

// What the kernels that work element by element (norms, rotation, SwiGLU) read and write for a
// token and layer, forward, backward and again where it is recomputed, in bf16. `recompute`:
// "none", "selective" or "full".
double ElementwiseBytes(const LlamaConfig& config, const JobSpec& spec,
                        const std::string& recompute);
// The same of the loss, for a token: its logits, which become their gradients.
double LossBytes(const LlamaConfig& config);
// FLOPs of the adapters' products for a token, forward and backward: A's three and what is computed
// of it anew, B's three.
double LoraFlops(const LlamaConfig& config, const JobSpec& spec, const std::string& recompute);
// What the expansion of a weight from NF4 does: half a byte and a scale read, two bytes written.
inline constexpr double kExpansionBytes = 2.5 + 1.0 / 64;
// Elements of a layer that are expanded for a row: every weight's for the forward and for the
// backward pass, which also serves what is computed again; but where that pass reads it transposed
// (`transposes`: a CPU in bf16) it is expanded for both.
double ExpandedElements(const LlamaConfig& config, const JobSpec& spec,
                        const std::string& recompute, bool transposes);
// What the conversions of an fp8 base's products read and write in a layer: of features, for a
// token; of weights, for a row. `multiplies`: the device multiplies e4m3 (model/fp8_product.h).
struct Fp8Bytes {
  double token = 0, weights = 0;
};
Fp8Bytes ConversionBytes(const LlamaConfig& config, const std::string& recompute, bool multiplies);
// What an update does for a parameter: its gradient is set to zero and read for the norm; AdamW
// reads gradient, moments and master and writes the last three and the compute copy.
inline constexpr double kOptimizerBytes = 38;

// Where the devices of a job are: `per_host` of them share a host's links, others the network.
struct Links {
  int64_t per_host = 8;
};

// An optimizer step's time by what it goes to, in seconds.
struct StepForecast {
  double gemm = 0;
  double attention = 0;
  double recompute = 0;       // products and attention computed again
  double memory_traffic = 0;  // elementwise kernels, the expansion of NF4 weights, fp8 conversions
  double communication =
      0;  // what does not hide behind computing, and waiting for the slowest rank
  double optimizer = 0;
  double offload = 0;
  double total() const {
    return gemm + attention + recompute + memory_traffic + communication + optimizer + offload;
  }
};

// One optimizer step of a resolved training with `recompute` in place of the spec's: all zero where
// the rates are not known, or the job does not train. The last steps of a training may use full
// attention: averaged over all.
StepForecast ForecastStep(const LlamaConfig& config, const JobSpec& resolved,
                          const std::string& recompute, const DeviceRates& rates,
                          const Links& links);

struct TimeForecast {
  StepForecast step;
  double step_seconds = 0;       // one optimizer step; 0: not known
  double tokens_per_second = 0;  // of the whole job, all ranks; 0: not known
  double duration_seconds = 0;   // all steps; 0: not known
};
TimeForecast ForecastTime(const LlamaConfig& config, const JobSpec& resolved,
                          const std::string& recompute, const DeviceRates& rates,
                          const Links& links = {});

}  // namespace ll
