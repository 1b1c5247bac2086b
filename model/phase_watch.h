// How long the parts of what a device computes take. A GPU's times are those of its own events: the
// host only enqueues, and is done with a part long before the device has begun it.
#pragma once

#include <chrono>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/Event.h>

namespace ll {

// Not thread-safe.
class PhaseWatch {
 public:
  // Marks the beginning.
  explicit PhaseWatch(at::Device device) : device_(device) { Mark(); }
  // A part ends here, and the next one begins. Waits for nothing.
  void Mark();
  // Seconds of the parts so far. The device must have reached the last mark, as it has when the
  // host has read something that was computed behind it.
  std::vector<double> Seconds() const;

 private:
  const at::Device device_;
  std::vector<std::chrono::steady_clock::time_point> times_;  // of a CPU
  std::vector<c10::Event> events_;                            // of a GPU
};

}  // namespace ll
