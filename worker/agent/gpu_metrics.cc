#include "worker/agent/gpu_metrics.h"

#include <dlfcn.h>

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/steady_cond_var.h"

namespace ll {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// The part of NVML's interface (stable since driver 450) that is used here; its header is no
// dependency of the build. Every function returns 0 for success.
namespace nvml {
using Device = struct Opaque*;
struct Utilization {
  unsigned gpu, memory;  // percent
};
struct Memory {
  unsigned long long total, free, used;  // bytes
};
constexpr int kTemperatureGpu = 0, kClockSm = 1, kUncorrected = 1, kVolatile = 0;
constexpr unsigned long long kSwPowerCap = 0x4, kHwPowerBrake = 0x80, kSwThermal = 0x20,
                             kHwThermal = 0x40;
constexpr unsigned kUuidBytes = 96;
}  // namespace nvml

absl::Status NoNvml(const std::string& found) {
  return FieldStatus(absl::StatusCode::kUnavailable, "gpus",
                     absl::StrCat("no metrics of the GPUs: ", found),
                     "install the driver's libnvidia-ml.so.1; jobs run without it");
}

class NvmlReader : public GpuReader {
 public:
  absl::Status Open(const std::string& library, std::vector<int> indices) {
    indices_ = std::move(indices);
    library_ = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) return NoNvml(dlerror());
    int (*init)() = nullptr;
    if (!(Load("nvmlInit_v2", init) && Load("nvmlDeviceGetHandleByIndex_v2", handle_) &&
          Load("nvmlDeviceGetUtilizationRates", utilization_) &&
          Load("nvmlDeviceGetMemoryInfo", memory_)))
      return NoNvml(absl::StrCat(library, " is not NVML"));
    // What an older driver lacks has no series.
    Load("nvmlDeviceGetUUID", uuid_);
    Load("nvmlDeviceGetTemperature", temperature_);
    Load("nvmlDeviceGetPowerUsage", power_);
    Load("nvmlDeviceGetTotalEnergyConsumption", energy_);
    Load("nvmlDeviceGetClockInfo", clock_);
    Load("nvmlDeviceGetCurrentClocksThrottleReasons", throttle_);
    Load("nvmlDeviceGetTotalEccErrors", ecc_);
    if (const int code = init(); code != 0)
      return NoNvml(absl::StrCat("NVML finds no driver (code ", code, ")"));
    return absl::OkStatus();
  }
  // The library stays loaded: it has threads and handlers of its own.

  std::vector<GpuSample> Read() override {
    std::vector<GpuSample> out;
    for (const int index : indices_) {
      nvml::Device device = nullptr;
      if (handle_(static_cast<unsigned>(index), &device) == 0) out.push_back(Sample(index, device));
    }
    return out;
  }

 private:
  template <typename F>
  bool Load(const char* name, F& function) {
    function = reinterpret_cast<F>(dlsym(library_, name));
    return function != nullptr;
  }

  GpuSample Sample(int index, nvml::Device device) {
    GpuSample out{.index = index};
    char uuid[nvml::kUuidBytes] = {};
    if (uuid_ && uuid_(device, uuid, sizeof uuid) == 0) out.uuid = uuid;
    if (nvml::Utilization u{}; utilization_(device, &u) == 0) out.utilization = u.gpu / 100.0;
    if (nvml::Memory m{}; memory_(device, &m) == 0) {
      out.memory_used_bytes = static_cast<double>(m.used);
      out.memory_size_bytes = static_cast<double>(m.total);
    }
    unsigned number = 0;
    unsigned long long wide = 0;
    if (temperature_ && temperature_(device, nvml::kTemperatureGpu, &number) == 0)
      out.temperature_celsius = number;
    if (power_ && power_(device, &number) == 0) out.power_watts = number / 1e3;
    if (clock_ && clock_(device, nvml::kClockSm, &number) == 0) out.clock_hertz = number * 1e6;
    if (energy_ && energy_(device, &wide) == 0) out.energy_joules = static_cast<double>(wide) / 1e3;
    if (throttle_ && throttle_(device, &wide) == 0) {
      out.throttled_power = (wide & (nvml::kSwPowerCap | nvml::kHwPowerBrake)) != 0;
      out.throttled_thermal = (wide & (nvml::kSwThermal | nvml::kHwThermal)) != 0;
    }
    if (ecc_ && ecc_(device, nvml::kUncorrected, nvml::kVolatile, &wide) == 0)
      out.ecc_errors = static_cast<double>(wide);
    return out;
  }

  std::vector<int> indices_;
  void* library_ = nullptr;
  int (*handle_)(unsigned, nvml::Device*) = nullptr;
  int (*uuid_)(nvml::Device, char*, unsigned) = nullptr;
  int (*utilization_)(nvml::Device, nvml::Utilization*) = nullptr;
  int (*memory_)(nvml::Device, nvml::Memory*) = nullptr;
  int (*temperature_)(nvml::Device, int, unsigned*) = nullptr;
  int (*power_)(nvml::Device, unsigned*) = nullptr;
  int (*energy_)(nvml::Device, unsigned long long*) = nullptr;
  int (*clock_)(nvml::Device, int, unsigned*) = nullptr;
  int (*throttle_)(nvml::Device, unsigned long long*) = nullptr;
  int (*ecc_)(nvml::Device, int, int, unsigned long long*) = nullptr;
};

using Field = std::function<std::optional<double>(const GpuSample&)>;

