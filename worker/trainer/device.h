// The device this process computes on: one GPU, or the host's processors.
#pragma once

#include <cstdint>
#include <string>

#include <ATen/ATen.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ll {

// Chooses the device, once, before a model is made. "cpu"; "cuda": the first GPU that this process
// sees (CUDA_VISIBLE_DEVICES narrows them; an agent gives each rank one); "auto": that GPU where
// the host has one and shows it to this process, else the CPU. `deterministic`: kernels whose
// result is the same in every run, where there is a choice. Not thread-safe. FailedPrecondition
// with the reason where a GPU is asked for, or shown to this process, and cannot be used.
absl::Status UseDevice(absl::string_view wanted, bool deterministic);

// The chosen one; the CPU before UseDevice.
at::Device ProcessDevice();
// "cpu", or the GPU's name as its driver has it.
std::string ProcessDeviceName();
// Which attention kernel a GPU's bf16 rows without documents go through, and why; empty on a CPU.
const std::string& ProcessAttention();

// Until the device has done what this process gave it to do; at once on the CPU.
void WaitForDevice();

// Bytes this process may still allocate there: on the CPU what the host has left and the control
// group allows.
int64_t AvailableMemoryBytes();
// All of a GPU's memory, whoever holds it; 0 on the CPU.
int64_t GpuMemoryBytes();
// The most it has taken: VmHWM on the CPU, what torch's allocator has reserved on a GPU.
int64_t PeakMemoryBytes();

}  // namespace ll
