#include "coordinator/workers/hub.h"

#include "coordinator/workers/messages.h"
#include "coordinator/workers/session.h"

namespace ll {

uint64_t WorkerHub::Register(const std::shared_ptr<Session>& session) {
  absl::MutexLock lock(&mu_);
  sessions_[++last_session_] = session;
  return last_session_;
}

void WorkerHub::Forget(uint64_t session) {
  absl::MutexLock lock(&mu_);
  sessions_.erase(session);
  for (auto it = current_.begin(); it != current_.end();) {
    auto next = std::next(it);
    if (it->second == session) current_.erase(it);
    it = next;
  }
}

std::shared_ptr<Session> WorkerHub::Find(uint64_t session) {
  absl::MutexLock lock(&mu_);
  auto it = sessions_.find(session);
  return it == sessions_.end() ? nullptr : it->second.lock();
}

std::vector<std::shared_ptr<Session>> WorkerHub::All() {
  absl::MutexLock lock(&mu_);
  std::vector<std::shared_ptr<Session>> out;
  for (const auto& [number, weak] : sessions_) {
    if (auto session = weak.lock()) out.push_back(std::move(session));
  }
  return out;
}

void WorkerHub::Deliver(const Send& send, int64_t term) {
  const std::shared_ptr<Session> session = Find(send.session);
  if (session == nullptr) return;  // it has ended; its agent comes back and hears everything again
  if (const auto* reject = std::get_if<RejectHelloOrder>(&send.order)) {
    session->End(reject->status);
    return;
  }
  if (std::holds_alternative<WelcomeOrder>(send.order)) {
    uint64_t older = 0;
    {
      absl::MutexLock lock(&mu_);
      uint64_t& current = current_[send.worker];
      if (current != send.session) std::swap(older, current);
      current = send.session;
    }
    if (auto replaced = Find(older)) {
      replaced->End(absl::AbortedError("the agent has opened a newer session"));
    }
  }
  v1::CoordinatorMessage message = OrderToProto(send, options_);
  message.set_term(term);
  session->SendOrder(send, std::move(message));
}

void WorkerHub::EndAllSessions(const absl::Status& why) {
  for (const auto& session : All()) session->End(why);
}

void WorkerHub::OnTick(const Scheduler& scheduler) {
  for (const auto& session : All()) session->CheckHelloDeadline();
}

}  // namespace ll
