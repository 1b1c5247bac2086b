// How a scheduled run compares with the last good run of its schedule. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace ll {

struct CurvePoint {
  int64_t step = 0;
  double loss = 0;
  bool operator==(const CurvePoint&) const = default;
};
inline constexpr size_t kMaxCurvePoints = 256;

// What a run tells of itself; absent: it does not (an evaluation has no loss curve).
struct RunMeasures {
  std::optional<double> final_loss;
  std::optional<double> perplexity;
  std::optional<double> tokens_per_second;
  std::optional<int64_t> peak_bytes;
  std::vector<CurvePoint> curve;  // steps rise; at most kMaxCurvePoints
  bool operator==(const RunMeasures&) const = default;
};

// Relative differences that count as none: 0.01 is one per cent.
struct Tolerances {
  double loss = 0.01;
  double perplexity = 0.02;
  double tokens_per_second = 0.10;
  double memory = 0.10;
};

enum class RunResult {
  kPending,    // its job has not ended, or it was left out
  kBaseline,   // the first good run: there was none to compare with
  kBetter,     // something is better and nothing is worse
  kSame,       // all within the tolerances
  kRegressed,  // something is worse
  kFailed,     // its job failed
  kUnknown,    // it tells nothing that can be compared, or was cancelled
};

struct Judgement {
  RunResult result = RunResult::kPending;
  std::string reason;                     // one sentence
  std::optional<int64_t> diverging_step;  // the first at which the loss curves differ
  absl::Time time = absl::InfinitePast();
};

// Whether the run may be what later ones are compared with.
bool IsGood(RunResult result);

// Judges a run whose job succeeded. `reference` is the last good run, with its number for the
// sentence; null: none. A value that is not finite is worse than any that is. A value on one side
// only is not compared. The curves diverge at the first step of `run` at which its loss differs
// from the reference's (linear between its points) by more than the loss tolerance.
Judgement Judge(const RunMeasures& run, const RunMeasures* reference, int64_t reference_number,
                const Tolerances& tolerances);

// At most kMaxCurvePoints of the points, evenly spread, with the first and the last.
std::vector<CurvePoint> ThinCurve(const std::vector<CurvePoint>& points);

}  // namespace ll
