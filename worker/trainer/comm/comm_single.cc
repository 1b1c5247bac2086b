#include "worker/trainer/comm/comm.h"

namespace ll {
namespace {

class SingleComm : public Comm {
 public:
  int rank() const override { return 0; }
  int world_size() const override { return 1; }
  absl::Status AllReduceSum(const std::vector<at::Tensor>&) override { return absl::OkStatus(); }
  absl::Status Broadcast(at::Tensor) override { return absl::OkStatus(); }
};

}  // namespace

std::unique_ptr<Comm> MakeSingleComm() { return std::make_unique<SingleComm>(); }

}  // namespace ll
