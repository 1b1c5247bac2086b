#include "model/attention_choice.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/json.h"

namespace ll {
namespace {

constexpr int kHopper = 9;
constexpr JsonLimits kLineLimits{.max_depth = 8, .max_values = 1000};
constexpr int64_t kTimedHeadDim = 128;  // SpeedCases in tests/gpu/judge.cc

// "NVIDIA H100 80GB HBM3, 580.82" is the host of an "NVIDIA H100 80GB HBM3".
bool IsOf(absl::string_view host, absl::string_view gpu) {
  return host == gpu || absl::StartsWith(host, absl::StrCat(gpu, ","));
}

absl::Status BadLine(int number, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("line ", number,
                                                 ": expected what "
                                                 "tests/gpu/smoke.sh writes, found ",
                                                 why));
}

}  // namespace

absl::string_view AttentionKernelName(AttentionKernel kernel) {
  switch (kernel) {
    case AttentionKernel::kFlash:
      return "_flash_attention_forward";
    case AttentionKernel::kCudnn:
      return "_cudnn_attention_forward";
    case AttentionKernel::kEfficient:
      return "_scaled_dot_product_efficient_attention";
  }
  return "";
}

absl::StatusOr<AttentionTable> AttentionTable::Parse(absl::string_view jsonl,
                                                     absl::string_view gpu) {
  AttentionTable table;
  bool found = false, ours = false;
  int number = 0;
  for (const absl::string_view text : absl::StrSplit(jsonl, '\n')) {
    ++number;
    if (text.empty()) continue;
    const auto parsed = ParseJsonObject(text, kLineLimits);
    if (!parsed.ok()) return Annotate(parsed.status(), absl::StrCat("line ", number));
    const nlohmann::json& line = *parsed;
    try {
      if (line.contains("gpu")) {
        ours = IsOf(line["gpu"].get<std::string>(), gpu);
        if (ours) table.cases_.clear();
        found = found || ours;
        continue;
      }
      if (!ours) continue;
      Case c;
      c.entry_point = line.at("entry_point").get<std::string>();
      const auto status = line.at("status").get<std::string>();
      const auto queries = line.at("queries").get<int64_t>();
      c.grouped_heads = line.at("heads").get<int64_t>() != line.at("kv_heads").get<int64_t>();
      c.plain = queries == line.at("keys").get<int64_t>() && queries > 0 &&
                !line.at("overlapping").get<bool>();
      c.head_dim = line.at("head_dim").get<int64_t>();
      c.timed = status == "timed";
      c.right = status == "ok";
      if (c.timed) {
        c.deterministic = line.value("deterministic", false);
        c.seconds =
            line.at("forward_seconds").get<double>() + line.at("backward_seconds").get<double>();
      } else if (line.contains("bit_equal_deterministic")) {
        const nlohmann::json& equal = line.at("bit_equal_deterministic");
        c.bits_equal = equal.at("forward").get<bool>() && equal.at("backward").get<bool>();
      }
      table.cases_.push_back(std::move(c));
    } catch (const nlohmann::json::exception& e) {
      return BadLine(number, e.what());
    }
  }
  if (!found) {
    return absl::NotFoundError(absl::StrCat("nothing was measured of an ", gpu,
                                            ": tests/gpu/smoke.sh --speed writes the table"));
  }
  return table;
}

// The memory-efficient kernel is given repeated keys, so that grouped heads are nothing to it.
bool AttentionTable::SameKind(const Case& c, AttentionKernel kernel,
                              const AttentionNeeds& needs) const {
  const bool grouped = needs.grouped_heads && kernel != AttentionKernel::kEfficient;
  return c.entry_point == AttentionKernelName(kernel) && c.plain && c.head_dim == needs.head_dim &&
         (!c.grouped_heads || grouped);
}

bool AttentionTable::Right(AttentionKernel kernel, const AttentionNeeds& needs) const {
  bool judged = false;
  for (const Case& c : cases_) {
    if (c.timed || !SameKind(c, kernel, needs)) continue;
    if (!c.right || (needs.deterministic && !c.bits_equal)) return false;
    judged = true;
  }
  return judged;
}

std::optional<double> AttentionTable::Seconds(AttentionKernel kernel,
                                              const AttentionNeeds& needs) const {
  std::optional<double> sum;
  AttentionNeeds timed = needs;
  timed.head_dim = kTimedHeadDim;
  for (const Case& c : cases_) {
    if (!c.timed || !SameKind(c, kernel, timed) || c.deterministic != needs.deterministic) continue;
    sum = sum.value_or(0) + c.seconds;
  }
  return sum;
}

AttentionChoice ChooseAttention(const AttentionTable* table, int major,
                                const AttentionNeeds& needs) {
  using enum AttentionKernel;
  if (!needs.bf16) return {kEfficient, "the only one for fp32"};
  if (!needs.plain)
    return {kFlash, "the only one for windows, documents and fewer queries than keys"};
  if (table == nullptr) {
    // cuDNN's backward pass promises nothing of its bits until it was judged.
    if (major >= kHopper && !needs.deterministic)
      return {kCudnn, "not measured on this GPU; it is written for Hopper and later"};
    return {kFlash, "not measured on this GPU"};
  }
  std::optional<AttentionChoice> best;
  double least = 0;
  for (const AttentionKernel kernel : {kFlash, kCudnn, kEfficient}) {
    const std::optional<double> seconds = table->Seconds(kernel, needs);
    if (!seconds || !table->Right(kernel, needs) || (best && *seconds >= least)) continue;
    least = *seconds;
    best = AttentionChoice{kernel, absl::StrFormat("the fastest that was judged right here, "
                                                   "%.1f ms for all timed calls",
                                                   1e3 * least)};
  }
  return best.value_or(AttentionChoice{kFlash, "none was both judged right and timed here"});
}

}  // namespace ll
