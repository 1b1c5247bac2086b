// Kinds of devices that are known before any worker has brought one, and how fast they are. The
// constants stand in devices.json, each with its source; a worker's probe (Calibration) replaces
// what it has measured. Torch-free, thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ll {

// What a slot is, as a worker tells of it.
struct Device {
  std::string kind;          // "cpu", "A100-80", "H100", …
  int64_t memory_bytes = 0;  // of one slot
  bool IsGpu() const { return kind != "cpu"; }
};

// What a kind of device reaches in practice. Zero: not known.
struct DeviceRates {
  double peak = 0;                 // FLOP/s of the data sheet, bf16 dense; for mfu
  double gemm = 0, attention = 0;  // FLOP/s, bf16
  double gemm_fp8 = 0;             // of e4m3 with bf16 results; 0: the device has no such products
  double memory_bandwidth = 0;     // bytes/s of its own memory
  // The same products in fp32, and bytes/s of the elementwise kernels, the loss, NF4's expansion
  // and the update, by time_plan's own count of them. Zero: not measured, derived from the others.
  double gemm_fp32 = 0, attention_fp32 = 0, elementwise_bandwidth = 0, loss_bandwidth = 0,
         expansion_bandwidth = 0, optimizer_bandwidth = 0;
  // A query costs attention so many keys more than it sees (whole tiles are computed where the
  // causal mask cuts them), an adapter's products cost so many more ranks.
  double attention_extra_keys = 0, lora_extra_ranks = 0;
  // Share of the computing time by which the slower of two devices that do the same is behind their
  // mean: that long everyone waits. Zero: not measured.
  double rank_wait = 0;
  // Bytes/s one way: to the other devices of the host, to host memory, to other hosts.
  double link_bandwidth = 0, host_bandwidth = 0, network_bandwidth = 0;
  double power_watts = 0;  // at full load
  bool measured = false;   // by a probe on such a host, not from the catalogue
  // What moves bytes between ranks are the cores that compute: nothing hides.
  bool shares_cores = false;
  // The rates order plans but do not tell times: the speed depends on the host.
  bool nominal = false;
};

struct DeviceKind {
  Device device;
  DeviceRates rates;
  std::string unsupported;  // why jobs cannot run on it; empty: they can
  std::string source;       // of the constants
};

// By rising memory; "cpu", whose memory is the host's, is not in it. Memory is the data sheet's,
// which is a little less than what a driver tells.
const std::vector<DeviceKind>& DeviceCatalogue();
// nullptr where the kind is in no catalogue; knows "cpu".
const DeviceKind* FindDevice(absl::string_view kind);
// The rates of a kind; of one that is not known, all zero.
DeviceRates RatesOf(absl::string_view kind);

// What `ll-trainer probe` measured on a host, as it prints it: one JSON object with device,
// gemm_flops, attention_flops, memory_bandwidth, link_bandwidth, host, time and build, and with
// newer builds the rest of the rates above, by their names. Errors: InvalidArgument naming the key.
struct Calibration {
  std::string device;  // kind
  double gemm = 0, attention = 0, memory_bandwidth = 0, link_bandwidth = 0;
  double gemm_fp32 = 0, attention_fp32 = 0, elementwise_bandwidth = 0, loss_bandwidth = 0,
         expansion_bandwidth = 0, optimizer_bandwidth = 0, attention_extra_keys = 0,
         lora_extra_ranks = 0, rank_wait = 0;
  std::string host;   // whose it is; may be empty
  std::string time;   // RFC 3339, when it was measured
  std::string build;  // of the trainer that measured
};
absl::StatusOr<Calibration> ParseCalibration(absl::string_view json);
// The newest of each kind among the *.json files of a folder. Errors name the file.
absl::StatusOr<std::map<std::string, Calibration>> ReadCalibrations(const std::string& folder);
// `rates` with what was measured in their place.
DeviceRates WithCalibration(DeviceRates rates, const Calibration& calibration);

extern const char kDevicesJson[];  // devices.json

}  // namespace ll
