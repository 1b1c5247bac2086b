// The trained parameters of a gang: their gradients' way to the ranks that update them, and the
// updated values' way back (ZeRO: Rajbhandari et al. 2020, §5).
//
//   stage 0   every rank updates every parameter: gradients are summed and given to all
//   stage 1   a rank updates its slices only, holds optimizer state and fp32 masters for them only,
//             and gets the sum of their gradients only; the compute copies are gathered
//   stage 2   the same, and a gradient is in memory from the backward pass of its layer until its
//             bucket has been summed, the slices' sums excepted
//
// A sum is made in fp32 in the order of the ranks, element by element, so it does not depend on
// stage, slices or buckets; neither does AdamW, and the norm is a sum over fixed blocks. So stages
// 0, 1 and 2 on the same number of ranks give the same bits.
//
// Not thread-safe. What is collective says so.
#pragma once

#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/llama.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/comm/sharded_sums.h"
#include "worker/trainer/optim/adamw.h"
#include "worker/trainer/optim/partition.h"
#include "worker/trainer/optim/storages.h"

namespace ll {

class ShardedParameters : public GradientObserver {
 public:
  // `parameters` are the model's. `sparse_embedding`: the embedding's gradient comes from tokens
  // alone, not from a tied head too, so that only rows whose tokens occurred are exchanged. All
  // must outlive this. One rank makes every stage 0.
  ShardedParameters(std::vector<Parameter>& parameters, int zero_stage, bool sparse_embedding,
                    Comm& world);

  int zero_stage() const { return stage_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  // What this rank updates. Stage 0: every parameter, whole, in order.
  std::vector<Slice>& slices() { return slices_; }

  // Frees the fp32 masters of what other ranks update, where they are not what the model computes
  // with. Parameter::master is undefined from then on. To be called once, when all weights are
  // loaded.
  void ReleaseMasters();

  // ---- one step, in this order

  // All gradients are zero.
  void StartStep();
  // Tokens of a row that this rank runs.
  void Touch(const at::Tensor& tokens);
  // The next backward pass is this rank's last of the step.
  void LastRow() { last_row_ = true; }
  void Begin(size_t first, size_t last) override;
  // Of the last row: sends off the buckets that are complete. Collective with FinishReduction of
  // ranks that are further on.
  absl::Status End(size_t first, size_t last) override;
  // Collective. The slices' gradients are sums over the ranks from here on. May follow a backward
  // pass that failed for lack of memory, which keeps the ranks in step: their sums are then of no
  // use. The error of an exchange that stopped halfway is returned again.
  absl::Status FinishReduction();
  // sqrt of the sum of squares of all gradients, accumulated in fp64 over blocks of a fixed size:
  // the same bits for every number of threads and every stage. Collective.
  absl::StatusOr<double> GradNorm();
  // After the slices were updated: every rank gets what the others updated. Collective.
  absl::Status GatherParameters();

 private:
  void MakeSlices();
  absl::Status Advance();
  absl::Status Launch(size_t bucket);
  absl::Status Land();
  // Gives a bucket's sum to the slices (stages 1 and 2).
  void Keep(size_t bucket, const at::Tensor& sum);
  // Gives it to all ranks (stage 0).
  absl::Status Share(const Bucket& bucket, const at::Tensor& sum);
  // A bucket's gradients have been read: stage 2 needs their memory no more.
  void Drop(const Bucket& bucket);
  // The ranks' parts of a bucket's compute copies, which are exchanged as bytes because norms are
  // fp32 beside bf16 matrices.
  RankParts BytesOf(const Bucket& bucket) const;

  std::vector<Parameter>& parameters_;
  Comm& world_;
  const int stage_;
  std::vector<Bucket> buckets_;  // none where there is one rank
  std::vector<Slice> slices_;
  std::vector<size_t> first_slice_;  // of a bucket, in stages 1 and 2
  Storages gradients_;               // stage 2: come and go

  // Of the step under way.
  std::vector<char> final_;  // by parameter: its gradient is complete
  size_t next_ = 0;          // bucket to send off
  bool last_row_ = false;
  at::Tensor touched_;  // bool [V]; undefined where no embedding is exchanged by rows
  std::optional<size_t> in_flight_;
  absl::Status broken_;  // of an exchange that other ranks may still wait for
  at::Tensor flat_;      // of the bucket in flight
  ReduceScatter reduce_;
  std::vector<int> unread_;  // by storage of gradients: pieces of it not yet in a sum
};

}  // namespace ll
