#include "coordinator/engine/model_worker.h"

#include <algorithm>
#include <csignal>

#include "coordinator/core/retry.h"

namespace ll {

void ModelWorker::Connect(uint64_t session, std::function<void(Event)> tell) {
  absl::MutexLock lock(&mu_);
  session_ = session;
  welcomed_ = false;
  tell_ = std::move(tell);
  AgentHelloEvent hello;
  hello.session = session;
  hello.worker = WorkerId(name_);
  hello.incarnation = "1";
  hello.host = "host";
  for (int i = 0; i < slots_; ++i) hello.slots.push_back({i, "cpu", 8'000'000'000});
  for (const auto& [key, gang] : gangs_) {
    HeldGang held{key.first, key.second, {}};
    for (const auto& [rank, slot] : gang.ranks) {
      HeldRank state{rank, slot};
      const auto exit = gang.exits.find(rank);
      state.exited = exit != gang.exits.end();
      if (state.exited) state.exit = exit->second;
      held.ranks.push_back(state);
    }
    hello.gangs.push_back(std::move(held));
  }
  tell_(hello);
}

void ModelWorker::Disconnect() {
  absl::MutexLock lock(&mu_);
  session_ = 0;
  welcomed_ = false;
  tell_ = nullptr;
}

void ModelWorker::Receive(const Order& order, int64_t term) {
  absl::MutexLock lock(&mu_);
  if (term < term_ || session_ == 0) return;
  term_ = term;
  if (const auto* welcome = std::get_if<WelcomeOrder>(&order)) {
    Welcome(*welcome);
  } else if (const auto* start = std::get_if<StartGangOrder>(&order)) {
    Start(*start);
  } else if (const auto* stop = std::get_if<StopGangOrder>(&order)) {
    const auto it = gangs_.find({stop->job, stop->epoch});
    if (it == gangs_.end()) return;
    if (stop->checkpoint) {
      Exit(it->first, it->second, kExitCheckpointed, 0, true);
    } else {
      Exit(it->first, it->second, 0, SIGKILL, true);
    }
  } else if (const auto* release = std::get_if<ReleaseGangOrder>(&order)) {
    gangs_.erase({release->job, release->epoch});
  } else if (const auto* ack = std::get_if<ReportAckOrder>(&order)) {
    const auto it = gangs_.find({ack->job, ack->epoch});
    if (it != gangs_.end()) it->second.acked = std::max(it->second.acked, ack->sequence);
  }
}

void ModelWorker::Welcome(const WelcomeOrder& order) {
  welcomed_ = true;
  std::set<Key> kept;
  for (const Verdict& verdict : order.verdicts) {
    const auto it = gangs_.find({verdict.job, verdict.epoch});
    if (it == gangs_.end()) continue;
    it->second.acked = std::max(it->second.acked, verdict.report_sequence);
    if (verdict.keep) kept.insert(it->first);
  }
  for (auto& [key, gang] : gangs_) {
    for (size_t i = gang.acked; i < gang.journal.size(); ++i) {
      ReportEvent report = gang.journal[i];
      report.session = session_;
      tell_(report);
    }
    if (kept.count(key) == 0) Exit(key, gang, 0, SIGKILL, true);
  }
}

void ModelWorker::Start(const StartGangOrder& order) {
  int64_t& newest = newest_epoch_[order.job];
  if (order.epoch <= newest) return;  // it has been obeyed, or is older than what has been
  newest = order.epoch;
  Gang& gang = gangs_[{order.job, order.epoch}];
  for (const RankPlace& place : order.ranks) gang.ranks[place.rank] = place.slot;
  started_[{order.job.value(), order.epoch}] += static_cast<int>(order.ranks.size());
  for (const RankPlace& place : order.ranks) {
    Note({order.job, order.epoch}, gang, place.rank, StartedFact{});
    Note({order.job, order.epoch}, gang, place.rank, TrainingFact{});
  }
}

void ModelWorker::Exit(const Key& key, Gang& gang, int code, int signal, bool ordered) {
  for (const auto& [rank, slot] : gang.ranks) {
    if (gang.exits.count(rank) > 0) continue;
    RankExit exit;
    exit.code = code;
    exit.signal = signal;
    exit.ordered = ordered;
    if (signal != 0 || (code != kExitDone && code != kExitCheckpointed))
      exit.failure_class = FailureClass::kInfrastructure;
    gang.exits[rank] = exit;
    Note(key, gang, rank, ExitFact{exit, ""});
  }
}

void ModelWorker::Note(const Key& key, Gang& gang, int rank, decltype(ReportEvent::fact) fact) {
  ReportEvent report{WorkerId(name_), session_, key.first, key.second, rank};
  report.sequence = static_cast<int64_t>(gang.journal.size()) + 1;
  report.fact = std::move(fact);
  gang.journal.push_back(report);
  if (welcomed_) tell_(report);
}

void ModelWorker::End(const std::string& job, int code) {
  absl::MutexLock lock(&mu_);
  const auto it = gangs_.find({JobId(job), newest_epoch_[JobId(job)]});
  if (it != gangs_.end()) Exit(it->first, it->second, code, 0, false);
}

int ModelWorker::started(const std::string& job, int64_t epoch) const {
  absl::MutexLock lock(&mu_);
  const auto it = started_.find({job, epoch});
  return it == started_.end() ? 0 : it->second;
}

int ModelWorker::running() const {
  absl::MutexLock lock(&mu_);
  int count = 0;
  for (const auto& [key, gang] : gangs_)
    count += static_cast<int>(gang.ranks.size() - gang.exits.size());
  return count;
}

}  // namespace ll
