#include "tests/sim/fake_agent.h"

#include <algorithm>

#include "coordinator/core/retry.h"

namespace ll::sim {
namespace {

constexpr absl::Duration kHeartbeat = absl::Seconds(5);
constexpr absl::Duration kWelcomeDeadline = absl::Seconds(10);

std::vector<Slot> MakeSlots(int count) {
  std::vector<Slot> slots;
  for (int i = 0; i < count; ++i) slots.push_back({i, "cpu", 8'000'000'000});
  return slots;
}

}  // namespace

FakeAgent::FakeAgent(World& world, Training& training, Link& link, std::string name, int slots,
                     Bug bug)
    : world_(world),
      training_(training),
      link_(link),
      name_(std::move(name)),
      slots_(MakeSlots(slots)),
      bug_(bug) {}

void FakeAgent::Start() {
  if (running_) return;
  running_ = true;
  ++life_;
  last_contact_ = world_.now();
  highest_epoch_.clear();
  world_.Trace(absl::StrCat("agent ", name_.value(), " starts, life ", life_));
  for (auto& [key, gang] : gangs_) {
    highest_epoch_[key.first] = std::max(highest_epoch_[key.first], key.second);
    // Half of the time the new process can say how the old one's ranks ended.
    for (const auto& [rank, slot] : gang.slots) {
      if (gang.exits.count(rank) > 0 || !world_.Chance(0.5)) continue;
      RankExit exit;
      exit.signal = 9;
      exit.failure_class = FailureClass::kInfrastructure;
      exit.message = "its agent died";
      gang.exits[rank] = exit;
      Journal(key, {name_, 0, key.first, key.second, rank, 0, ExitFact{exit, ""}});
    }
  }
  Connect();
  Heartbeat(life_);
}

void FakeAgent::Crash() {
  if (!running_) return;
  world_.Trace(absl::StrCat("fault: agent ", name_.value(), " dies"));
  running_ = false;
  for (const auto& [key, gang] : gangs_) {
    for (const auto& [rank, slot] : gang.slots) training_.Kill(key, rank);
  }
  link_.HangUp(std::exchange(session_, 0));
}

// ---- session

void FakeAgent::Connect() {
  if (!running_ || session_ != 0) return;
  session_ = link_.Dial(name_);
  dialled_ = world_.now();
  welcomed_ = false;
  if (session_ == 0) {
    const uint64_t life = life_;
    world_.After(world_.Between(absl::Milliseconds(200), absl::Seconds(5)), [this, life] {
      if (life == life_) Connect();
    });
    return;
  }
  AgentHelloEvent hello{session_, name_, absl::StrCat(life_), name_.value(), name_.value(),
                        "0.1.0",  ""};
  hello.slots = slots_;
  hello.gangs = Held();
  link_.Send(session_, hello);
}

std::vector<HeldGang> FakeAgent::Held() const {
  std::vector<HeldGang> held;
  for (const auto& [key, gang] : gangs_) {
    HeldGang h{key.first, key.second, {}};
    for (const auto& [rank, slot] : gang.slots) {
      auto exit = gang.exits.find(rank);
      if (exit != gang.exits.end()) {
        h.ranks.push_back({rank, slot, true, exit->second, ""});
      } else if (training_.Alive(key, rank)) {
        h.ranks.push_back({rank, slot, false, {}, ""});
      }
    }
    held.push_back(std::move(h));
  }
  return held;
}

void FakeAgent::StreamEnded(uint64_t session) {
  if (session != session_) return;
  session_ = 0;
  const uint64_t life = life_;
  world_.After(world_.Between(absl::Milliseconds(100), absl::Seconds(3)), [this, life] {
    if (life == life_) Connect();
  });
}

// Heartbeats, and the watch over max_headless.
void FakeAgent::Heartbeat(uint64_t life) {
  if (!running_ || life != life_) return;
  if (session_ != 0 && welcomed_) link_.Send(session_, AgentHeardEvent{name_, session_});
  if (session_ != 0 && !welcomed_ && world_.now() - dialled_ > kWelcomeDeadline) {
    link_.HangUp(session_);
    StreamEnded(session_);
  }
  for (auto& [key, gang] : gangs_) {
    const absl::Duration limit = absl::Seconds(120);  // the simulated jobs' max_headless
    if (bug_ != Bug::kAgentOutlivesHeadless && world_.now() - last_contact_ > limit) KillGang(key);
  }
  world_.After(kHeartbeat, [this, life] { Heartbeat(life); });
}

void FakeAgent::Receive(uint64_t session, const ToAgent& message) {
  if (!running_ || session != session_) return;
  last_contact_ = world_.now();
  if (const auto* welcome = std::get_if<WelcomeOrder>(&message)) {
    OnWelcome(*welcome);
  } else if (std::holds_alternative<RejectHelloOrder>(message)) {
    link_.HangUp(session_);
    StreamEnded(session_);
  } else if (const auto* start = std::get_if<StartGangOrder>(&message)) {
    OnStart(*start);
  } else if (const auto* stop = std::get_if<StopGangOrder>(&message)) {
    OnStop(*stop);
  } else if (const auto* rendezvous = std::get_if<RendezvousOrder>(&message)) {
    auto it = gangs_.find({rendezvous->job, rendezvous->epoch});
    if (it == gangs_.end()) return;
    for (const auto& [rank, slot] : it->second.slots) training_.Rendezvous(it->first, rank);
  } else if (const auto* release = std::get_if<ReleaseGangOrder>(&message)) {
    OnRelease(*release);
  } else if (const auto* ack = std::get_if<ReportAckOrder>(&message)) {
    auto it = gangs_.find({ack->job, ack->epoch});
    if (it != gangs_.end()) it->second.acked = std::max(it->second.acked, ack->sequence);
  }
}

// ---- orders

void FakeAgent::OnWelcome(const WelcomeOrder& welcome) {
  welcomed_ = true;
  std::map<GangKey, Verdict> verdicts;
  for (const Verdict& verdict : welcome.verdicts) verdicts[{verdict.job, verdict.epoch}] = verdict;
  for (auto& [key, gang] : gangs_) {
    auto verdict = verdicts.find(key);
    const bool keep = verdict != verdicts.end() && verdict->second.keep;
    if (verdict != verdicts.end())
      gang.acked = std::max(gang.acked, verdict->second.report_sequence);
    if (!keep && bug_ != Bug::kAgentIgnoresVerdicts) KillGang(key);
  }
  ResendReports();
}

void FakeAgent::ResendReports() {
  if (!running_ || session_ == 0 || !welcomed_) return;
  for (const auto& [key, gang] : gangs_) {
    for (size_t i = gang.acked; i < gang.journal.size(); ++i) {
      ReportEvent report = gang.journal[i];
      report.session = session_;
      link_.Send(session_, report);
    }
  }
}

void FakeAgent::OnStart(const StartGangOrder& order) {
  const GangKey key{order.job, order.epoch};
  if (gangs_.count(key) > 0) return;  // a repeat
  if (order.epoch <= highest_epoch_[order.job]) {
    world_.Violation(
        absl::StrCat(name_.value(), " was ordered to start an old epoch of ", order.job.value()));
    return;
  }
  highest_epoch_[order.job] = order.epoch;
  Gang& gang = gangs_[key];
  gang.order = order;
  for (const RankPlace& place : order.ranks) {
    for (const auto& [other, held] : gangs_) {
      for (const auto& [rank, slot] : held.slots) {
        if (slot == place.slot && training_.Alive(other, rank)) {
          world_.Violation(absl::StrCat(name_.value(), " slot ", slot, " is given to ",
                                        key.first.value(), " while ", other.first.value(),
                                        " runs on it"));
        }
      }
    }
    gang.slots[place.rank] = place.slot;
  }
  if (world_.Chance(0.01)) {
    for (const RankPlace& place : order.ranks) gang.exits[place.rank].code = kExitNotStarted;
    Journal(key, {name_, 0, key.first, key.second, order.ranks.front().rank, 0,
                  RefusedFact{{FailureClass::kCapacity, "no device"}}});
    return;
  }
  const uint64_t life = life_;
  for (const RankPlace& place : order.ranks) {
    const int rank = place.rank;
    training_.StartRank(order, rank, name_.value(),
                        {[this, key, life](ReportEvent report) {
                           if (running_ && life == life_) Journal(key, std::move(report));
                         },
                         [this, key, rank, life](RankExit exit) {
                           if (running_ && life == life_) RankExited(key, rank, exit);
                         }});
  }
}

void FakeAgent::OnStop(const StopGangOrder& order) {
  const GangKey key{order.job, order.epoch};
  auto it = gangs_.find(key);
  if (it == gangs_.end()) return;
  if (!order.checkpoint) {
    KillGang(key);
    return;
  }
  for (const auto& [rank, slot] : it->second.slots) training_.RequestStop(key, rank);
  const uint64_t life = life_;
  world_.After(order.grace, [this, key, life] {
    if (running_ && life == life_) KillGang(key);
  });
}

void FakeAgent::OnRelease(const ReleaseGangOrder& order) {
  const GangKey key{order.job, order.epoch};
  auto it = gangs_.find(key);
  if (it == gangs_.end()) return;
  for (const auto& [rank, slot] : it->second.slots) {
    if (training_.Alive(key, rank))
      world_.Violation(absl::StrCat("release of a running gang of ", key.first.value()));
  }
  gangs_.erase(it);
}

// ---- ranks

void FakeAgent::KillGang(const GangKey& key) {
  auto it = gangs_.find(key);
  if (it == gangs_.end()) return;
  for (const auto& [rank, slot] : it->second.slots) KillRank(key, rank, /*ordered=*/true);
}

void FakeAgent::KillRank(const GangKey& key, int rank, bool ordered) {
  if (!training_.Alive(key, rank)) return;
  training_.Kill(key, rank);
  RankExit exit;
  exit.signal = 9;
  exit.ordered = ordered;
  exit.failure_class = FailureClass::kInfrastructure;
  RankExited(key, rank, exit);
}

void FakeAgent::RankExited(const GangKey& key, int rank, RankExit exit) {
  auto it = gangs_.find(key);
  if (it == gangs_.end()) return;  // released while it ran: already reported as a violation
  it->second.exits[rank] = exit;
  Journal(key, {name_, 0, key.first, key.second, rank, 0, ExitFact{exit, "result"}});
}

void FakeAgent::Journal(const GangKey& key, ReportEvent report) {
  Gang& gang = gangs_.at(key);
  report.worker = name_;
  report.sequence = static_cast<int64_t>(gang.journal.size()) + 1;
  gang.journal.push_back(report);
  if (session_ == 0 || !welcomed_) return;
  report.session = session_;
  link_.Send(session_, report);
}

}  // namespace ll::sim
