// A doctor's report for programs and for people.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/counted.h"
#include "base/format.h"
#include "model/data/doctor.h"

namespace ll {
namespace {

using nlohmann::ordered_json;

constexpr int kBarWidth = 40;

double Share(int64_t part, int64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

std::string CountAndShare(int64_t part, int64_t whole) {
  return absl::StrFormat("%s (%.1f %%)", HumanCount(part), 100 * Share(part, whole));
}

void Line(std::ostream& out, absl::string_view name, const std::string& value) {
  out << absl::StrFormat("%-22s", absl::StrCat(name)) << value << "\n";
}

void PrintExamples(std::ostream& out, const std::vector<std::string>& examples, int64_t all) {
  for (const std::string& text : examples) out << "  " << text << "\n";
  const int64_t more = all - static_cast<int64_t>(examples.size());
  if (more > 0) out << "  and " << HumanCount(more) << " more\n";
}

void PrintLengths(const DoctorReport& r, std::ostream& out) {
  if (r.histogram.empty()) return;
  Line(out, "length in tokens",
       absl::StrFormat("shortest %s, median %s, mean %.0f, 90 %% %s, 99 %% %s, longest %s",
                       HumanCount(r.shortest), HumanCount(r.median), r.mean, HumanCount(r.p90),
                       HumanCount(r.p99), HumanCount(r.longest)));
  int64_t most = 1;
  for (const auto& bucket : r.histogram) most = std::max(most, bucket.records);
  for (const auto& b : r.histogram) {
    const auto width = static_cast<size_t>((b.records * kBarWidth + most - 1) / most);
    out << absl::StrFormat("  %10s .. %-10s %-*s %s\n", HumanCount(b.from), HumanCount(b.to - 1),
                           kBarWidth, std::string(width, '#'), HumanCount(b.records));
  }
  if (r.context_length > 0) {
    const std::string name = absl::StrCat("context of ", HumanCount(r.context_length));
    Line(out, name,
         absl::StrCat(CountAndShare(r.shorter_than_context, r.records), " are shorter, ",
                      CountAndShare(r.longer_than_context, r.records), " longer"));
  }
}

void PrintSupervised(const DoctorReport& r, std::ostream& out) {
  Line(out, "targets", CountAndShare(r.targets, r.tokens) + " of the tokens");
  if (r.truncated_records > 0) {
    Line(out, "truncated",
         absl::StrCat(CountAndShare(r.truncated_records, r.records), " of the records lose ",
                      HumanCount(r.truncated_targets), " targets"));
  }
  if (r.dropped > 0) Line(out, "dropped as too long", HumanCount(r.dropped));
}

void PrintPreview(const DoctorReport::Preview& preview, bool color, std::ostream& out) {
  out << "\n"
      << preview.place << ", " << HumanCount(preview.tokens) << " tokens, "
      << (color ? "trained ones in green:" : "trained ones in ⟦ ⟧:") << "\n";
  for (const auto& run : preview.runs) {
    if (!run.trained) {
      out << run.text;
    } else {
      out << (color ? "\x1b[32m" : "⟦") << run.text << (color ? "\x1b[0m" : "⟧");
    }
  }
  out << "\n";
}

}  // namespace

ordered_json DoctorJson(const DoctorReport& r) {
  ordered_json histogram = ordered_json::array(), previews = ordered_json::array();
  for (const auto& b : r.histogram) {
    histogram.push_back({{"from", b.from}, {"to", b.to}, {"records", b.records}});
  }
  for (const auto& p : r.previews) {
    ordered_json runs = ordered_json::array();
    for (const auto& run : p.runs) runs.push_back({{"text", run.text}, {"trained", run.trained}});
    previews.push_back({{"place", p.place}, {"tokens", p.tokens}, {"runs", runs}});
  }
  ordered_json out = {{"files", r.files},
                      {"records", r.records},
                      {"tokens", r.tokens},
                      {"kinds", r.kinds},
                      {"roles", r.roles},
                      {"bad_records", r.bad_records},
                      {"bad_examples", r.bad_examples},
                      {"replaced", r.replaced},
                      {"duplicates", r.duplicates},
                      {"duplicate_examples", r.duplicate_examples},
                      {"without_target", r.without_target},
                      {"with_special_inside", r.with_special_inside},
                      {"lengths",
                       {{"shortest", r.shortest},
                        {"median", r.median},
                        {"mean", r.mean},
                        {"p90", r.p90},
                        {"p99", r.p99},
                        {"longest", r.longest},
                        {"histogram", histogram}}},
                      {"vocab_size", r.vocab_size},
                      {"used_ids", r.used_ids}};
  if (r.context_length > 0) {
    out["context_length"] = r.context_length;
    out["shorter_than_context"] = r.shorter_than_context;
    out["shorter_than_context_share"] = Share(r.shorter_than_context, r.records);
    out["longer_than_context"] = r.longer_than_context;
  }
  if (r.supervised) {
    out["targets"] = r.targets;
    out["truncated_records"] = r.truncated_records;
    out["truncated_targets"] = r.truncated_targets;
    out["dropped"] = r.dropped;
  }
  out["preview"] = previews;
  return out;
}

void PrintDoctorReport(const DoctorReport& r, bool color, std::ostream& out) {
  std::string kinds;
  for (const auto& [kind, count] : r.kinds) {
    absl::StrAppend(&kinds, kinds.empty() ? "" : ", ", HumanCount(count), " ", kind);
  }
  Line(out, "records",
       absl::StrCat(HumanCount(r.records), " in ", Counted(r.files, "file"), " (", kinds, ")"));
  Line(out, "tokens", HumanCount(r.tokens));
  if (r.supervised) PrintSupervised(r, out);
  PrintLengths(r, out);
  std::string roles;
  for (const auto& [role, count] : r.roles) {
    absl::StrAppend(&roles, roles.empty() ? "" : ", ", HumanCount(count), " ", role);
  }
  if (!roles.empty()) Line(out, "messages", roles);
  Line(out, "vocabulary used", CountAndShare(r.used_ids, r.vocab_size));
  if (r.replaced > 0) Line(out, "not UTF-8", Counted(r.replaced, "record"));
  if (r.without_target > 0) Line(out, "without an answer", HumanCount(r.without_target));
  if (r.with_special_inside > 0) {
    Line(out, "BOS or EOS inside", Counted(r.with_special_inside, "document"));
  }
  Line(out, "duplicates", CountAndShare(r.duplicates, r.records));
  PrintExamples(out, r.duplicate_examples, r.duplicates);
  Line(out, "bad records", HumanCount(r.bad_records));
  PrintExamples(out, r.bad_examples, r.bad_records);
  for (const auto& preview : r.previews) PrintPreview(preview, color, out);
}

}  // namespace ll
