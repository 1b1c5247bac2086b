#include "tests/chaos/light_agents.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace ll {
namespace {
constexpr absl::Duration kDialAgain = absl::Milliseconds(20);
constexpr int64_t kSlotBytes = 4'000'000'000;

v1::Report NewReport(const std::string& job, int64_t epoch, int rank, int64_t sequence) {
  v1::Report report;
  report.set_job_id(job);
  report.set_epoch(epoch);
  report.set_rank(rank);
  report.set_sequence(sequence);
  return report;
}
}  // namespace

LightAgents::LightAgents(Connect connect, int agents, int slots)
    : connect_(std::move(connect)), slots_(slots) {
  for (int i = 0; i < agents; ++i) {
    agents_.push_back(std::make_unique<Agent>());
    agents_.back()->name = absl::StrCat("light-", i);
    agents_.back()->incarnation = absl::StrCat("light-", i, "-", absl::ToUnixMicros(absl::Now()));
  }
  for (auto& agent : agents_) agent->reader = std::thread([this, a = agent.get()] { Run(*a); });
}

LightAgents::~LightAgents() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    for (auto& [agent, context] : contexts_) context->TryCancel();
  }
  for (auto& agent : agents_) agent->reader.join();
}

void LightAgents::Run(Agent& agent) {
  while (!stopping()) {
    Session(agent);
    absl::MutexLock lock(&mu_);
    mu_.AwaitWithTimeout(absl::Condition(&stopping_), kDialAgain);
  }
}

void LightAgents::Session(Agent& agent) {
  grpc::ClientContext context;
  {
    absl::MutexLock lock(&mu_);
    if (stopping_) return;
    contexts_[&agent] = &context;
  }
  const auto stub = v1::Workers::NewStub(connect_());
  const auto stream = stub->Session(&context);
  absl::Mutex writing;  // heartbeats and answers
  const auto write = [&](const v1::AgentMessage& message) {
    absl::MutexLock lock(&writing);
    stream->Write(message);
  };
  write(Hello(agent));
  bool welcomed = false, over = false;
  double beat_seconds = 1;
  absl::Mutex beating;
  std::thread heart;
  v1::CoordinatorMessage message;
  while (stream->Read(&message)) {
    agent.highest_term = std::max(agent.highest_term, message.term());
    std::vector<v1::AgentMessage> answers;
    if (message.has_welcome()) {
      welcomed = Welcomed(agent, message.welcome(), answers);
      ++connected_;
      beat_seconds = message.welcome().heartbeat_seconds();
      heart = std::thread([&] {
        for (int64_t beat = 1;; ++beat) {
          {
            absl::MutexLock lock(&beating);
            if (beating.AwaitWithTimeout(absl::Condition(&over), absl::Seconds(beat_seconds)))
              return;
          }
          v1::AgentMessage heartbeat;
          heartbeat.mutable_heartbeat()->set_sequence(beat);
          write(heartbeat);
        }
      });
    } else if (message.has_start()) {
      Start(agent, message.start(), answers);
    } else if (message.has_stop()) {
      Stop(agent, message.stop(), answers);
    } else if (message.has_release()) {
      agent.gangs.erase({message.release().job_id(), message.release().epoch()});
    } else if (message.has_report_ack()) {
      const v1::ReportAck& ack = message.report_ack();
      if (const auto gang = agent.gangs.find({ack.job_id(), ack.epoch()});
          gang != agent.gangs.end()) {
        std::erase_if(gang->second.unacknowledged,
                      [&](const v1::Report& r) { return r.sequence() <= ack.sequence(); });
      }
    }
    for (const v1::AgentMessage& answer : answers) write(answer);
  }
  if (welcomed) --connected_;
  {
    absl::MutexLock lock(&beating);
    over = true;
  }
  if (heart.joinable()) heart.join();
  {
    absl::MutexLock lock(&mu_);
    contexts_.erase(&agent);
  }
  stream->Finish();
}

v1::AgentMessage LightAgents::Hello(const Agent& agent) const {
  v1::AgentMessage message;
  v1::Hello& hello = *message.mutable_hello();
  hello.set_protocol_version(1);
  hello.set_worker(agent.name);
  hello.set_incarnation(agent.incarnation);
  hello.set_host(agent.name);
  hello.set_highest_term(agent.highest_term);
  for (int i = 0; i < slots_; ++i) {
    v1::Slot& slot = *hello.add_slots();
    slot.set_index(i);
    slot.set_kind("cpu");
    slot.set_memory_bytes(kSlotBytes);
  }
  for (const auto& [key, gang] : agent.gangs) {
    v1::HeldGang& held = *hello.add_gangs();
    held.set_job_id(key.first);
    held.set_epoch(key.second);
    for (const auto& [rank, slot] : gang.ranks) {
      v1::RankState& state = *held.add_ranks();
      state.set_rank(rank);
      state.set_slot(slot);
    }
  }
  return message;
}

// What is not kept has ended; what was not acknowledged is said again.
bool LightAgents::Welcomed(Agent& agent, const v1::Welcome& welcome,
                           std::vector<v1::AgentMessage>& answers) {
  std::map<Key, const v1::Verdict*> kept;
  for (const v1::Verdict& verdict : welcome.verdicts()) {
    if (verdict.keep()) kept[{verdict.job_id(), verdict.epoch()}] = &verdict;
  }
  for (auto it = agent.gangs.begin(); it != agent.gangs.end();) {
    const auto found = kept.find(it->first);
    if (found == kept.end()) {
      ended_ += static_cast<int>(it->second.ranks.size());
      it = agent.gangs.erase(it);
      continue;
    }
    auto& reports = it->second.unacknowledged;
    std::erase_if(reports, [&](const v1::Report& report) {
      return report.sequence() <= found->second->report_sequence();
    });
    for (const v1::Report& report : reports) *answers.emplace_back().mutable_report() = report;
    ++it;
  }
  return true;
}

void LightAgents::Start(Agent& agent, const v1::StartGang& start,
                        std::vector<v1::AgentMessage>& answers) {
  const auto [place, fresh] = agent.gangs.try_emplace({start.job_id(), start.epoch()});
  if (!fresh) return;  // said again
  Gang& gang = place->second;
  for (const v1::RankPlace& rank : start.ranks()) {
    gang.ranks.emplace_back(rank.rank(), rank.slot());
    v1::Report began = NewReport(start.job_id(), start.epoch(), rank.rank(), ++gang.sequence);
    began.mutable_started()->set_pid(1);
    v1::Report trains = NewReport(start.job_id(), start.epoch(), rank.rank(), ++gang.sequence);
    trains.mutable_training()->set_step(0);
    for (v1::Report& report : {std::ref(began), std::ref(trains)}) {
      gang.unacknowledged.push_back(report);
      *answers.emplace_back().mutable_report() = report;
    }
    ++started_;
  }
}

void LightAgents::Stop(Agent& agent, const v1::StopGang& stop,
                       std::vector<v1::AgentMessage>& answers) {
  const auto place = agent.gangs.find({stop.job_id(), stop.epoch()});
  if (place == agent.gangs.end()) return;
  Gang& gang = place->second;
  for (const auto& [rank, slot] : gang.ranks) {
    v1::Report exit = NewReport(stop.job_id(), stop.epoch(), rank, ++gang.sequence);
    exit.mutable_exit()->set_ordered(true);
    exit.mutable_exit()->set_signal(9);
    gang.unacknowledged.push_back(exit);
    *answers.emplace_back().mutable_report() = exit;
    ++ended_;
  }
}

}  // namespace ll
