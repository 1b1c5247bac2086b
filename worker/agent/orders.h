// Which orders of the coordinator the agent obeys. Pure: no process, file, clock or network. Not
// thread-safe.
//
//   term    raised at every coordinator start. Orders of a lower term than was obeyed come from a
//   coordinator that has
//           been replaced and does not know it yet.
//   epoch   a job's attempt. At most one epoch of a job writes on this host: a newer one ends the
//   older, an older one
//           is refused.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/workers.pb.h"

namespace ll {

struct GangKey {
  std::string job_id;
  int64_t epoch = 0;
  auto operator<=>(const GangKey&) const = default;
  std::string ToString() const { return job_id + "/e" + std::to_string(epoch); }
};

// What a StartGang asks for, compared with what is held here.
struct StartDecision {
  enum Kind {
    kStart,   // do it
    kHeld,    // the same order again (a repeat after a reconnect): nothing to do
    kWait,    // its slots are not free yet: end `supersedes` first, then ask again
    kStale,   // an epoch that was superseded, or no epoch at all: ignore it
    kRefuse,  // it can never be started here: answer StartRefused
  };
  Kind kind = kStart;
  std::string reason;  // of kWait, kStale and kRefuse: a sentence
  v1::FailureClass failure_class = v1::FAILURE_CLASS_UNSPECIFIED;  // of kRefuse
  std::vector<GangKey>
      supersedes;  // older epochs of the job that still run here; of kStart and kWait
};

class Orders {
 public:
  Orders(std::vector<int> slots, int64_t highest_term)
      : slots_(std::move(slots)), highest_term_(highest_term) {}

  // Obeys `term` from now on. FailedPrecondition when a higher one was obeyed.
  absl::Status AcceptTerm(int64_t term);
  int64_t highest_term() const { return highest_term_; }

  StartDecision DecideStart(const v1::StartGang& order) const;

  // Keeps the books of what is held: a gang, and the slots its living ranks occupy.
  void Hold(const GangKey& gang, std::vector<int> slots);
  void FreeSlot(const GangKey& gang, int slot);
  void Forget(const GangKey& gang) { held_.erase(gang); }
  bool Holds(const GangKey& gang) const { return held_.count(gang) > 0; }

 private:
  std::vector<int> slots_;
  int64_t highest_term_;
  std::map<GangKey, std::vector<int>> held_;  // busy slots; empty: every rank has ended
};

// The contact lease: how long the agent takes itself for one the coordinator counts on. Pure. Time
// is steady time that counts suspend, so that a host that slept knows that it did.
class ContactLease {
 public:
  explicit ContactLease(absl::Duration length) : length_(length) {}
  void set_length(absl::Duration length) { length_ = length; }
  absl::Duration length() const { return length_; }
  absl::Duration last() const { return last_; }
  void Contact(absl::Duration now) { last_ = now; }
  // No word for longer than the lease: ranks go on, no new gang is taken until the next Welcome.
  bool Expired(absl::Duration now) const { return now - last_ > length_; }
  absl::Duration Silence(absl::Duration now) const { return now - last_; }

 private:
  absl::Duration length_;
  absl::Duration last_ = absl::ZeroDuration();
};

}  // namespace ll
