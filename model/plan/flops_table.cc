#include "model/plan/flops_table.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/field_error.h"

namespace ll {
namespace {

double Tera(double flops) { return flops / 1e12; }

std::string Line(int64_t context, const char* attention, const FlopCount& f) {
  return absl::StrFormat("%8d  %-9s  %8.1f  %8.1f  %8.1f  %8.1f  %8.1f  %9.1f %%\n", context,
                         attention, Tera(f.attention), Tera(f.projections), Tera(f.feed_forward),
                         Tera(f.others), Tera(f.total()), 100 * f.attention / f.total());
}

nlohmann::ordered_json CountJson(const FlopCount& f) {
  return {{"attention", f.attention},
          {"projections", f.projections},
          {"feed_forward", f.feed_forward},
          {"others", f.others},
          {"total", f.total()},
          {"attention_share", f.attention / f.total()}};
}

}  // namespace

absl::StatusOr<std::vector<FlopsRow>> FlopsTable(const LlamaConfig& config,
                                                 const std::vector<int64_t>& contexts,
                                                 double group_ratio) {
  if (contexts.empty()) return MakeFieldError({"context_length", "at least one", "none"});
  std::vector<FlopsRow> rows;
  for (const int64_t context : contexts) {
    FlopsRow row;
    row.context_length = context;
    row.group_tokens = static_cast<int64_t>(std::floor(group_ratio * static_cast<double>(context)));
    if (row.group_tokens < 1) {
      return MakeFieldError({"context_length",
                             absl::StrCat("enough tokens for groups of ", group_ratio, " of them"),
                             absl::StrCat(context)});
    }
    row.full = ForwardFlops(config, context, context);
    row.s2 = ForwardFlops(config, context, row.group_tokens);
    rows.push_back(row);
  }
  return rows;
}

std::string FlopsTableText(const std::vector<FlopsRow>& rows) {
  std::string text =
      absl::StrFormat("%8s  %-9s  %8s  %8s  %8s  %8s  %8s  %11s\n", "context", "attention", "Attn",
                      "Proj", "FFN", "Others", "total", "Attn share");
  for (const FlopsRow& row : rows) {
    text += Line(row.context_length, "full", row.full);
    text += Line(row.context_length, "s2", row.s2);
  }
  return text;
}

nlohmann::ordered_json FlopsTableJson(const std::vector<FlopsRow>& rows) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const FlopsRow& row : rows) {
    list.push_back({{"context_length", row.context_length},
                    {"group_tokens", row.group_tokens},
                    {"full", CountJson(row.full)},
                    {"s2", CountJson(row.s2)}});
  }
  return list;
}

}  // namespace ll
