// Forecast of a training rank's peak memory by what it goes to.
//
// Bytes follow from shapes alone: the buffers are those of model/activations.h, llama_head.h and
// projection.h, one row in flight (memory_parts.h: a function a component). What is measured is a
// constant beside what it belongs to, and is held to real runs by tests/bench/plan_matrix.py. Other
// kinds of job than train keep no activations and no optimizer state. Pure functions, thread-safe.
// Units: bytes and tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/plan/config.h"
#include "model/plan/devices.h"
#include "model/spec/job_spec.h"

namespace ll {

struct MemoryForecast {
  int64_t weights = 0;  // the base in compute precision (NF4: ~4.13 bits for the linears, fp8: 8)
  // fp32 master, gradient and two AdamW moments; LoRA also its compute copy.
  int64_t trainables = 0;
  int64_t activations = 0;    // kept from the forward for the backward pass
  int64_t workspace = 0;      // one layer's forward and backward
  int64_t head = 0;           // a chunk of logits and their gradient
  int64_t communication = 0;  // what other ranks send, gathered weights
  int64_t snapshot = 0;       // a checkpoint that is being written while training goes on
  int64_t runtime = 0;        // libraries, device context; while loading, the model's files
  int64_t correction = 0;     // what trainings like it took beyond this count (Cluster)
  std::string recompute;      // the setting these numbers are for
  int64_t total() const {
    return weights + trainables + activations + workspace + head + communication + snapshot +
           runtime + correction;
  }
};

// The parts for people, largest first: {"activations", bytes}, …
struct MemoryPart {
  const char* name;
  int64_t bytes;
};
std::vector<MemoryPart> MemoryParts(const MemoryForecast& memory);

// The forecast for one rank with `recompute` ("none", "selective" or "full") in place of the
// spec's.
MemoryForecast ForecastMemory(const LlamaConfig& config, const JobSpec& resolved, bool gpu,
                              const std::string& recompute);

// Bytes of a slot that a plan may use: a share is left for fragmentation and other processes.
int64_t UsableBytes(const Device& device);
// What a slot must have so that a plan may use `bytes` of it.
int64_t SlotBytesFor(int64_t bytes);

// The inputs of all layers, which every setting of recompute keeps: what activation_offload moves.
int64_t LayerInputBytes(const LlamaConfig& config, const JobSpec& resolved, bool gpu);
// Rows of logits that training holds at a time, with elements of so many bytes.
int64_t LossChunkTokens(const LlamaConfig& config, int64_t element);

struct FitResult {
  bool fits = false;
  int64_t needed_bytes = 0;     // with the chosen recompute
  int64_t available_bytes = 0;  // of a slot, less a reserve
  std::string recompute;        // the cheapest setting that fits, or the leanest where none does
  std::string explanation;      // one sentence for people
};

// Whether a rank of the job fits on `device`. With recompute auto the least recomputation that fits
// is chosen; all else is as the spec says (planner.h chooses the rest).
FitResult Fits(const LlamaConfig& config, const JobSpec& resolved, const Device& device);

}  // namespace ll
