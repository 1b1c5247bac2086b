#include "coordinator/engine/engines.h"

#include "base/check.h"

namespace ll {

void Engines::Add(Engine* engine) {
  LL_CHECK(engines_.size() < kMaxEngines);
  engines_.push_back(engine);
}

void Engines::Deliver(const Send& send, int64_t term) {
  const size_t index = SessionNumbers::EngineOf(send.session);
  LL_CHECK_MSG(index < engines_.size(), "a session of no engine");
  engines_[index]->Deliver(send, term);
}

void Engines::EndAllSessions(const absl::Status& why) {
  for (Engine* engine : engines_) engine->EndAllSessions(why);
}

}  // namespace ll
