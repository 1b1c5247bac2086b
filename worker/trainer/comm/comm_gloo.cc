#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/trainer/comm/c10d_store.h"

namespace ll {
namespace {

class GlooComm : public Comm {
 public:
  GlooComm(std::unique_ptr<RendezvousStore> store, c10::intrusive_ptr<c10d::ProcessGroupGloo> group,
           const CommOptions& options)
      : store_(std::move(store)),
        group_(std::move(group)),
        rank_(options.rank),
        world_size_(options.world_size) {}

  int rank() const override { return rank_; }
  int world_size() const override { return world_size_; }

  absl::Status AllReduceSum(const std::vector<at::Tensor>& tensors) override {
    return C10dTry("all-reduce", [&] {
      for (const at::Tensor& tensor : tensors) {
        std::vector<at::Tensor> one = {tensor};
        group_->allreduce(one)->wait();
      }
    });
  }

  absl::Status Broadcast(at::Tensor tensor) override {
    return C10dTry("broadcast", [&] {
      std::vector<at::Tensor> one = {tensor};
      group_->broadcast(one)->wait();
    });
  }

 private:
  std::unique_ptr<RendezvousStore> store_;  // outlives the group
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group_;
  const int rank_, world_size_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Comm>> MakeGlooComm(std::unique_ptr<RendezvousStore> store,
                                                   const CommOptions& options) {
  const auto milliseconds = [](absl::Duration d) {
    return std::chrono::milliseconds(absl::ToInt64Milliseconds(d));
  };
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group;
  LL_RETURN_IF_ERROR(
      C10dTry(absl::StrCat("rendezvous: rank ", options.rank, " of ", options.world_size), [&] {
        auto gloo_options =
            c10d::ProcessGroupGloo::Options::create(milliseconds(options.rendezvous_timeout));
        gloo_options->devices = {c10d::ProcessGroupGloo::createDeviceForHostname(options.host)};
        group = c10::make_intrusive<c10d::ProcessGroupGloo>(static_cast<C10dStore&>(*store).store(),
                                                            options.rank, options.world_size,
                                                            gloo_options);
        group->setTimeout(milliseconds(options.collective_timeout));
      }));
  return std::make_unique<GlooComm>(std::move(store), std::move(group), options);
}

}  // namespace ll
