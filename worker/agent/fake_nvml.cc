// A library with NVML's interface and two made-up GPUs, for tests: GPU 0 tells everything, GPU 1 is
// of a kind that tells only what every device does. What goes wrong with GPU 0 can be said while
// it is read: the file that LL_FAKE_NVML names holds "ECC_ERRORS THROTTLE_REASONS".
#include <cstdio>
#include <cstdlib>

extern "C" {

struct Opaque {
  unsigned index;
};
struct Utilization {
  unsigned gpu, memory;
};
struct Memory {
  unsigned long long total, free, used;
};
constexpr int kOk = 0, kUninitialized = 1, kInvalidArgument = 2, kNotSupported = 3;

static bool initialized = false;
static Opaque devices[2] = {{0}, {1}};

struct Troubles {
  unsigned long long ecc_errors = 3;
  unsigned long long throttle_reasons = 0x4;  // a power cap
};

static Troubles TroublesNow() {
  Troubles out;
  const char* path = std::getenv("LL_FAKE_NVML");
  std::FILE* file = path == nullptr ? nullptr : std::fopen(path, "r");
  if (file == nullptr) return out;
  Troubles said;
  if (std::fscanf(file, "%llu %llu", &said.ecc_errors, &said.throttle_reasons) == 2) out = said;
  std::fclose(file);
  return out;
}

int nvmlInit_v2() {
  initialized = true;
  return kOk;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Opaque** device) {
  if (!initialized) return kUninitialized;
  if (index > 1) return kInvalidArgument;
  *device = &devices[index];
  return kOk;
}
int nvmlDeviceGetUUID(Opaque* device, char* uuid, unsigned length) {
  std::snprintf(uuid, length, "GPU-%u", device->index);
  return kOk;
}
int nvmlDeviceGetUtilizationRates(Opaque*, Utilization* out) {
  *out = {87, 40};
  return kOk;
}
int nvmlDeviceGetMemoryInfo(Opaque* device, Memory* out) {
  *out = {80000000000ull, 79000000000ull - device->index, 1000000000ull + device->index};
  return kOk;
}
int nvmlDeviceGetTemperature(Opaque* device, int sensor, unsigned* out) {
  if (sensor != 0 || device->index == 1) return kNotSupported;
  *out = 61;
  return kOk;
}
int nvmlDeviceGetPowerUsage(Opaque* device, unsigned* out) {
  if (device->index == 1) return kNotSupported;
  *out = 512500;  // milliwatts
  return kOk;
}
int nvmlDeviceGetTotalEnergyConsumption(Opaque* device, unsigned long long* out) {
  if (device->index == 1) return kNotSupported;
  *out = 7250;  // millijoules
  return kOk;
}
int nvmlDeviceGetClockInfo(Opaque*, int type, unsigned* out) {
  if (type != 1) return kInvalidArgument;
  *out = 1980;  // MHz
  return kOk;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(Opaque* device, unsigned long long* out) {
  *out = device->index == 0 ? TroublesNow().throttle_reasons : 0x1;  // idle
  return kOk;
}
int nvmlDeviceGetTotalEccErrors(Opaque* device, int type, int counter, unsigned long long* out) {
  if (type != 1 || counter != 0 || device->index == 1) return kNotSupported;
  *out = TroublesNow().ecc_errors;
  return kOk;
}
}
