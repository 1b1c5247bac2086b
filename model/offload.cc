#include "model/offload.h"

#include <algorithm>
#include <deque>
#include <utility>

#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "base/check.h"

namespace ll {
namespace {

class CpuCopier : public HostCopier {
 public:
  at::Tensor NewHostTensor(const at::Tensor& like) override { return at::empty_like(like); }
  int64_t Start(const at::Tensor& from, const at::Tensor& to) override {
    to.copy_(from);
    return 0;
  }
  void Wait(int64_t) override {}
};

// torch's own names for streams and events, so that this file needs no CUDA.
class StreamCopier : public HostCopier {
 public:
  explicit StreamCopier(at::Device device)
      : device_(device),
        guard_(device.type()),
        side_(guard_.getStreamFromGlobalPool(device, /*isHighPriority=*/false)) {}

  at::Tensor NewHostTensor(const at::Tensor& like) override {
    return at::empty(like.sizes(),
                     at::TensorOptions().dtype(like.scalar_type()).pinned_memory(true));
  }

  int64_t Start(const at::Tensor& from, const at::Tensor& to) override {
    c10::Event computed(device_.type());
    computed.record(guard_.getStream(device_));
    computed.block(side_);
    c10::Event done(device_.type());
    {
      const c10::StreamGuard on_side(side_);
      to.copy_(from, /*non_blocking=*/true);
      done.record(side_);
    }
    copies_.push_back(std::move(done));
    return next_++;
  }

  // Copies end in the order in which they started.
  void Wait(int64_t copy) override {
    while (first_ < copy) {
      copies_.pop_front();
      ++first_;
    }
    if (first_ == copy && !copies_.empty()) copies_.front().block(guard_.getStream(device_));
  }

 private:
  const at::Device device_;
  const c10::impl::VirtualGuardImpl guard_;
  const c10::Stream side_;
  std::deque<c10::Event> copies_;
  int64_t first_ = 0, next_ = 0;
};

}  // namespace

std::unique_ptr<HostCopier> MakeHostCopier(at::Device device) {
  if (device.is_cpu()) return std::make_unique<CpuCopier>();
  return std::make_unique<StreamCopier>(device);
}

void InputOffload::Settle() {
  for (std::vector<int64_t>* copies : {&leaving_, &arriving_}) {
    for (int64_t& copy : *copies) {
      if (copy != kNone) copier_->Wait(std::exchange(copy, kNone));
    }
  }
}

void InputOffload::Prepare(std::vector<at::Tensor> inputs) {
  Settle();  // the last layers' of the row before never had to leave
  inputs_ = std::move(inputs);
  hosts_.resize(inputs_.size());
  for (size_t l = 0; l < inputs_.size(); ++l) {
    const at::Tensor flat = inputs_[l].view({-1});
    int64_t held = 0;
    for (const at::Tensor& piece : hosts_[l]) held += piece.numel();
    if (held >= flat.numel()) continue;
    hosts_[l].clear();
    const int64_t most = std::max<int64_t>(1, piece_bytes_ / flat.element_size());
    for (int64_t begin = 0; begin < flat.numel(); begin += most) {
      hosts_[l].push_back(
          copier_->NewHostTensor(flat.narrow(0, begin, std::min(most, flat.numel() - begin))));
    }
  }
  leaving_.assign(inputs_.size(), kNone);
  arriving_.assign(inputs_.size(), kNone);
  in_slot_.assign(kSlots, inputs_.size());
}

void InputOffload::BeforeWrite(size_t layer) {
  if (layer >= kSlots && leaving_[layer - kSlots] != kNone)
    copier_->Wait(std::exchange(leaving_[layer - kSlots], kNone));
  in_slot_[layer % kSlots] = layer;
}

int64_t InputOffload::Start(size_t layer, bool to_host) {
  const at::Tensor flat = inputs_[layer].view({-1});
  int64_t last = kNone, begin = 0;
  for (const at::Tensor& piece : hosts_[layer]) {
    const int64_t count = std::min(piece.numel(), flat.numel() - begin);
    if (count == 0) break;  // a shorter row
    const at::Tensor here = flat.narrow(0, begin, count), there = piece.narrow(0, 0, count);
    last = to_host ? copier_->Start(here, there) : copier_->Start(there, here);
    begin += count;
  }
  return last;
}

void InputOffload::Written(size_t layer) { leaving_[layer] = Start(layer, /*to_host=*/true); }

void InputOffload::Fetch(size_t layer) {
  if (in_slot_[layer % kSlots] == layer) return;  // it has not been written over
  if (leaving_[layer] != kNone) copier_->Wait(std::exchange(leaving_[layer], kNone));
  in_slot_[layer % kSlots] = layer;
  arriving_[layer] = Start(layer, /*to_host=*/false);
}

void InputOffload::BeforeBackward(size_t layer) {
  Fetch(layer);
  if (arriving_[layer] != kNone) copier_->Wait(std::exchange(arriving_[layer], kNone));
  if (layer > 0) Fetch(layer - 1);
}

}  // namespace ll