MetricFamily Family(const std::vector<GpuSample>& samples, const char* name, const char* help,
                    const Field& field, MetricType type = MetricType::Gauge) {
  MetricFamily out{name, help, type, {}};
  for (const GpuSample& sample : samples) {
    const std::optional<double> value = field(sample);
    if (!value) continue;
    ClientMetric& metric = out.metric.emplace_back();
    metric.label = {{"gpu", absl::StrCat(sample.index)}};
    (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = *value;
  }
  return out;
}

MetricFamily Throttled(const std::vector<GpuSample>& samples) {
  MetricFamily out{"ll_gpu_throttled",
                   "1 while the driver lowers the clocks, by reason (power, thermal).",
                   MetricType::Gauge,
                   {}};
  const auto add = [&out](const GpuSample& sample, const char* reason, std::optional<bool> value) {
    if (!value) return;
    ClientMetric& metric = out.metric.emplace_back();
    metric.label = {{"gpu", absl::StrCat(sample.index)}, {"reason", reason}};
    metric.gauge.value = *value ? 1 : 0;
  };
  for (const GpuSample& sample : samples) {
    add(sample, "power", sample.throttled_power);
    add(sample, "thermal", sample.throttled_thermal);
  }
  return out;
}

MetricFamily Info(const std::vector<GpuSample>& samples) {
  MetricFamily out{"ll_gpu_info", "1, with the device's UUID.", MetricType::Gauge, {}};
  for (const GpuSample& sample : samples) {
    ClientMetric& metric = out.metric.emplace_back();
    metric.label = {{"gpu", absl::StrCat(sample.index)}, {"uuid", sample.uuid}};
    metric.gauge.value = 1;
  }
  return out;
}

}  // namespace

absl::StatusOr<std::unique_ptr<GpuReader>> OpenNvml(const std::string& library,
                                                    std::vector<int> indices) {
  auto reader = std::make_unique<NvmlReader>();
  if (const absl::Status status = reader->Open(library, std::move(indices)); !status.ok())
    return status;
  return reader;
}

struct GpuMetrics::Shared {
  std::unique_ptr<GpuReader> reader;  // the thread's
  absl::Mutex mu;
  std::vector<GpuSample> samples ABSL_GUARDED_BY(mu);
  absl::Duration sampled ABSL_GUARDED_BY(mu) = -absl::InfiniteDuration();  // steady
  absl::Duration stale;
  SteadyCondVar changed;  // stop, ended
  bool stop ABSL_GUARDED_BY(mu) = false, ended ABSL_GUARDED_BY(mu) = false;
  std::thread thread;
};

GpuMetrics::GpuMetrics(std::unique_ptr<GpuReader> reader, absl::Duration interval,
                       absl::Duration stale)
    : shared_(std::make_shared<Shared>()) {
  shared_->reader = std::move(reader);
  shared_->stale = stale;
  shared_->thread = std::thread([shared = shared_, interval] {
    for (;;) {
      std::vector<GpuSample> samples = shared->reader->Read();
      absl::MutexLock lock(&shared->mu);
      shared->samples = std::move(samples);
      shared->sampled = RealClock().Steady();
      if (!shared->changed.AwaitFor(shared->mu, interval, [&] { return shared->stop; })) continue;
      shared->ended = true;
      shared->changed.SignalAll();
      return;
    }
  });
}

GpuMetrics::~GpuMetrics() {
  bool ended;
  {
    absl::MutexLock lock(&shared_->mu);
    shared_->stop = true;
    shared_->changed.SignalAll();
    ended =
        shared_->changed.AwaitFor(shared_->mu, absl::Seconds(1), [&] { return shared_->ended; });
  }
  if (ended) {
    shared_->thread.join();
  } else {
    shared_->thread.detach();
  }
}

std::vector<GpuSample> GpuMetrics::Newest() const {
  absl::MutexLock lock(&shared_->mu);
  if (RealClock().Steady() - shared_->sampled > shared_->stale) return {};
  return shared_->samples;
}

std::vector<MetricFamily> GpuMetrics::Collect() const {
  const std::vector<GpuSample> samples = Newest();
  if (samples.empty()) return {};
  std::vector<MetricFamily> all = {
      Family(samples, "ll_gpu_utilization_ratio",
             "Share of the newest second or so in which a kernel ran.",
             [](const GpuSample& s) { return s.utilization; }),
      Family(samples, "ll_gpu_memory_used_bytes", "Memory in use, the driver's own included.",
             [](const GpuSample& s) { return s.memory_used_bytes; }),
      Family(samples, "ll_gpu_memory_size_bytes", "Memory of the GPU.",
             [](const GpuSample& s) { return s.memory_size_bytes; }),
      Family(samples, "ll_gpu_temperature_celsius", "Temperature of the GPU.",
             [](const GpuSample& s) { return s.temperature_celsius; }),
      Family(samples, "ll_gpu_power_watts", "Power that the GPU draws.",
             [](const GpuSample& s) { return s.power_watts; }),
      Family(
          samples, "ll_gpu_energy_joules_total", "Energy used since the driver was loaded.",
          [](const GpuSample& s) { return s.energy_joules; }, MetricType::Counter),
      Family(samples, "ll_gpu_clock_hertz", "Clock of the streaming multiprocessors.",
             [](const GpuSample& s) { return s.clock_hertz; }),
      Throttled(samples),
      Family(
          samples, "ll_gpu_ecc_errors_total",
          "Uncorrected memory errors since the driver was loaded.",
          [](const GpuSample& s) { return s.ecc_errors; }, MetricType::Counter),
      Info(samples),
  };
  std::erase_if(all, [](const MetricFamily& family) { return family.metric.empty(); });
  return all;
}

}  // namespace ll
