// The engines of a coordinator as the driver sees them: one way out, by the session an order is
// for.
#pragma once

#include <vector>

#include "coordinator/engine/engine.h"
#include "coordinator/runtime/driver.h"

namespace ll {

// Add before the driver starts; then thread-safe as far as the engines are.
class Engines : public AgentGateway {
 public:
  // The engine with the numbers SessionNumbers(i) is the i-th that is added. It outlives this.
  void Add(Engine* engine);

  // AgentGateway
  void Deliver(const Send& send, int64_t term) override;
  void EndAllSessions(const absl::Status& why) override;

 private:
  std::vector<Engine*> engines_;
};

}  // namespace ll
