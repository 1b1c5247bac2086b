#include "coordinator/workers/hub.h"

#include "coordinator/workers/messages.h"
#include "coordinator/workers/session.h"

namespace ll {
namespace {
constexpr absl::Duration kPathCheckDeadline = absl::Seconds(5);
}  // namespace

uint64_t WorkerHub::Register(const std::shared_ptr<Session>& session) {
  absl::MutexLock lock(&mu_);
  const uint64_t number = numbers_.Next();
  sessions_[number] = session;
  return number;
}

void WorkerHub::Forget(uint64_t session) {
  path_checks_.OnSessionEnd(session);
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
  path_checks_.OnTime(clock_.Steady());
}

void WorkerHub::Check(v1::CheckPath::Kind kind, const std::string& path,
                      std::function<void(PathFindings)> done) {
  const int64_t id = path_checks_.Begin(clock_.Steady() + kPathCheckDeadline, std::move(done));
  std::vector<uint64_t> welcomed;
  {
    absl::MutexLock lock(&mu_);
    for (const auto& [worker, session] : current_) welcomed.push_back(session);
  }
  for (const uint64_t number : welcomed) {
    const std::shared_ptr<Session> session = Find(number);
    if (session == nullptr) continue;
    path_checks_.Ask(id, number);
    v1::CoordinatorMessage message;
    message.mutable_check()->set_id(id);
    message.mutable_check()->set_kind(kind);
    message.mutable_check()->set_path(path);
    session->Post(std::move(message));
  }
  path_checks_.Asked(id);
}

absl::Status WorkerHub::Say(uint64_t number, const JobId& job, int64_t epoch, std::string line) {
  const std::shared_ptr<Session> session = Find(number);
  if (session == nullptr) return absl::UnavailableError("the job's worker is out of contact");
  v1::CoordinatorMessage message;
  message.mutable_say()->set_job_id(job.value());
  message.mutable_say()->set_epoch(epoch);
  message.mutable_say()->set_line(std::move(line));
  session->Post(std::move(message));
  return absl::OkStatus();
}

}  // namespace ll
