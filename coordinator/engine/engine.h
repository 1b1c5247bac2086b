// Where gangs run. An engine is all that the coordinator knows of whatever starts processes: the
// agents' streams (workers/hub.h) are one; Slurm or Kubernetes would be others, beside it.
//
// An engine speaks to the core in its own words (core/events.h). It gets orders by Deliver and
// tells events to the sink that it was given. What it must promise:
//
//  Capacity   is declared as workers with slots, one AgentHelloEvent a session, and taken back by
//             AgentGoneEvent. A worker that says nothing for the lease counts as out of contact:
//             AgentHeardEvent keeps it in contact. A session's number comes from SessionNumbers and
//             is never used again; a worker has one session at a time, the newest.
//  Fencing    An order of a lower term than the engine has obeyed, or of a lower epoch of its job,
//             does nothing. Nor does one to a session that has ended.
//  Once       An order that comes again changes nothing: a rank is never started twice.
//  Whole      A StartGangOrder starts all ranks that it names, or is answered by one RefusedFact.
//  Told       What becomes of a rank (started, training, checkpoint, exit) is told as ReportEvents,
//             numbered 1, 2, … for each worker and attempt, in order, and again after each new
//             session, until a ReportAckOrder covers the number; in effect once, therefore. The
//             exit is a rank's last report.
//  Held       A Hello names every gang that the worker has not been told to release, with the ranks
//             that have ended. It is the truth: a rank that was ordered, started and is not in it
//             is gone. What the Welcome does not keep is killed and its end told.
//  Silence    proves nothing. Ranks train on while their worker is out of contact, and end by
//             themselves after max_headless. Where the engine itself does not know whether a rank
//             lives (its own controller is away), it ends the worker's session and stays silent: it
//             tells neither an exit nor a Hello before it knows.
//  Stop       with `checkpoint`: a checkpoint at the next step, an exit with kExitCheckpointed, and
//             a kill when the grace is over; without: a kill. Each is confirmed by the exits alone.
//
// engine_conformance_test.cc holds every engine to this.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "coordinator/core/events.h"

namespace ll {

// Takes what an engine tells, on any thread; `done` (may be null) is called when it is decided and
// durable, or given up.
using EventSink = std::function<void(Event event, std::function<void()> done)>;

class Engine {
 public:
  virtual ~Engine() = default;
  // An order to one of its sessions, after what it rests on is durable. On the driver's thread, in
  // order; must not block.
  virtual void Deliver(const Send& send, int64_t term) = 0;
  // The coordinator has lost what it decided last: every session ends, and workers come back with
  // what they hold. On the driver's thread; must not block.
  virtual void EndAllSessions(const absl::Status& why) = 0;
};

// Engines that a coordinator may have at once.
inline constexpr int kMaxEngines = 16;

// Numbers of one engine's sessions: rising, never 0, different from those of other engines, so that
// a number tells whose session it is. Not thread-safe.
class SessionNumbers {
 public:
  explicit SessionNumbers(int engine = 0) : last_(static_cast<uint64_t>(engine)) {}
  uint64_t Next() { return last_ += kMaxEngines; }
  static int EngineOf(uint64_t session) { return static_cast<int>(session % kMaxEngines); }

 private:
  uint64_t last_;
};

}  // namespace ll
