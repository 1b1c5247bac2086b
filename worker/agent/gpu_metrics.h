// What the driver tells of this host's GPUs (ll_gpu_*): how busy and full they are, power and
// energy, and what slows or breaks them. NVML is loaded when the agent starts; without it, and on
// hosts without GPUs, there are no such series.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ll {

// One GPU at one moment. What a device does not tell is absent.
struct GpuSample {
  int index = 0;  // as the driver counts, which is a slot's index too
  std::string uuid;
  std::optional<double> utilization;  // share of time in which a kernel ran
  std::optional<double> memory_used_bytes, memory_size_bytes;
  std::optional<double> temperature_celsius, power_watts;
  std::optional<double> energy_joules;  // since the driver was loaded
  std::optional<double> clock_hertz;    // of the SMs
  std::optional<bool> throttled_power, throttled_thermal;
  std::optional<double> ecc_errors;  // uncorrected, since the driver was loaded
};

// Where samples come from. Used from one thread.
class GpuReader {
 public:
  virtual ~GpuReader() = default;
  // May take as long as the driver does.
  virtual std::vector<GpuSample> Read() = 0;
};

inline constexpr char kNvmlLibrary[] = "libnvidia-ml.so.1";
// NVML at `library`, for the GPUs of these indices. Errors (field "gpus"): the library is not
// there, is not NVML, or finds no driver.
absl::StatusOr<std::unique_ptr<GpuReader>> OpenNvml(const std::string& library,
                                                    std::vector<int> indices);

// Reads on a thread of its own, so that a driver that hangs stops neither a scrape nor the agent;
// its series end when the newest sample is older than `stale`. Thread-safe.
class GpuMetrics : public prometheus::Collectable {
 public:
  GpuMetrics(std::unique_ptr<GpuReader> reader, absl::Duration interval = absl::Seconds(5),
             absl::Duration stale = absl::Seconds(60));
  // Waits at most a second for a read that is under way; then it is left to itself.
  ~GpuMetrics() override;
  std::vector<prometheus::MetricFamily> Collect() const override;
  // Empty where the newest is older than `stale`.
  std::vector<GpuSample> Newest() const;

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;  // with the thread
};

}  // namespace ll
