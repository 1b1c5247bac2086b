#include "coordinator/engine/in_process_engine.h"

namespace ll {

void InProcessEngine::Drop(const std::string& name, Entry& entry) {
  if (entry.session == 0) return;
  entry.worker->Disconnect();
  sink_(AgentGoneEvent{WorkerId(name), std::exchange(entry.session, 0)}, nullptr);
}

ModelWorker* InProcessEngine::Connect(const std::string& name, int slots) {
  absl::MutexLock lock(&mu_);
  Entry& entry = workers_[name];
  if (entry.worker == nullptr) entry.worker = std::make_unique<ModelWorker>(name, slots);
  Drop(name, entry);
  entry.session = numbers_.Next();
  entry.worker->Connect(entry.session, [this](Event event) { sink_(std::move(event), nullptr); });
  return entry.worker.get();
}

void InProcessEngine::Disconnect(const std::string& name) {
  absl::MutexLock lock(&mu_);
  Drop(name, workers_.at(name));
}

void InProcessEngine::Deliver(const Send& send, int64_t term) {
  absl::MutexLock lock(&mu_);
  const auto it = workers_.find(send.worker.value());
  if (it == workers_.end() || it->second.session != send.session) return;  // it has ended
  if (std::holds_alternative<RejectHelloOrder>(send.order)) return Drop(it->first, it->second);
  it->second.worker->Receive(send.order, term);
}

void InProcessEngine::EndAllSessions(const absl::Status&) {
  absl::MutexLock lock(&mu_);
  for (auto& [name, entry] : workers_) Drop(name, entry);
}

}  // namespace ll
