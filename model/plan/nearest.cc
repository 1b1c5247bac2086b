#include "model/plan/nearest.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/counted.h"
#include "base/format.h"

namespace ll {
namespace {

constexpr size_t kMost = 3;
constexpr int64_t kFewestGpusTried = 64;
constexpr int64_t kTokenStep = 1024;

// A wanted training with some keys changed, in what was given and in what that resolves to.
struct Change {
  std::string what;
  std::function<void(JobSpec&)> apply;
};

class Search {
 public:
  Search(const PlanProblem& problem, Refusal& out) : p_(problem), out_(out) {}

  // Adds the changed training if it fits on `cluster`.
  bool Try(const Change& change, const Cluster& cluster) {
    if (out_.nearest.size() >= kMost) return true;
    std::optional<PlannedRun> run = Fitting(change, cluster);
    if (!run) return false;
    JobSpec given = p_.given;
    change.apply(given);
    const bool other = cluster.device.kind != p_.cluster.device.kind;
    out_.nearest.push_back(
        {change.what, std::move(given), other ? cluster.device.kind : "", *std::move(run)});
    return true;
  }
  bool Try(const Change& change) { return Try(change, p_.cluster); }

  std::optional<PlannedRun> Fitting(const Change& change, const Cluster& cluster) const {
    JobSpec given = p_.given;
    change.apply(given);
    // As it would be submitted: other GPUs make another batch.
    const auto resolved =
        Resolve(given, {p_.config.ParameterCount(), p_.config.max_position_embeddings});
    if (!resolved.ok()) return std::nullopt;
    const PlanProblem changed{p_.config, given, *resolved, cluster};
    const std::optional<PlanChoice> choice = Choose(changed, Enumerate(changed));
    if (!choice) return std::nullopt;
    return choice->chosen;
  }

 private:
  const PlanProblem& p_;
  Refusal& out_;
};

Change Then(const Change& first, const Change& second) {
  const char* comma = first.what.empty() || second.what.empty() ? "" : ", ";
  return {absl::StrCat(first.what, comma, second.what), [first, second](JobSpec& s) {
            first.apply(s);
            second.apply(s);
          }};
}

Change OnGpus(int64_t gpus) {
  return {Counted(gpus, "GPU"), [gpus](JobSpec& s) {
            s.gpus = gpus;
            s.max_gpus.reset();
          }};
}

Change FourBit() {
  return {"4-bit base", [](JobSpec& s) { s.quantization = "nf4"; }};
}

Change WithContext(int64_t tokens) {
  return {absl::StrCat("context ", tokens), [tokens](JobSpec& s) {
            s.context_length = tokens;
            if (s.max_seq_length) s.max_seq_length = std::min(*s.max_seq_length, tokens);
          }};
}

Change Unpinned() {
  return {"the plan's keys left to the planner", [](JobSpec& s) {
            s.recompute.reset();
            s.context_parallel.reset();
            s.zero_stage.reset();
            s.shard_base.reset();
            s.activation_offload.reset();
          }};
}

bool Pins(const JobSpec& s) {
  return (s.recompute && s.recompute != "auto") || s.context_parallel || s.zero_stage ||
         s.shard_base || s.activation_offload;
}

// The longest context that fits after `change`, in steps of 1024; 0 where none does.
int64_t LongestContext(const PlanProblem& p, const Search& search, const Change& change) {
  const int64_t row = p.resolved.max_seq_length.value_or(*p.resolved.context_length);
  int64_t low = 0, high = row / kTokenStep;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (search.Fitting(Then(change, WithContext(middle * kTokenStep)), p.cluster))
      low = middle;
    else
      high = middle - 1;
  }
  const int64_t tokens = low * kTokenStep;
  return tokens >= p.config.OriginalContext() ? tokens : 0;
}

bool TryMoreGpus(const PlanProblem& p, Search& search, const Change& change) {
  const int64_t most = std::max(kFewestGpusTried, 2 * p.cluster.slots);
  for (int64_t gpus = *p.resolved.gpus * 2; gpus <= most; gpus *= 2) {
    Cluster cluster = p.cluster;
    cluster.slots = std::max(cluster.slots, gpus);
    if (search.Try(Then(change, OnGpus(gpus)), cluster)) return true;
  }
  return false;
}

void SearchMemory(const PlanProblem& p, Refusal& out) {
  Search search(p, out);
  const Change same{"", [](JobSpec&) {}};
  Change base = same;
  if (Pins(p.given) && !search.Try(Unpinned())) base = Unpinned();
  TryMoreGpus(p, search, base);
  const bool quantizes = p.resolved.method != "full" && p.resolved.Base() != BaseFormat::kNf4;
  const bool four_bit_fits = quantizes && search.Try(Then(base, FourBit()));
  if (quantizes && !four_bit_fits) TryMoreGpus(p, search, Then(base, FourBit()));
  if (const int64_t tokens = LongestContext(p, search, base); tokens > 0) {
    search.Try(Then(base, WithContext(tokens)));
  } else if (quantizes && !four_bit_fits) {
    const Change nf4 = Then(base, FourBit());
    if (const int64_t fewer = LongestContext(p, search, nf4); fewer > 0)
      search.Try(Then(nf4, WithContext(fewer)));
  }
  for (const DeviceKind& kind : DeviceCatalogue()) {
    if (!kind.unsupported.empty() || kind.device.memory_bytes <= p.cluster.device.memory_bytes) {
      continue;
    }
    Cluster larger = p.cluster;
    larger.device = kind.device;
    larger.rates = kind.rates;
    if (search.Try({absl::StrCat("on ", kind.device.kind), base.apply}, larger)) break;
  }
}

void SearchTime(const PlanProblem& p, Refusal& out) {
  Search search(p, out);
  // More GPUs save time only where they do not take more rows.
  const int64_t rows = *p.resolved.global_batch_size;
  TryMoreGpus(p, search, {"the same batch", [rows](JobSpec& s) { s.global_batch_size = rows; }});
  const auto steps =
      static_cast<int64_t>(std::floor(SecondsAllowed(p.resolved) / out.leanest.time.step_seconds));
  if (p.resolved.max_steps && steps > 0 && steps < *p.resolved.max_steps) {
    search.Try({Counted(steps, "step"), [steps](JobSpec& s) { s.max_steps = steps; }});
  }
  Search(p, out).Try({"no time limit", [](JobSpec& s) {
                        s.deadline.reset();
                        s.max_runtime.reset();
                      }});
}

std::string Quoted(const std::string& text) {
  constexpr absl::string_view kPlain = "-_./:,=+@%";
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
           kPlain.find(c) != absl::string_view::npos;
  });
  return plain ? text : absl::StrCat("'", absl::StrReplaceAll(text, {{"'", "'\\''"}}), "'");
}

