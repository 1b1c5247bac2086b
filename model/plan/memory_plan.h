// Forecast of a training rank's peak memory, and whether a job fits on a device.
//
// First version: data parallel only, the base replicated, optimizer state of the trainable
// parameters replicated, one row in flight; other kinds of job than train keep no activations and
// no optimizer state. Bytes follow from shapes alone; what is measured stands in one place
// (kRuntimeBytes…, memory_plan.cc). Source of the activation counts: bytes a token and layer that
// LoRA's backward needs, {h1, q, k, v, O, h2, gate, up}. Pure functions, thread-safe. Units: bytes
// and tokens.
#pragma once

#include <cstdint>
#include <string>

#include "model/plan/config.h"
#include "model/spec/job_spec.h"

namespace ll {

// Parameters that train under a resolved spec: LoRA's r*(in+out) per target, embedding and norms
// (head not counted again where it is tied), or all of them with method full.
int64_t LoraParameterCount(const LlamaConfig& config, const JobSpec& resolved);
int64_t TrainableParameterCount(const LlamaConfig& config, const JobSpec& resolved);

struct MemoryForecast {
  int64_t weights = 0;  // the base in compute precision (NF4: ~4.13 bits for the linears)
  int64_t trainables =
      0;  // fp32 master, two AdamW moments and gradient; LoRA also its compute copy
  int64_t activations = 0;  // kept from the forward for the backward pass
  int64_t workspace = 0;    // one layer's forward and backward
  int64_t head = 0;         // a chunk of logits and their gradient
  int64_t runtime = 0;      // library, device context, communication buffers
  std::string recompute;    // the setting these numbers are for
  int64_t total() const { return weights + trainables + activations + workspace + head + runtime; }
};

struct Device {
  std::string kind;          // "cpu", "A100-80", "H100", …
  int64_t memory_bytes = 0;  // of one slot
  bool IsGpu() const { return kind != "cpu"; }
};

// The forecast for one rank with `recompute` ("none", "selective" or "full") in place of the
// spec's.
MemoryForecast ForecastMemory(const LlamaConfig& config, const JobSpec& resolved, bool gpu,
                              const std::string& recompute);

struct FitResult {
  bool fits = false;
  int64_t needed_bytes = 0;     // with the chosen recompute
  int64_t available_bytes = 0;  // of a slot, less a reserve
  std::string recompute;        // the cheapest setting that fits, or the leanest where none does
  std::string explanation;      // one sentence for people
  std::string
      nearest;  // the nearest configuration that fits; empty when this one does or none would
};

// Whether a rank of the job fits on `device`. With recompute auto the least recomputation that fits
// is chosen.
FitResult Fits(const LlamaConfig& config, const JobSpec& resolved, const Device& device);

}  // namespace ll
