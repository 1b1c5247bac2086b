// Sessions between agents and coordinator: ordered streams that delay and end, and what the
// coordinator's end of a stream (coordinator/workers/session) makes of a message.
#include "coordinator/workers/messages.h"
#include "tests/sim/simulation_run.h"

namespace ll::sim {

uint64_t Simulation::Dial(const WorkerId& worker) {
  if (loop_ == nullptr || partitioned_.count(worker) > 0) return 0;
  const uint64_t id = next_session_++;
  for (const auto& host : hosts_) {
    if (host->name() == worker) sessions_[id].host = host.get();
  }
  return id;
}

// Agent to coordinator.
void Simulation::Send(uint64_t id, v1::AgentMessage message) {
  auto it = sessions_.find(id);
  if (it == sessions_.end() || !it->second.agent_side || it->second.cut) return;
  Session& session = it->second;
  if (message.has_report()) {
    session.reports.push_back(message);
    if (session.reports.size() > 8) session.reports.pop_front();
  }
  const bool late = world_.Chance(0.01);
  if (late) Struck("message late by seconds");
  const absl::Duration delay = late ? world_.Between(absl::ZeroDuration(), absl::Seconds(4))
                                    : world_.Between(absl::Milliseconds(1), absl::Milliseconds(40));
  session.last_up = std::max(session.last_up, world_.now() + delay);
  const uint64_t life = life_;
  world_.After(session.last_up - world_.now(), [this, id, life, message = std::move(message)] {
    auto session = sessions_.find(id);
    if (life != life_ || session == sessions_.end() || !session->second.coordinator_side) return;
    if (!session->second.cut) Arrived(id, message);
  });
}

void Simulation::Arrived(uint64_t id, const v1::AgentMessage& message) {
  Session& session = sessions_[id];
  const WorkerId& worker = session.host->name();
  if (message.has_hello()) {
    auto event = HelloFromProto(message.hello(), id);
    if (!event.ok()) return world_.Violation(absl::StrCat("hello: ", event.status().ToString()));
    if (message.hello().highest_term() > loop_->term())
      world_.Violation(absl::StrCat(worker.value(), " has obeyed a term of the future"));
    for (const v1::HeldGang& gang : message.hello().gangs()) {
      for (const v1::RankState& rank : gang.ranks())
        session.held.push_back({gang.job_id(), gang.epoch(), rank.rank()});
    }
    GiveOfAgent(*std::move(event));
  } else if (message.has_heartbeat()) {
    GiveOfAgent(AgentHeardEvent{worker, id}, [this, id, sequence = message.heartbeat().sequence()] {
      if (storage_.dead()) return;
      v1::CoordinatorMessage ack;
      ack.mutable_heartbeat_ack()->set_sequence(sequence);
      Post(id, std::move(ack));
    });
  } else if (message.has_report()) {
    auto event = ReportFromProto(message.report(), worker, id);
    if (!event.ok()) return world_.Violation(absl::StrCat("report: ", event.status().ToString()));
    const v1::Report& report = message.report();
    if (report.has_checkpoint())
      reported_[{worker, report.job_id(), report.epoch()}][report.sequence()] =
          report.checkpoint().step();
    GiveOfAgent(*std::move(event));
  } else if (message.has_telemetry()) {
    TakeTelemetry(id, message.telemetry());
  }
}

// As the coordinator's files: what is there is kept, a gap is refused.
void Simulation::TakeTelemetry(uint64_t id, const v1::Telemetry& telemetry) {
  int64_t& size =
      telemetry_[{telemetry.job_id(), telemetry.epoch(), telemetry.rank(), telemetry.stream()}];
  if (telemetry.offset() > size) {
    world_.Violation(absl::StrCat("telemetry of ", telemetry.job_id(), " has a gap"));
  }
  size = std::max(size, telemetry.offset() + static_cast<int64_t>(telemetry.data().size()));
  v1::CoordinatorMessage message;
  v1::TelemetryAck& ack = *message.mutable_telemetry_ack();
  ack.set_job_id(telemetry.job_id());
  ack.set_epoch(telemetry.epoch());
  ack.set_rank(telemetry.rank());
  ack.set_stream(telemetry.stream());
  ack.set_offset(size);
  Post(id, std::move(message));
}

// A network that gives the newest reports twice, and a start order that still stands.
void Simulation::RepeatReports(SimHost& host) {
  auto it = sessions_.find(host.session());
  if (it == sessions_.end()) return;
  for (const v1::AgentMessage& report : std::deque<v1::AgentMessage>(it->second.reports))
    Send(host.session(), report);
  const std::optional<v1::CoordinatorMessage> order = it->second.last_start;
  const Job* job = scheduler() == nullptr || !order.has_value()
                       ? nullptr
                       : scheduler()->Find(JobId(order->start().job_id()));
  const bool stands = job != nullptr && HoldsSlots(job->state) &&
                      job->epoch == order->start().epoch() && !job->attempt->over() &&
                      job->attempt->stop == StopKind::kNone;
  if (!stands) return;
  Struck("start order repeated");
  Post(host.session(), *order);
}

// Coordinator to agent.
void Simulation::Post(uint64_t id, v1::CoordinatorMessage message) {
  auto it = sessions_.find(id);
  if (it == sessions_.end() || loop_ == nullptr || !it->second.coordinator_side) return;
  Session& session = it->second;
  message.set_term(loop_->term());
  if (message.has_start()) session.last_start = message;
  session.last_down =
      std::max(session.last_down,
               world_.now() + world_.Between(absl::Milliseconds(1), absl::Milliseconds(40)));
  SimHost* host = session.host;
  world_.After(session.last_down - world_.now(), [this, host, id, message = std::move(message)] {
    auto session = sessions_.find(id);
    if (session == sessions_.end() || !session->second.agent_side || session->second.cut) return;
    host->Receive(id, message);
  });
}

void Simulation::HangUp(uint64_t id) {
  if (sessions_.count(id) == 0) return;
  sessions_[id].agent_side = false;
  // What was on its way may still arrive before the end is noticed.
  EndSession(id, absl::ZeroDuration(), world_.Between(absl::Milliseconds(1), absl::Seconds(1)));
}

void Simulation::EndSession(uint64_t id, absl::Duration agent_notices,
                            absl::Duration coordinator_notices) {
  SimHost* host = sessions_[id].host;
  world_.After(agent_notices, [this, id, host] {
    auto it = sessions_.find(id);
    if (it != sessions_.end()) it->second.agent_side = false;
    host->StreamEnded(id);
  });
  const uint64_t life = life_;
  world_.After(coordinator_notices, [this, id, host, life] {
    if (life == life_) GiveOfAgent(AgentGoneEvent{host->name(), id});
    auto it = sessions_.find(id);
    if (it != sessions_.end()) it->second.coordinator_side = false;
  });
  world_.After(absl::Minutes(5), [this, id] { sessions_.erase(id); });
}

}  // namespace ll::sim