std::string ValueText(const nlohmann::ordered_json& value) {
  if (value.is_string()) return value.get<std::string>();
  std::vector<std::string> items;
  if (value.is_array()) {
    for (const auto& item : value) items.push_back(ValueText(item));
    return absl::StrJoin(items, ",");
  }
  if (value.is_object()) {
    for (const auto& [key, item] : value.items())
      items.push_back(absl::StrCat(key, "=", ValueText(item)));
    return absl::StrJoin(items, ",");
  }
  return value.dump();
}

}  // namespace

std::string SubmitLine(const JobSpec& given) {
  std::string line = "llctl submit", sets;
  const nlohmann::ordered_json keys = ToJson(given);
  for (const auto& [key, value] : keys.items()) {
    const std::string text = ValueText(value);
    const char* flag = key == "model"            ? "--model"
                       : key == "context_length" ? "--ctx"
                       : key == "data"           ? "--data"
                       : key == "method"         ? "--method"
                       : key == "max_steps"      ? "--steps"
                       : key == "gpus"           ? "--gpus"
                                                 : nullptr;
    if (flag != nullptr)
      absl::StrAppend(&line, " ", flag, " ", Quoted(text));
    else
      absl::StrAppend(&sets, " --set ", Quoted(absl::StrCat(key, "=", text)));
  }
  return line + sets;
}

Refusal Refuse(const PlanProblem& p, const std::vector<PlannedRun>& plans) {
  Refusal out;
  out.leanest = Leanest(plans);
  out.missing_bytes = std::max<int64_t>(0, out.leanest.missing_bytes());
  if (out.missing_bytes > 0) {
    SearchMemory(p, out);
    return out;
  }
  // Something fits, but not in time: the fastest that does.
  for (const PlannedRun& run : plans) {
    const bool faster = run.time.duration_seconds < out.leanest.time.duration_seconds;
    if (run.fits() && (!out.leanest.fits() || faster)) out.leanest = run;
  }
  out.missing_seconds =
      std::max(0.0, out.leanest.time.duration_seconds - SecondsAllowed(p.resolved));
  SearchTime(p, out);
  return out;
}

std::string Refusal::Sentence(const Cluster& cluster) const {
  const std::string run =
      absl::StrCat(PlanText(leanest.plan, cluster.device), " on ", cluster.device.kind);
  if (missing_bytes == 0) {
    return absl::StrCat("at best it takes ",
                        HumanDuration(absl::Seconds(leanest.time.duration_seconds)), " (", run,
                        "), ", HumanDuration(absl::Seconds(missing_seconds)), " more than it may");
  }
  const MemoryPart largest = MemoryParts(leanest.memory)[0];
  return absl::StrCat("a rank needs ", HumanBytes(leanest.memory.total()), ", ",
                      HumanBytes(missing_bytes), " more than ", cluster.device.kind, " offers (",
                      HumanBytes(leanest.available_bytes), "); most goes to ", largest.name, " (",
                      HumanBytes(largest.bytes),
                      "), at the leanest: ", PlanText(leanest.plan, cluster.device));
}

std::string Refusal::Hint() const {
  if (nearest.empty()) return "";
  std::vector<std::string> lines;
  for (const Alternative& a : nearest) {
    lines.push_back(absl::StrCat(SubmitLine(a.given), "   # ", a.what, ": ",
                                 HumanBytes(a.run.memory.total()), " of ",
                                 HumanBytes(a.run.available_bytes)));
  }
  return absl::StrCat("what fits:\n  ", absl::StrJoin(lines, "\n  "));
}

}  // namespace ll
