// Judges one attention entry point on one case against fp32.
#pragma once

#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/gpu/entry_points.h"

namespace ll::gpu {

struct AttentionCase {
  std::string name;
  int64_t batch, heads, kv_heads, queries, keys, head_dim;
  // Sequences begin half their length after each other in one row of tokens, as the groups of
  // S2-Attn's shifted heads lie beside the others'.
  bool overlapping = false;
};

// Shorter queries, grouped heads, overlapping sequences, lengths 0, 1 and 63, heads of 64 and 128.
const std::vector<AttentionCase>& Cases();
// S2-Attn's three calls on a 7B's row of 32,768 tokens, for speed.
const std::vector<AttentionCase>& SpeedCases();

// One line of docs/results/entrypoints.jsonl: status (ok, wrong, refused with the message),
// forward_error and backward_error (norm of the difference over the norm of fp32's, to the
// alignment that fits), lse_error (the same of the log-sum-exp), alignment (bottom_right or
// top_left, where queries are fewer than keys), bit_equal (of `repeats` runs of forward and
// backward) and bit_equal_deterministic (where a fixed order is demanded).
nlohmann::ordered_json Judge(const EntryPoint& entry, const AttentionCase& c, int repeats,
                             uint64_t seed);

// The line of a case that ended its process with `exit`.
nlohmann::ordered_json Ended(const EntryPoint& entry, const AttentionCase& c, int exit);

// Medians of `repeats` timed calls after warm-ups: forward_seconds, backward_seconds and TFLOP/s of
// the visible pairs; with `deterministic` where a fixed order is demanded.
nlohmann::ordered_json Time(const EntryPoint& entry, const AttentionCase& c, int repeats,
                            uint64_t seed, bool deterministic);

// Waits for the device.
void Synchronize(at::DeviceType device);

}  // namespace ll::gpu
