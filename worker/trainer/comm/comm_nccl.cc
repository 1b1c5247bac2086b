// Part of libll_cuda.so. Needs NCCL's and CUDA's headers.
#include <algorithm>
#include <chrono>
#include <deque>

#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "worker/trainer/comm/c10d_store.h"
#include "worker/trainer/comm/comm_cuda.h"

namespace ll {
namespace {

using Store = c10::intrusive_ptr<c10d::Store>;
using Group = c10::intrusive_ptr<c10d::ProcessGroupNCCL>;

// NCCL's operations fail on a thread of torch's, which ends the process a minute later and tells
// nobody why. The watch asks first.
void Watch(const Group& group, const std::string& name, PeerWatch& watch) {
  using Weak = c10::weak_intrusive_ptr<c10d::ProcessGroupNCCL>;
  watch.Check([weak = std::make_shared<Weak>(group), name]() -> absl::Status {
    const Group alive = weak->lock();
    if (alive == nullptr) return absl::OkStatus();
    switch (alive->getError()) {
      case c10d::ErrorType::SUCCESS:
        return absl::OkStatus();
      case c10d::ErrorType::TIMEOUT:
        return absl::DeadlineExceededError(
            absl::StrCat("NCCL: an operation of ", name, " did not end in time"));
      default:
        return absl::UnavailableError(
            absl::StrCat("NCCL: an operation of ", name, " failed; NCCL_DEBUG=WARN says more"));
    }
  });
}

absl::StatusOr<Group> Connect(const Store& store, const CommOptions& options, at::Device device,
                              const std::string& name) {
  Group group;
  absl::Status status = C10dTry(
      absl::StrCat("rendezvous: NCCL: rank ", options.rank, " of ", options.world_size, " in ",
                   name),
      [&] {
        const c10::cuda::CUDAGuard guard(device);
        // Its few blocks go in front of a product's many.
        auto nccl_options = c10d::ProcessGroupNCCL::Options::create(/*is_high_priority=*/true);
        nccl_options->timeout =
            std::chrono::milliseconds(absl::ToInt64Milliseconds(options.collective_timeout));
        group = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, options.rank, options.world_size,
                                                            nccl_options);
        // Now, while all ranks are here: the communicator is made by all, and a rank that has
        // nothing to say in the first exchange would not come to it.
        group->eagerConnectSingleDevice(device);
      });
  if (!status.ok() && options.watch != nullptr) return options.watch->Explain(std::move(status));
  LL_RETURN_IF_ERROR(status);
  if (options.watch != nullptr) Watch(group, name, *options.watch);
  return group;
}

// How long a device's stream stood still where it waited for NCCL's. The host only says that it is
// to wait, and goes on.
class StreamWaits {
 public:
  // `call` makes the current stream wait.
  template <typename Call>
  void Around(Call call) {
    Wait wait;
    wait.begin.record();
    call();
    wait.end.record();
    waits_.push_back(std::move(wait));
  }
  // Of the waits so far whose end the stream has reached.
  double Seconds() {
    try {
      for (; !waits_.empty() && waits_.front().end.query(); waits_.pop_front())
        seconds_ += waits_.front().begin.elapsed_time(waits_.front().end) / 1e3;
    } catch (const std::exception&) {
      waits_.clear();  // the device is lost, as its next operation will tell
    }
    return seconds_;
  }

 private:
  struct Wait {
    at::cuda::CUDAEvent begin{cudaEventDefault}, end{cudaEventDefault};  // with times
  };
  std::deque<Wait> waits_;
  double seconds_ = 0;
};

class NcclComm : public LoggedComm {
 public:
  NcclComm(Store store, Group group, const CommOptions& options, at::Device device,
           const std::string& name)
      : LoggedComm(options, name),
        store_(std::move(store)),
        group_(std::move(group)),
        device_(device) {}

