#include "model/plan/devices.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/status_macros.h"

namespace ll {
namespace {

double NumberOf(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number() ? it->get<double>() : 0;
}

std::string TextOf(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

DeviceKind KindOf(const nlohmann::json& entry) {
  DeviceKind kind;
  kind.device = {TextOf(entry, "kind"), static_cast<int64_t>(NumberOf(entry, "memory_bytes"))};
  DeviceRates& r = kind.rates;
  r.peak = NumberOf(entry, "peak_flops");
  r.gemm = NumberOf(entry, "gemm_flops");
  r.attention = NumberOf(entry, "attention_flops");
  r.gemm_fp8 = NumberOf(entry, "gemm_fp8_flops");
  r.memory_bandwidth = NumberOf(entry, "memory_bandwidth");
  r.link_bandwidth = NumberOf(entry, "link_bandwidth");
  r.host_bandwidth = NumberOf(entry, "host_bandwidth");
  r.network_bandwidth = NumberOf(entry, "network_bandwidth");
  r.power_watts = NumberOf(entry, "power_watts");
  r.nominal = entry.value("nominal", false);
  r.shares_cores = entry.value("shares_cores", false);
  kind.unsupported = TextOf(entry, "unsupported");
  kind.source = TextOf(entry, "source");
  LL_CHECK(!kind.device.kind.empty() && r.gemm > 0 && r.attention > 0 && r.memory_bandwidth > 0 &&
           r.link_bandwidth > 0 && r.host_bandwidth > 0 && r.network_bandwidth > 0);
  return kind;
}

// The file's, with "cpu" last.
const std::vector<DeviceKind>& AllKinds() {
  static const auto& kinds = *[] {
    const auto file = ParseJsonObject(kDevicesJson);
    LL_CHECK_MSG(file.ok(), "devices.json");
    auto* all = new std::vector<DeviceKind>;
    for (const nlohmann::json& entry : file->at("devices")) all->push_back(KindOf(entry));
    std::stable_sort(all->begin(), all->end(), [](const DeviceKind& a, const DeviceKind& b) {
      if (a.device.IsGpu() != b.device.IsGpu()) return a.device.IsGpu();
      return a.device.memory_bytes < b.device.memory_bytes;
    });
    return all;
  }();
  return kinds;
}

}  // namespace

const std::vector<DeviceKind>& DeviceCatalogue() {
  static const auto& gpus = *[] {
    auto* found = new std::vector<DeviceKind>;
    for (const DeviceKind& kind : AllKinds()) {
      if (kind.device.IsGpu()) found->push_back(kind);
    }
    return found;
  }();
  return gpus;
}

const DeviceKind* FindDevice(absl::string_view kind) {
  for (const DeviceKind& known : AllKinds()) {
    if (known.device.kind == kind) return &known;
  }
  return nullptr;
}

DeviceRates RatesOf(absl::string_view kind) {
  const DeviceKind* known = FindDevice(kind);
  return known != nullptr ? known->rates : DeviceRates{};
}

absl::StatusOr<Calibration> ParseCalibration(absl::string_view json) {
  LL_ASSIGN_OR_RETURN(const nlohmann::json object, ParseJsonObject(json, {4, 100}));
  Calibration out;
  out.device = TextOf(object, "device");
  out.host = TextOf(object, "host");
  out.time = TextOf(object, "time");
  out.build = TextOf(object, "build");
  if (out.device.empty())
    return MakeFieldError({"device", "the kind of device that was measured", "nothing"});
  constexpr double kAny = std::numeric_limits<double>::max();
  struct Rate {
    const char* key;
    double* value;
    bool may_be_zero;
    double most = kAny;
  };
  const Rate rates[] = {
      {"gemm_flops", &out.gemm, false},
      {"attention_flops", &out.attention, false},
      {"memory_bandwidth", &out.memory_bandwidth, false},
      {"link_bandwidth", &out.link_bandwidth, true},  // nothing to exchange with
      // Probes of older builds do not have these.
      {"gemm_fp32_flops", &out.gemm_fp32, true},
      {"attention_fp32_flops", &out.attention_fp32, true},
      {"elementwise_bandwidth", &out.elementwise_bandwidth, true},
      {"loss_bandwidth", &out.loss_bandwidth, true},
      {"expansion_bandwidth", &out.expansion_bandwidth, true},
      {"optimizer_bandwidth", &out.optimizer_bandwidth, true},
      {"attention_extra_keys", &out.attention_extra_keys, true},
      {"lora_extra_ranks", &out.lora_extra_ranks, true},
      // The larger of two times is at most their sum, twice their mean.
      {"rank_wait", &out.rank_wait, true, 1},
  };
  for (const auto& [key, value, may_be_zero, most] : rates) {
    *value = NumberOf(object, key);
    if (!std::isfinite(*value) || *value < 0 || (*value == 0 && !may_be_zero)) {
      return MakeFieldError(
          {key, "a positive number", object.contains(key) ? JsonExcerpt(object[key]) : "nothing"});
    }
    if (*value > most) {
      return MakeFieldError({key, absl::StrCat("at most ", most), JsonExcerpt(object[key])});
    }
  }
  return out;
}

absl::StatusOr<std::map<std::string, Calibration>> ReadCalibrations(const std::string& folder) {
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(folder));
  std::map<std::string, Calibration> newest;
  for (const std::string& name : names) {
    if (!absl::EndsWith(name, ".json")) continue;
    LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(absl::StrCat(folder, "/", name)));
    auto found = ParseCalibration(text);
    if (!found.ok()) return Annotate(found.status(), absl::StrCat(folder, "/", name));
    const auto [it, fresh] = newest.try_emplace(found->device, *found);
    // RFC 3339 in UTC, as a probe writes it, sorts by its text.
    if (!fresh && it->second.time < found->time) it->second = *std::move(found);
  }
  return newest;
}

DeviceRates WithCalibration(DeviceRates rates, const Calibration& calibration) {
  // Not measured: at the share of its peak that bf16 reaches there.
  if (rates.gemm > 0) rates.gemm_fp8 *= calibration.gemm / rates.gemm;
  rates.gemm = calibration.gemm;
  rates.attention = calibration.attention;
  rates.memory_bandwidth = calibration.memory_bandwidth;
  rates.gemm_fp32 = calibration.gemm_fp32;
  rates.attention_fp32 = calibration.attention_fp32;
  rates.elementwise_bandwidth = calibration.elementwise_bandwidth;
  rates.loss_bandwidth = calibration.loss_bandwidth;
  rates.expansion_bandwidth = calibration.expansion_bandwidth;
  rates.optimizer_bandwidth = calibration.optimizer_bandwidth;
  rates.attention_extra_keys = calibration.attention_extra_keys;
  rates.lora_extra_ranks = calibration.lora_extra_ranks;
  rates.rank_wait = calibration.rank_wait;
  if (calibration.link_bandwidth > 0) rates.link_bandwidth = calibration.link_bandwidth;
  rates.measured = true;
  rates.nominal = false;
  return rates;
}

}  // namespace ll
