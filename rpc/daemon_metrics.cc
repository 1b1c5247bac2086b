#include "rpc/daemon_metrics.h"

#include <openssl/pem.h>
#include <openssl/x509.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>
#include <iterator>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/file.h"

namespace ll {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// Adds one family; the first value makes it.
class Families {
 public:
  void Gauge(const char* name, const char* help, double value,
             std::vector<ClientMetric::Label> labels = {}) {
    Add(name, help, MetricType::Gauge, std::move(labels)).gauge.value = value;
  }
  void Counter(const char* name, const char* help, double value) {
    Add(name, help, MetricType::Counter, {}).counter.value = value;
  }
  std::vector<MetricFamily> Take() { return std::move(families_); }

 private:
  ClientMetric& Add(const char* name, const char* help, MetricType type,
                    std::vector<ClientMetric::Label> labels) {
    if (families_.empty() || families_.back().name != name)
      families_.push_back({name, help, type, {}});
    ClientMetric& metric = families_.back().metric.emplace_back();
    metric.label = std::move(labels);
    return metric;
  }
  std::vector<MetricFamily> families_;
};

// Fields of /proc/self/stat behind the program's name, which may hold anything but the last ')'.
std::vector<std::string> StatFields() {
  const auto text = ReadFile("/proc/self/stat");
  if (!text.ok()) return {};
  const size_t end = text->rfind(") ");
  if (end == std::string::npos) return {};
  return absl::StrSplit(text->substr(end + 2), ' ');
}

// Field `number` as proc(5) counts them.
std::optional<double> Field(const std::vector<std::string>& fields, size_t number) {
  double value;
  const size_t index = number - 3;  // the first two stand before the ')'
  if (index >= fields.size() || !absl::SimpleAtod(fields[index], &value)) return std::nullopt;
  return value;
}

std::optional<double> BootTimeSeconds() {
  const auto text = ReadFile("/proc/stat");
  if (!text.ok()) return std::nullopt;
  const size_t at = text->find("\nbtime ");
  if (at == std::string::npos) return std::nullopt;
  const std::vector<std::string> parts =
      absl::StrSplit(text->substr(at + 7, 20), absl::MaxSplits('\n', 1));
  double value;
  if (!absl::SimpleAtod(parts[0], &value)) return std::nullopt;
  return value;
}

void AddProcess(Families& out) {
  const std::vector<std::string> fields = StatFields();
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto user = Field(fields, 14), kernel = Field(fields, 15), threads = Field(fields, 20),
             started = Field(fields, 22), virtual_bytes = Field(fields, 23),
             pages = Field(fields, 24), booted = BootTimeSeconds();
  if (user && kernel)
    out.Counter("process_cpu_seconds_total", "User and system CPU time.",
                (*user + *kernel) / ticks);
  if (started && booted)
    out.Gauge("process_start_time_seconds", "When the process began, in seconds since 1970.",
              *booted + *started / ticks);
  if (pages)
    out.Gauge("process_resident_memory_bytes", "Resident memory of the process.",
              *pages * static_cast<double>(sysconf(_SC_PAGESIZE)));
  if (virtual_bytes)
    out.Gauge("process_virtual_memory_bytes", "Virtual memory of the process.", *virtual_bytes);
  if (threads) out.Gauge("process_threads", "Threads of the process.", *threads);
  if (const auto open = ListDir("/proc/self/fd"); open.ok())
    out.Gauge("process_open_fds", "Open file descriptors.", static_cast<double>(open->size()));
  if (rlimit limit; getrlimit(RLIMIT_NOFILE, &limit) == 0)
    out.Gauge("process_max_fds", "Most file descriptors that may be open.",
              static_cast<double>(limit.rlim_cur));
}

void AddDisks(const std::map<std::string, std::string>& disks, Families& out) {
  std::map<std::string, struct statvfs> found;
  for (const auto& [label, path] : disks) {
    struct statvfs disk;
    if (!path.empty() && statvfs(path.c_str(), &disk) == 0) found[label] = disk;
  }
  for (const auto& [label, disk] : found)
    out.Gauge("ll_disk_free_bytes", "Bytes that this process may still write, by folder.",
              static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize),
              {{"disk", label}});
  for (const auto& [label, disk] : found)
    out.Gauge("ll_disk_size_bytes", "Size of the folder's file system.",
              static_cast<double>(disk.f_blocks) * static_cast<double>(disk.f_frsize),
              {{"disk", label}});
}

std::optional<double> EndOfCertificate(const std::string& path) {
  std::FILE* file = path.empty() ? nullptr : std::fopen(path.c_str(), "re");
  if (file == nullptr) return std::nullopt;
  X509* certificate = PEM_read_X509(file, nullptr, nullptr, nullptr);
  std::fclose(file);
  if (certificate == nullptr) return std::nullopt;
  std::tm end{};
  const bool ok = ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) == 1;
  X509_free(certificate);
  if (!ok) return std::nullopt;
  return static_cast<double>(timegm(&end));
}

}  // namespace

std::vector<MetricFamily> DaemonMetrics::Collect() const {
  Families out;
  AddProcess(out);
  AddDisks(subjects_.disks, out);
  for (const auto& [label, path] : subjects_.certificates) {
    if (const auto end = EndOfCertificate(path))
      out.Gauge("ll_certificate_expiry_time_seconds",
                "When the certificate in use ends, in seconds since 1970, by file.", *end,
                {{"file", label}});
  }
  return out.Take();
}

HttpServer::Page MetricsPage(std::vector<std::shared_ptr<const prometheus::Collectable>> sources) {
  return [sources = std::move(sources)] {
    std::vector<MetricFamily> all;
    for (const auto& source : sources) {
      std::vector<MetricFamily> some = source->Collect();
      std::move(some.begin(), some.end(), std::back_inserter(all));
    }
    return HttpAnswer{.type = "text/plain; version=0.0.4; charset=utf-8",
                      .body = prometheus::TextSerializer().Serialize(all)};
  };
}

}  // namespace ll
