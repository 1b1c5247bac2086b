// Which of LibTorch's attention kernels a call on a GPU goes to, chosen from what
// tests/gpu/smoke.sh measured of them on such a GPU. Without torch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ll {

enum class AttentionKernel { kFlash, kCudnn, kEfficient };

// LibTorch's name of its forward entry point, as the table has it.
absl::string_view AttentionKernelName(AttentionKernel kernel);

// What a call asks of a kernel.
struct AttentionNeeds {
  bool bf16 = true;
  // Causal, with as many queries as keys in every sequence, no window, sequences of one length:
  // what S²-Attn's calls on a row without documents are.
  bool plain = true;
  bool grouped_heads = false;  // several query heads read one key head
  bool deterministic = false;
  int64_t head_dim = 128;
};

// What was measured of the entry points on one kind of GPU.
class AttentionTable {
 public:
  // `jsonl`: docs/results/entrypoints.jsonl. Each line with a "gpu" begins a host's section; of
  // several of `gpu` (the driver's name for it) the last one counts. Errors: NotFound where there
  // is none, InvalidArgument naming a line that is not what smoke.sh writes.
  static absl::StatusOr<AttentionTable> Parse(absl::string_view jsonl, absl::string_view gpu);

  // Every case of that kind was judged right, also bit for bit where that is needed, and there was
  // one.
  bool Right(AttentionKernel kernel, const AttentionNeeds& needs) const;
  // Of all timed cases of that kind, forward and backward, which have heads of 128; absent where
  // there is none.
  std::optional<double> Seconds(AttentionKernel kernel, const AttentionNeeds& needs) const;

 private:
  struct Case {
    std::string entry_point;
    bool grouped_heads = false, plain = false, timed = false, deterministic = false;
    int64_t head_dim = 0;
    bool right = false, bits_equal = false;  // judged
    double seconds = 0;                      // timed
  };
  bool SameKind(const Case& c, AttentionKernel kernel, const AttentionNeeds& needs) const;

  std::vector<Case> cases_;
};

struct AttentionChoice {
  AttentionKernel kernel = AttentionKernel::kFlash;
  std::string reason;
};

// `table` may be null: then by what is known of the architecture, whose compute capability begins
// with `major`.
AttentionChoice ChooseAttention(const AttentionTable* table, int major,
                                const AttentionNeeds& needs);

}  // namespace ll
