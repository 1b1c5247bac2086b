// The components of memory_plan.h's forecast, a function each, in bytes of one rank; torch-free and
// pure. `element` are the bytes of a weight or an activation (ElementBytes).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/plan/config.h"
#include "model/plan/job_shape.h"
#include "model/spec/job_spec.h"

namespace ll {

// Gradients that are summed at a time (worker/trainer/optim).
inline constexpr int64_t kBucketElements = 4 << 20;

// ---- memory_held.cc: what is there from step to step

// Of the linear weights of one layer.
double LayerBytes(const LlamaConfig& c, const JobSpec& s, int64_t element);
int64_t WeightBytes(const LlamaConfig& c, const JobSpec& s, int64_t element);
// The files that the weights are copied from are mapped until the model is made: they count only
// where what comes later needs less.
int64_t MappedFileBytes(const LlamaConfig& c, const JobSpec& s);

// fp32. In ZeRO stage 2 a gradient goes when its bucket has been summed, in the last row's backward
// pass: it counts whole where a rank runs several rows, and where it is the embedding's, which is
// complete at the very end.
int64_t GradientBytes(const LlamaConfig& c, const JobSpec& s);
// Masters where they are not the compute weights themselves (norms are fp32, and all with precision
// fp32), and LoRA's compute copies, which are not counted among the weights.
int64_t MasterBytes(const LlamaConfig& c, const JobSpec& s, int64_t element);
// AdamW's two moments, fp32.
int64_t OptimizerBytes(const LlamaConfig& c, const JobSpec& s);
// A checkpoint before the last one copies masters and moments, and with method full the weights,
// and is written beside the next step. The last one finds room where gradients were, and half of
// what their sum took, the rest of which the C library's allocator keeps in small pieces.
int64_t SnapshotBytes(const LlamaConfig& c, const JobSpec& s, bool gpu);

// ---- memory_pass.cc: a row's forward and backward

// Elements a token and layer keeps.
int64_t SavedElements(const LlamaConfig& c, const std::string& recompute);
// Tokens of a tile; what lies between operations that work token by token is held for so many.
int64_t TileTokens(const LlamaConfig& c, const JobSpec& s);
// Kept from the forward for the backward pass.
int64_t ActivationBytes(const LlamaConfig& c, const JobSpec& s, int64_t element, bool gpu,
                        const std::string& recompute);
// One layer at a time.
int64_t WorkspaceBytes(const LlamaConfig& c, const JobSpec& s, int64_t element, bool gpu,
                       const std::string& recompute);
// Logits and their gradient.
int64_t HeadBytes(const LlamaConfig& c, const JobSpec& s, int64_t element, bool gpu);

// ---- memory_exchange.cc: what ranks exchange

// Of the sum of gradients over ranks, after the pass: a bucket (worker/trainer/optim); or of an
// embedding that is no head too, whose rows are sums of the tokens'
// (worker/trainer/comm/row_sums), this rank's part of the sum, and its and the others' rows on
// their way. fp32.
int64_t GradientSumBytes(const LlamaConfig& c, const JobSpec& s);
// That, keys and values on their way, and gathered weights.
int64_t CommunicationBytes(const LlamaConfig& c, const JobSpec& s, int64_t element,
                           const std::string& recompute);

}  // namespace ll
