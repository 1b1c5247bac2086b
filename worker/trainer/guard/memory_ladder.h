// What a training can do when a step does not fit into memory: keep less. Pure, torch-free.
//
// The rungs, from the fastest to the leanest: recompute none, selective, full, and on a GPU full
// with the layers' inputs in host memory. Each computes the same bits (model/activations.h,
// model/offload.h), so that a step may be repeated on a lower rung. The sizes of a chunk of logits
// and of a tile of tokens are no rungs: they are fixed, small beside the rest, and decide in which
// order gradients are added up.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/spec/job_spec.h"

namespace ll {

// What of a row is kept for its backward pass, and where.
struct MemoryPolicy {
  std::string recompute = "none";   // none, selective, full
  bool activation_offload = false;  // with recompute full
  bool operator==(const MemoryPolicy&) const = default;
};

// Of a resolved spec whose recompute has been chosen.
MemoryPolicy PolicyOf(const JobSpec& spec);
// "recompute full, activation_offload".
std::string PolicyText(const MemoryPolicy& policy);

// Every rung; a CPU's memory is the host's, so that nothing is offloaded there.
std::vector<MemoryPolicy> MemoryRungs(bool gpu);
// Its place among them. A policy is one of MemoryRungs(true).
size_t RungOf(const MemoryPolicy& policy);

// A step from one rung to the next: one key of the spec.
struct PolicyChange {
  std::string field, from, to;
  MemoryPolicy policy;  // from here on
};

// Where a training stands. Every rank has its own and takes the same steps.
class MemoryLadder {
 public:
  MemoryLadder(const MemoryPolicy& start, bool gpu) : gpu_(gpu), tried_{start} {}

  const MemoryPolicy& policy() const { return tried_.back(); }
  // Goes one rung down; nullopt: this is the lowest.
  std::optional<PolicyChange> StepDown();
  // Where it has stood, in words: "recompute none, then recompute selective".
  std::string Tried() const;

 private:
  const bool gpu_;
  std::vector<MemoryPolicy> tried_;
};

}  // namespace ll
