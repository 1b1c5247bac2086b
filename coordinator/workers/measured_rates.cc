#include "coordinator/workers/measured_rates.h"

#include "absl/status/status.h"
#include "base/log.h"

namespace ll {
namespace {
constexpr size_t kMostText = 4096, kMostWorkers = 100'000;
}  // namespace

void MeasuredRates::Heard(const std::string& worker, absl::string_view calibration) {
  std::optional<Calibration> measured;
  if (!calibration.empty()) {
    auto parsed = calibration.size() <= kMostText
                      ? ParseCalibration(calibration)
                      : absl::InvalidArgumentError("longer than a probe's output");
    if (parsed.ok()) {
      measured = *std::move(parsed);
    } else {
      LL_LOG(kWarning) << "worker " << worker << ": calibration: " << parsed.status().message();
    }
  }
  absl::MutexLock lock(&mutex_);
  if (!measured) {
    by_worker_.erase(worker);
  } else if (by_worker_.size() < kMostWorkers) {
    by_worker_[worker] = *std::move(measured);
  }
}

std::optional<Calibration> MeasuredRates::Of(const std::string& kind) const {
  std::optional<Calibration> slowest;
  absl::MutexLock lock(&mutex_);
  for (const auto& [worker, measured] : by_worker_) {
    if (measured.device == kind && (!slowest || measured.gemm < slowest->gemm)) slowest = measured;
  }
  return slowest;
}

}  // namespace ll
