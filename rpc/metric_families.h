// Makes metric families. Names and help texts are literals at the place of the call:
// tests/observability/metrics_table.py reads them there for docs/monitoring.md.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>

namespace ll {

using GaugeFamily = prometheus::Family<prometheus::Gauge>;
using CounterFamily = prometheus::Family<prometheus::Counter>;
using HistogramFamily = prometheus::Family<prometheus::Histogram>;

inline GaugeFamily& GaugeOf(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}
inline CounterFamily& CounterOf(prometheus::Registry& registry, const char* name,
                                const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}
inline HistogramFamily& HistogramOf(prometheus::Registry& registry, const char* name,
                                    const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

// The series of one gauge where they come and go: those not set since the last Sweep end with it.
// Not thread-safe; collection on other threads is fine.
class GaugeSet {
 public:
  explicit GaugeSet(GaugeFamily& family) : family_(family) {}
  void Set(const prometheus::Labels& labels, double value) {
    Series& series = series_[labels];
    if (series.gauge == nullptr) series.gauge = &family_.Add(labels);
    series.gauge->Set(value);
    series.fresh = true;
  }
  void Sweep() {
    for (auto it = series_.begin(); it != series_.end();) {
      if (!it->second.fresh) family_.Remove(it->second.gauge);
      const bool gone = !it->second.fresh;
      it->second.fresh = false;
      it = gone ? series_.erase(it) : std::next(it);
    }
  }

 private:
  struct Series {
    prometheus::Gauge* gauge = nullptr;
    bool fresh = false;
  };
  GaugeFamily& family_;
  std::map<prometheus::Labels, Series> series_;
};

}  // namespace ll
