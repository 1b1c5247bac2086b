#include "worker/agent/gpu_metrics.h"

#include <prometheus/text_serializer.h>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/field_error.h"
#include "base/status_matchers.h"

namespace ll {
namespace {
using ::testing::HasSubstr;
using ::testing::Not;

// Waits until there is a sample.
std::string FirstText(const GpuMetrics& metrics) {
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  auto collected = metrics.Collect();
  while (collected.empty() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(5));
    collected = metrics.Collect();
  }
  return prometheus::TextSerializer().Serialize(collected);
}

TEST(GpuMetricsTest, InBaseUnitsAndOnlyWhatADeviceTells) {
  LL_ASSERT_OK_AND_ASSIGN(auto reader, OpenNvml(LL_FAKE_NVML, {0, 1}));
  const GpuMetrics metrics(std::move(reader));
  const std::string text = FirstText(metrics);
  for (const char* line : {
           "ll_gpu_utilization_ratio{gpu=\"0\"} 0.87\n",
           "ll_gpu_memory_used_bytes{gpu=\"1\"} 1000000001\n",
           "ll_gpu_memory_size_bytes{gpu=\"0\"} 80000000000\n",
           "ll_gpu_temperature_celsius{gpu=\"0\"} 61\n",
           "ll_gpu_power_watts{gpu=\"0\"} 512.5\n",
           "# TYPE ll_gpu_energy_joules_total counter\n",
           "ll_gpu_energy_joules_total{gpu=\"0\"} 7.25\n",
           "ll_gpu_clock_hertz{gpu=\"1\"} 1980000000\n",
           "ll_gpu_throttled{gpu=\"0\",reason=\"power\"} 1\n",
           "ll_gpu_throttled{gpu=\"0\",reason=\"thermal\"} 0\n",
           "ll_gpu_throttled{gpu=\"1\",reason=\"power\"} 0\n",
           "ll_gpu_ecc_errors_total{gpu=\"0\"} 3\n",
           "ll_gpu_info{gpu=\"1\",uuid=\"GPU-1\"} 1\n",
       })
    EXPECT_THAT(text, HasSubstr(line));
  for (const char* absent : {"ll_gpu_temperature_celsius{gpu=\"1\"", "ll_gpu_power_watts{gpu=\"1\"",
                             "ll_gpu_ecc_errors_total{gpu=\"1\""})
    EXPECT_THAT(text, Not(HasSubstr(absent)));
}

TEST(GpuMetricsTest, OnlyTheGpusThatAreOffered) {
  LL_ASSERT_OK_AND_ASSIGN(auto reader, OpenNvml(LL_FAKE_NVML, {1, 7}));
  const std::vector<GpuSample> samples = reader->Read();
  ASSERT_EQ(samples.size(), 1u);  // there is no GPU 7
  EXPECT_EQ(samples[0].index, 1);
}

TEST(GpuMetricsTest, WithoutTheDriverOneSentence) {
  const auto missing = OpenNvml("libll-no-such-library.so.1", {0});
  EXPECT_THAT(missing, StatusIs(absl::StatusCode::kUnavailable, "libll-no-such-library.so.1"));
  EXPECT_EQ(ErrorField(missing.status()), "gpus");
  EXPECT_THAT(OpenNvml("libm.so.6", {0}),
              StatusIs(absl::StatusCode::kUnavailable, "libm.so.6 is not NVML"));
}

// Reads until it is broken, then hangs as a broken driver does.
struct Driver {
  absl::Notification broken, released;
};
class HangingReader : public GpuReader {
 public:
  explicit HangingReader(Driver& driver) : driver_(driver) {}
  std::vector<GpuSample> Read() override {
    if (driver_.broken.HasBeenNotified()) driver_.released.WaitForNotification();
    return {{.index = 0, .utilization = 0.5}};
  }

 private:
  Driver& driver_;
};

TEST(GpuMetricsTest, ADriverThatHangsStopsNobody) {
  static auto& driver = *new Driver;  // outlives the thread that is left behind
  const absl::Time began = absl::Now();
  {
    const GpuMetrics metrics(std::make_unique<HangingReader>(driver), absl::Milliseconds(1),
                             absl::Milliseconds(200));
    EXPECT_THAT(FirstText(metrics), HasSubstr("ll_gpu_utilization_ratio{gpu=\"0\"} 0.5"));
    driver.broken.Notify();
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (!metrics.Collect().empty() && absl::Now() < deadline)
      absl::SleepFor(absl::Milliseconds(20));
    EXPECT_TRUE(metrics.Collect().empty());  // old samples are not shown as new ones
  }
  EXPECT_LT(absl::Now() - began, absl::Seconds(20));
  driver.released.Notify();
}

}  // namespace
}  // namespace ll
