// Layers' inputs in host memory between the forward and the backward pass: with recompute full they
// are all that is kept, and the device holds a few of them at a time instead of one a layer.
//
// Layer l's input lies in device slot l mod kSlots. Forward, it travels to its host buffer while
// the layer computes and is gone from the device when the slot is needed again; backward, layer
// l - 1's travels back while layer l computes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/ATen.h>

namespace ll {

// Copies between device and host memory, beside what is computed where the device can do that. Not
// thread-safe.
class HostCopier {
 public:
  virtual ~HostCopier() = default;
  // Host memory of that shape and type, pinned where that matters.
  virtual at::Tensor NewHostTensor(const at::Tensor& like) = 0;
  // Starts to = from, after everything computed so far; returns its number. Until Wait, `from` must
  // not be written and `to` not be read.
  virtual int64_t Start(const at::Tensor& from, const at::Tensor& to) = 0;
  // What is computed from here on comes after that copy.
  virtual void Wait(int64_t copy) = 0;
};

// On a GPU: a stream of its own and pinned memory. On a CPU: copies at once.
std::unique_ptr<HostCopier> MakeHostCopier(at::Device device);

class InputOffload {
 public:
  // Two that a layer reads and writes, one that is leaving.
  static constexpr int64_t kSlots = 3;

  // torch takes pinned memory in powers of two: a layer's in one piece could take twice as much of
  // the host as it needs.
  static constexpr int64_t kPieceBytes = 32 << 20;

  explicit InputOffload(std::unique_ptr<HostCopier> copier, int64_t piece_bytes = kPieceBytes)
      : copier_(std::move(copier)), piece_bytes_(piece_bytes) {}

  // For a row: inputs[l] is the view of layer l's slot.
  void Prepare(std::vector<at::Tensor> inputs);
  // ---- forward, for each layer
  void BeforeWrite(size_t layer);  // its input is about to be written
  void Written(size_t layer);      // and was: it may leave
  // ---- backward, from the last layer to the first
  void BeforeBackward(size_t layer);  // its input is read from here on
  // What is computed from here on comes after every copy: before the slots are given back in the
  // middle of a row, for other use while a copy would still write into them.
  void Settle();

 private:
  static constexpr int64_t kNone = -1;
  void Fetch(size_t layer);
  // Starts the copies of a layer's input to the host or back; returns the last one's number.
  int64_t Start(size_t layer, bool to_host);

  std::unique_ptr<HostCopier> copier_;
  const int64_t piece_bytes_;
  std::vector<at::Tensor> inputs_;
  std::vector<std::vector<at::Tensor>> hosts_;  // by layer: flat pieces
  std::vector<int64_t> leaving_, arriving_;     // copies under way, by layer
  std::vector<size_t> in_slot_;                 // whose input each slot holds
};

}  // namespace ll
