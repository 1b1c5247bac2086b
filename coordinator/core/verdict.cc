#include "coordinator/core/verdict.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/format.h"

namespace ll {
namespace {

struct Comparison {
  std::vector<std::string> better, worse;
  int compared = 0;
};

std::string Percent(double ratio) { return absl::StrFormat("%.3g %%", 100 * ratio); }

// `sign` 1: less is better; -1: more is.
void Compare(const char* what, std::optional<double> run, std::optional<double> reference,
             double tolerance, int sign, std::string (*show)(double), Comparison& out) {
  if (!run.has_value() || !reference.has_value()) return;
  ++out.compared;
  if (!std::isfinite(*run) || !std::isfinite(*reference)) {
    if (std::isfinite(*run) == std::isfinite(*reference)) return;
    (std::isfinite(*run) ? out.better : out.worse)
        .push_back(absl::StrCat(what, " is ", show(*run), ", it was ", show(*reference)));
    return;
  }
  const double scale = std::abs(*reference);
  const double difference = *run - *reference;
  if (std::abs(difference) <= tolerance * scale) return;
  const std::string by = scale > 0 ? absl::StrCat(Percent(std::abs(difference) / scale), " ") : "";
  (sign * difference < 0 ? out.better : out.worse)
      .push_back(absl::StrCat(what, " ", show(*run), " is ", by,
                              difference < 0 ? "below " : "above ", show(*reference),
                              " (tolerance ", Percent(tolerance), ")"));
}

std::optional<double> Loss(const std::vector<CurvePoint>& curve, int64_t step) {
  const auto after =
      std::lower_bound(curve.begin(), curve.end(), step,
                       [](const CurvePoint& point, int64_t wanted) { return point.step < wanted; });
  if (after == curve.end()) return std::nullopt;
  if (after->step == step) return after->loss;
  if (after == curve.begin()) return std::nullopt;
  const CurvePoint& before = *std::prev(after);
  const double share =
      static_cast<double>(step - before.step) / static_cast<double>(after->step - before.step);
  return before.loss + share * (after->loss - before.loss);
}

std::optional<int64_t> DivergingStep(const RunMeasures& run, const RunMeasures& reference,
                                     double tolerance) {
  for (const CurvePoint& point : run.curve) {
    const std::optional<double> other = Loss(reference.curve, point.step);
    if (!other.has_value()) continue;
    if (std::isfinite(point.loss) != std::isfinite(*other)) return point.step;
    if (!std::isfinite(point.loss)) continue;
    if (std::abs(point.loss - *other) > tolerance * std::abs(*other)) return point.step;
  }
  return std::nullopt;
}

std::string ShowNumber(double value) { return absl::StrFormat("%.4g", value); }
std::string ShowBytes(double value) { return HumanBytes(static_cast<int64_t>(value)); }

std::optional<double> AsDouble(std::optional<int64_t> value) {
  return value.has_value() ? std::optional<double>(static_cast<double>(*value)) : std::nullopt;
}

}  // namespace

bool IsGood(RunResult result) {
  return result == RunResult::kBaseline || result == RunResult::kBetter ||
         result == RunResult::kSame;
}

Judgement Judge(const RunMeasures& run, const RunMeasures* reference, int64_t reference_number,
                const Tolerances& tolerances) {
  Judgement out;
  if (!run.final_loss && !run.perplexity && !run.tokens_per_second && !run.peak_bytes) {
    out.result = RunResult::kUnknown;
    out.reason = "the run tells nothing that can be compared";
    return out;
  }
  if (reference == nullptr) {
    const bool finite =
        std::isfinite(run.final_loss.value_or(0)) && std::isfinite(run.perplexity.value_or(0));
    out.result = finite ? RunResult::kBaseline : RunResult::kRegressed;
    out.reason = finite ? "the first good run: later ones are compared with it"
                        : "the loss or the perplexity is not a finite number";
    return out;
  }
  Comparison found;
  Compare("final loss", run.final_loss, reference->final_loss, tolerances.loss, 1, ShowNumber,
          found);
  Compare("perplexity", run.perplexity, reference->perplexity, tolerances.perplexity, 1, ShowNumber,
          found);
  Compare("speed (tokens/s)", run.tokens_per_second, reference->tokens_per_second,
          tolerances.tokens_per_second, -1, ShowNumber, found);
  Compare("peak memory", AsDouble(run.peak_bytes), AsDouble(reference->peak_bytes),
          tolerances.memory, 1, ShowBytes, found);
  out.diverging_step = DivergingStep(run, *reference, tolerances.loss);
  const std::string than = absl::StrCat(" (compared with run ", reference_number, ")");
  const std::string from =
      out.diverging_step.has_value()
          ? absl::StrCat("; the loss curves differ from step ", *out.diverging_step, " on")
          : "";
  if (found.compared == 0) {
    out.result = RunResult::kUnknown;
    out.reason = absl::StrCat("nothing that run ", reference_number, " tells can be compared");
  } else if (!found.worse.empty()) {
    out.result = RunResult::kRegressed;
    out.reason = absl::StrCat(absl::StrJoin(found.worse, ", "), from, than);
  } else if (!found.better.empty()) {
    out.result = RunResult::kBetter;
    out.reason = absl::StrCat(absl::StrJoin(found.better, ", "), from, than);
  } else {
    out.result = RunResult::kSame;
    out.reason = absl::StrCat("all within the tolerances", from, than);
  }
  return out;
}

std::vector<CurvePoint> ThinCurve(const std::vector<CurvePoint>& points) {
  if (points.size() <= kMaxCurvePoints) return points;
  std::vector<CurvePoint> out;
  out.reserve(kMaxCurvePoints);
  for (size_t i = 0; i < kMaxCurvePoints; ++i)
    out.push_back(points[i * (points.size() - 1) / (kMaxCurvePoints - 1)]);
  return out;
}

}  // namespace ll
