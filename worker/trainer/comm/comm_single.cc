#include "base/check.h"
#include "worker/trainer/comm/comm.h"

namespace ll {
namespace {

class SingleComm : public Comm {
 public:
  explicit SingleComm(std::shared_ptr<PeerWatch> watch) : watch_(std::move(watch)) {}
  int rank() const override { return 0; }
  int world_size() const override { return 1; }
  void EnterPhase(const char* phase) override {
    if (watch_ != nullptr) watch_->Enter(phase);
  }
  absl::Status StartExchangeAs(const char*, std::vector<PeerMessage> sends,
                               std::vector<PeerMessage> receives) override {
    LL_CHECK(sends.empty() && receives.empty());
    return absl::OkStatus();
  }
  absl::Status FinishExchange() override { return absl::OkStatus(); }
  absl::Status AllReduceSum(const std::vector<at::Tensor>&) override { return absl::OkStatus(); }
  absl::Status Broadcast(at::Tensor) override { return absl::OkStatus(); }
  absl::StatusOr<std::unique_ptr<Comm>> Split(const std::string&,
                                              const std::vector<int>&) override {
    return MakeSingleComm(watch_);
  }
  CommCounters counters() const override { return {}; }

 private:
  const std::shared_ptr<PeerWatch> watch_;
};

}  // namespace

std::unique_ptr<Comm> MakeSingleComm(std::shared_ptr<PeerWatch> watch) {
  return std::make_unique<SingleComm>(std::move(watch));
}

}  // namespace ll
