#include "model/plan/devices.h"

namespace ll {

const std::vector<Device>& DeviceCatalogue() {
  static const auto& devices = *new std::vector<Device>{{"GeForce RTX 5090", 32'000'000'000},
                                                        {"A100-40", 40'000'000'000},
                                                        {"A100-80", 80'000'000'000},
                                                        {"H100", 80'000'000'000},
                                                        {"H200", 141'000'000'000},
                                                        {"B200", 180'000'000'000}};
  return devices;
}

const Device* FindDevice(absl::string_view kind) {
  for (const Device& device : DeviceCatalogue()) {
    if (device.kind == kind) return &device;
  }
  return nullptr;
}

}  // namespace ll
