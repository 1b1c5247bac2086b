// Sessions between agents and coordinator: ordered streams that delay and end.
#include "tests/sim/simulation_run.h"

namespace ll::sim {

uint64_t Simulation::Dial(const WorkerId& worker) {
  if (loop_ == nullptr || partitioned_.count(worker) > 0) return 0;
  const uint64_t id = next_session_++;
  for (const auto& agent : agents_) {
    if (agent->name() == worker) sessions_[id].agent = agent.get();
  }
  return id;
}

// Agent to coordinator.
void Simulation::Send(uint64_t id, Event event) {
  auto it = sessions_.find(id);
  if (it == sessions_.end() || Partitioned(*it->second.agent)) return;
  Session& session = it->second;
  const bool late = world_.Chance(0.01);
  if (late) Struck("message late by seconds");
  const absl::Duration delay = late ? world_.Between(absl::ZeroDuration(), absl::Seconds(4))
                                    : world_.Between(absl::Milliseconds(1), absl::Milliseconds(40));
  session.last_up = std::max(session.last_up, world_.now() + delay);
  const uint64_t life = life_;
  world_.After(session.last_up - world_.now(), [this, id, life, event = std::move(event)] {
    auto session = sessions_.find(id);
    if (life != life_ || session == sessions_.end() || !session->second.coordinator_side) return;
    if (Partitioned(*session->second.agent)) return;
    Give(event);
    if (std::holds_alternative<AgentHeardEvent>(event)) {
      FakeAgent* agent = session->second.agent;
      world_.After(absl::Milliseconds(10), [this, agent, id] {
        if (!Partitioned(*agent)) agent->Receive(id, HeartbeatAck{});
      });
    }
  });
}

// Coordinator to agent.
void Simulation::DeliverNow(const ll::Send& send) {
  auto it = sessions_.find(send.session);
  if (it == sessions_.end()) return;
  Session& session = it->second;
  if (std::holds_alternative<WelcomeOrder>(send.order)) {
    // The driver ends an older stream of the same worker.
    for (auto& [id, other] : sessions_) {
      if (other.agent == session.agent && id < send.session) other.coordinator_side = false;
    }
  }
  const ToAgent message = std::visit([](const auto& order) { return ToAgent(order); }, send.order);
  session.last_down =
      std::max(session.last_down,
               world_.now() + world_.Between(absl::Milliseconds(1), absl::Milliseconds(40)));
  FakeAgent* agent = session.agent;
  world_.After(session.last_down - world_.now(), [this, agent, id = send.session, message] {
    auto session = sessions_.find(id);
    if (session == sessions_.end() || !session->second.agent_side || Partitioned(*agent)) return;
    agent->Receive(id, message);
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
  FakeAgent* agent = sessions_[id].agent;
  world_.After(agent_notices, [this, id, agent] {
    auto it = sessions_.find(id);
    if (it != sessions_.end()) it->second.agent_side = false;
    agent->StreamEnded(id);
  });
  const uint64_t life = life_;
  world_.After(coordinator_notices, [this, id, agent, life] {
    if (life == life_) Give(AgentGoneEvent{agent->name(), id});
    auto it = sessions_.find(id);
    if (it != sessions_.end()) it->second.coordinator_side = false;
  });
  world_.After(absl::Minutes(5), [this, id] { sessions_.erase(id); });
}

}  // namespace ll::sim