  absl::StatusOr<std::unique_ptr<Comm>> Split(const std::string& name,
                                              const std::vector<int>& ranks) override {
    const auto self = std::find(ranks.begin(), ranks.end(), rank());
    LL_CHECK(self != ranks.end());
    if (ranks.size() == 1) return MakeSingleComm(options().watch);
    CommOptions split = options();
    split.rank = static_cast<int>(self - ranks.begin());
    split.world_size = static_cast<int>(ranks.size());
    Store store = c10::make_intrusive<c10d::PrefixStore>(name, store_);
    LL_ASSIGN_OR_RETURN(Group group, Connect(store, split, device_, name));
    return std::make_unique<NcclComm>(std::move(store), std::move(group), split, device_, name);
  }
  CommCounters counters() const override {
    CommCounters counters = LoggedComm::counters();
    counters.wait_seconds += waits_.Seconds();
    return counters;
  }
  // The destructor of torch's group aborts: what other ranks have not received yet is lost.
  absl::Status Close() override {
    return C10dTry("leaving NCCL", [this] { group_->shutdown(); });
  }

 protected:
  void Sum(const at::Tensor& tensor) override {
    OnDevice(tensor, [this](std::vector<at::Tensor>& one) { group_->allreduce(one)->wait(); });
  }
  void TakeRankZeros(const at::Tensor& tensor) override {
    OnDevice(tensor, [this](std::vector<at::Tensor>& one) { group_->broadcast(one)->wait(); });
  }
  // ncclSend and ncclRecv in one NCCL group on its own stream: they run beside what is computed.
  void StartMessages(int64_t, const std::vector<PeerMessage>& sends,
                     const std::vector<PeerMessage>& receives) override {
    if (sends.empty() && receives.empty()) return;
    const c10::cuda::CUDAGuard guard(device_);
    group_->startCoalescing();
    for (const PeerMessage& m : receives) {
      std::vector<at::Tensor> one = {m.tensor};
      held_.push_back(m.tensor);
      group_->recv(one, m.peer, 0);
    }
    for (const PeerMessage& m : sends) {
      std::vector<at::Tensor> one = {m.tensor};
      held_.push_back(m.tensor);
      group_->send(one, m.peer, 0);
    }
    pending_ = group_->endCoalescing();
  }
  void FinishMessages() override {
    const c10::intrusive_ptr<c10d::Work> pending = std::move(pending_);
    pending_.reset();
    const std::vector<at::Tensor> held = std::move(held_);
    held_.clear();
    if (pending == nullptr) return;
    const c10::cuda::CUDAGuard guard(device_);
    waits_.Around([&] { pending->wait(); });
  }

 private:
  // NCCL moves device memory only; the few small values on the CPU (losses, flags) make a detour.
  template <typename Operation>
  void OnDevice(const at::Tensor& tensor, Operation operation) {
    const c10::cuda::CUDAGuard guard(device_);
    std::vector<at::Tensor> one = {tensor.is_cuda() ? tensor : tensor.to(device_)};
    operation(one);
    if (!tensor.is_cuda()) tensor.copy_(one[0]);
  }

  const Store store_;  // outlives the group
  const Group group_;
  const at::Device device_;
  c10::intrusive_ptr<c10d::Work> pending_;  // the exchange under way
  std::vector<at::Tensor> held_;            // its tensors
  mutable StreamWaits waits_;
};

}  // namespace
}  // namespace ll

extern "C" __attribute__((visibility("default"))) absl::StatusOr<std::unique_ptr<ll::Comm>>
ll_make_nccl_comm(std::unique_ptr<ll::RendezvousStore> store, const ll::CommOptions& options,
                  int device_index) {
  const ll::Store c10d_store = static_cast<ll::C10dStore&>(*store).store();
  const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(device_index));
  LL_ASSIGN_OR_RETURN(ll::Group group, ll::Connect(c10d_store, options, device, "world"));
  return std::make_unique<ll::NcclComm>(c10d_store, std::move(group), options, device, "world");
}
