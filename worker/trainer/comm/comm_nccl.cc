// Part of libll_cuda.so. Needs NCCL's and CUDA's headers.
#include <c10/cuda/CUDAGuard.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "base/status_macros.h"
#include "worker/trainer/comm/c10d_store.h"
#include "worker/trainer/comm/comm_cuda.h"

namespace ll {
namespace {

class NcclComm : public Comm {
 public:
  NcclComm(std::unique_ptr<RendezvousStore> store, c10::intrusive_ptr<c10d::ProcessGroupNCCL> group,
           const CommOptions& options, int device_index)
      : store_(std::move(store)),
        group_(std::move(group)),
        rank_(options.rank),
        world_size_(options.world_size),
        device_(at::kCUDA, static_cast<c10::DeviceIndex>(device_index)) {}

  int rank() const override { return rank_; }
  int world_size() const override { return world_size_; }

  absl::Status AllReduceSum(const std::vector<at::Tensor>& tensors) override {
    return C10dTry("all-reduce", [&] {
      for (const at::Tensor& tensor : tensors) {
        OnDevice(tensor, [this](std::vector<at::Tensor>& one) { group_->allreduce(one)->wait(); });
      }
    });
  }

  absl::Status Broadcast(at::Tensor tensor) override {
    return C10dTry("broadcast", [&] {
      OnDevice(tensor, [this](std::vector<at::Tensor>& one) { group_->broadcast(one)->wait(); });
    });
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

  std::unique_ptr<RendezvousStore> store_;  // outlives the group
  c10::intrusive_ptr<c10d::ProcessGroupNCCL> group_;
  const int rank_, world_size_;
  const at::Device device_;
};

}  // namespace
}  // namespace ll

extern "C" __attribute__((visibility("default"))) absl::StatusOr<std::unique_ptr<ll::Comm>>
ll_make_nccl_comm(std::unique_ptr<ll::RendezvousStore> store, const ll::CommOptions& options,
                  int device_index) {
  c10::intrusive_ptr<c10d::ProcessGroupNCCL> group;
  LL_RETURN_IF_ERROR(ll::C10dTry("rendezvous: NCCL", [&] {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device_index));
    auto nccl_options = c10d::ProcessGroupNCCL::Options::create();
    nccl_options->timeout =
        std::chrono::milliseconds(absl::ToInt64Milliseconds(options.collective_timeout));
    group =
        c10::make_intrusive<c10d::ProcessGroupNCCL>(static_cast<ll::C10dStore&>(*store).store(),
                                                    options.rank, options.world_size, nccl_options);
  }));
  return std::make_unique<ll::NcclComm>(std::move(store), std::move(group), options, device_index);
}
