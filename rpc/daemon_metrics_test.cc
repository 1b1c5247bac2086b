#include "rpc/daemon_metrics.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {
using ::testing::HasSubstr;
using ::testing::Not;

// Value of a family's only series, or of the one whose label has that value; -1: there is none.
double ValueOf(const DaemonMetrics& metrics, const std::string& name,
               const std::string& label = "") {
  for (const prometheus::MetricFamily& family : metrics.Collect()) {
    if (family.name != name) continue;
    for (const prometheus::ClientMetric& metric : family.metric) {
      if (!label.empty() && metric.label.at(0).value != label) continue;
      return family.type == prometheus::MetricType::Counter ? metric.counter.value
                                                            : metric.gauge.value;
    }
  }
  return -1;
}

TEST(DaemonMetricsTest, ThisProcess) {
  const DaemonMetrics metrics({});
  const double now = static_cast<double>(std::time(nullptr));
  // The kernel counts in ticks and tells the boot in seconds.
  EXPECT_LE(ValueOf(metrics, "process_start_time_seconds"), now + 1.1);
  EXPECT_GT(ValueOf(metrics, "process_start_time_seconds"), now - 3600);
  EXPECT_GT(ValueOf(metrics, "process_resident_memory_bytes"), 1e6);
  EXPECT_GE(ValueOf(metrics, "process_virtual_memory_bytes"),
            ValueOf(metrics, "process_resident_memory_bytes"));
  EXPECT_GE(ValueOf(metrics, "process_threads"), 1);
  EXPECT_GE(ValueOf(metrics, "process_max_fds"), ValueOf(metrics, "process_open_fds"));
  const double before = ValueOf(metrics, "process_cpu_seconds_total");
  const std::clock_t began = std::clock();
  while (std::clock() - began < CLOCKS_PER_SEC / 20) {
  }
  EXPECT_GT(ValueOf(metrics, "process_cpu_seconds_total"), before);

  const double open = ValueOf(metrics, "process_open_fds");
  std::FILE* file = std::fopen("/dev/null", "r");
  EXPECT_EQ(ValueOf(metrics, "process_open_fds"), open + 1);
  std::fclose(file);
}

TEST(DaemonMetricsTest, DisksAndCertificatesThatAreThere) {
  const TempDir made;
  const std::string& dir = made.path();
  ASSERT_EQ(
      std::system(absl::StrCat("openssl req -x509 -newkey ec -pkeyopt ",
                               "ec_paramgen_curve:prime256v1 -nodes -days 3 -subj /CN=t ",
                               "-keyout ", dir, "/key.pem -out ", dir, "/cert.pem 2>/dev/null")
                      .c_str()),
      0);
  LL_ASSERT_OK(WriteFileAtomic(dir + "/no.pem", "not a certificate"));
  const DaemonMetrics metrics(
      {.disks = {{"data_dir", dir}, {"gone", dir + "/missing"}},
       .certificates = {
           {"tls_cert", dir + "/cert.pem"}, {"broken", dir + "/no.pem"}, {"unset", ""}}});
  EXPECT_NEAR(ValueOf(metrics, "ll_certificate_expiry_time_seconds", "tls_cert"),
              static_cast<double>(std::time(nullptr)) + 3 * 86400, 60);
  EXPECT_EQ(ValueOf(metrics, "ll_certificate_expiry_time_seconds", "broken"), -1);
  EXPECT_EQ(ValueOf(metrics, "ll_certificate_expiry_time_seconds", "unset"), -1);
  struct statvfs disk;
  ASSERT_EQ(statvfs(dir.c_str(), &disk), 0);
  EXPECT_EQ(ValueOf(metrics, "ll_disk_size_bytes", "data_dir"),
            static_cast<double>(disk.f_blocks) * static_cast<double>(disk.f_frsize));
  EXPECT_GT(ValueOf(metrics, "ll_disk_free_bytes", "data_dir"), 0);
  EXPECT_EQ(ValueOf(metrics, "ll_disk_free_bytes", "gone"), -1);
}

TEST(DaemonMetricsTest, ThePageHoldsEverySource) {
  const auto daemon = std::make_shared<DaemonMetrics>(DaemonSubjects{.disks = {{"tmp", "/tmp"}}});
  const HttpAnswer answer = MetricsPage({daemon})();
  EXPECT_THAT(answer.type, HasSubstr("version=0.0.4"));
  EXPECT_THAT(answer.body, HasSubstr("# TYPE process_cpu_seconds_total counter\n"));
  EXPECT_THAT(answer.body, HasSubstr("ll_disk_free_bytes{disk=\"tmp\"} "));
  EXPECT_THAT(answer.body, Not(HasSubstr("ll_certificate_expiry_time_seconds")));
}

}  // namespace
}  // namespace ll
