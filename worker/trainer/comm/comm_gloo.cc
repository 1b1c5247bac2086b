#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "worker/trainer/comm/c10d_store.h"

namespace ll {
namespace {

using Store = c10::intrusive_ptr<c10d::Store>;
using Group = c10::intrusive_ptr<c10d::ProcessGroupGloo>;

// Messages from one rank to another are told apart by their number in the exchange, and exchanges
// that follow each other by theirs.
constexpr int64_t kMessagesPerExchange = 64, kExchanges = 1 << 20;

// LibTorch's flight recorder is one for the whole process and adds a group to its map before it
// takes its lock (FlightRecorderDetail.hpp, torch 2.11): groups used from several threads crash in
// it. It also captures a stack at every collective. The watchdog does its work here, so it is off
// unless somebody has asked for it. Set before main, while there is one thread: the environment has
// no lock.
[[maybe_unused]] const int kNoFlightRecorder = setenv("TORCH_FR_BUFFER_SIZE", "0", /*overwrite=*/0);

absl::StatusOr<Group> Connect(const Store& store, const CommOptions& options,
                              const std::string& name) {
  const auto milliseconds = [](absl::Duration d) {
    return std::chrono::milliseconds(absl::ToInt64Milliseconds(d));
  };
  Group group;
  absl::Status status = C10dTry(
      absl::StrCat("rendezvous: rank ", options.rank, " of ", options.world_size, " in ", name),
      [&] {
        auto gloo_options =
            c10d::ProcessGroupGloo::Options::create(milliseconds(options.rendezvous_timeout));
        gloo_options->devices = {c10d::ProcessGroupGloo::createDeviceForHostname(options.host)};
        group = c10::make_intrusive<c10d::ProcessGroupGloo>(store, options.rank, options.world_size,
                                                            gloo_options);
        group->setTimeout(milliseconds(options.collective_timeout));
      });
  if (!status.ok() && options.watch != nullptr) return options.watch->Explain(std::move(status));
  LL_RETURN_IF_ERROR(status);
  return group;
}

class GlooComm : public LoggedComm {
 public:
  GlooComm(Store store, Group group, const CommOptions& options, const std::string& name)
      : LoggedComm(options, name), store_(std::move(store)), group_(std::move(group)) {}

  absl::StatusOr<std::unique_ptr<Comm>> Split(const std::string& name,
                                              const std::vector<int>& ranks) override {
    const auto self = std::find(ranks.begin(), ranks.end(), rank());
    LL_CHECK(self != ranks.end());
    if (ranks.size() == 1) return MakeSingleComm(options().watch);
    CommOptions split = options();
    split.rank = static_cast<int>(self - ranks.begin());
    split.world_size = static_cast<int>(ranks.size());
    Store store = c10::make_intrusive<c10d::PrefixStore>(name, store_);
    LL_ASSIGN_OR_RETURN(Group group, Connect(store, split, name));
    return std::make_unique<GlooComm>(std::move(store), std::move(group), split, name);
  }

 protected:
  void Sum(const at::Tensor& tensor) override {
    std::vector<at::Tensor> one = {tensor};
    group_->allreduce(one)->wait();
  }
  void TakeRankZeros(const at::Tensor& tensor) override {
    std::vector<at::Tensor> one = {tensor};
    group_->broadcast(one)->wait();
  }
  void StartMessages(int64_t number, const std::vector<PeerMessage>& sends,
                     const std::vector<PeerMessage>& receives) override {
    std::map<int, int64_t> sent, received;
    const auto tag = [&](int64_t& message) {
      LL_CHECK(message < kMessagesPerExchange);
      return static_cast<int>(number % kExchanges * kMessagesPerExchange + message++);
    };
    for (const PeerMessage& m : receives) {
      std::vector<at::Tensor> one = {m.tensor};
      held_.push_back(m.tensor);
      pending_.push_back(group_->recv(one, m.peer, tag(received[m.peer])));
    }
    for (const PeerMessage& m : sends) {
      std::vector<at::Tensor> one = {m.tensor};
      held_.push_back(m.tensor);
      pending_.push_back(group_->send(one, m.peer, tag(sent[m.peer])));
    }
  }
  void FinishMessages() override {
    const auto pending = std::move(pending_);
    pending_.clear();
    const std::vector<at::Tensor> held = std::move(held_);
    held_.clear();
    for (const auto& work : pending) work->wait();
  }

 private:
  const Store store_;  // outlives the group
  const Group group_;
  std::vector<at::Tensor> held_;  // of the exchange under way; outlive what moves them
  std::vector<c10::intrusive_ptr<c10d::Work>> pending_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Comm>> MakeGlooComm(std::unique_ptr<RendezvousStore> store,
                                                   const CommOptions& options) {
  const Store c10d_store = static_cast<C10dStore&>(*store).store();
  LL_ASSIGN_OR_RETURN(Group group, Connect(c10d_store, options, "world"));
  return std::make_unique<GlooComm>(c10d_store, std::move(group), options, "world");
}

}  // namespace ll
