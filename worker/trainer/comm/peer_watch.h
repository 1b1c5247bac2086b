// Who watches over a rank's peers while it computes and waits. The transports tell it what they do;
// watchdog.h is the one that looks.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"

namespace ll {

// Thread-safe. Strings are copied, up to 31 characters.
class PeerWatch {
 public:
  virtual ~PeerWatch() = default;
  // This rank is now in `phase`.
  virtual void Enter(const char* phase) = 0;
  // This rank starts to wait in, and then leaves, operation number `sequence` of `group`.
  virtual void Begin(const char* operation, const char* group, int64_t sequence) = 0;
  virtual void End() = 0;
  // An operation failed. Waits a moment for word of who is to blame; returns the error that says
  // so, or `error` with what is known of the others.
  virtual absl::Status Explain(absl::Status error) = 0;
  // What Explain has returned; OK until then. No operation of any group starts after it: the ranks
  // are no longer in step, and would wait for each other in different ones.
  virtual absl::Status Failed() = 0;
  // `check` is asked from now on, on the watch's thread and several times a second: a transport
  // whose operations the caller does not wait for tells there that one has failed. It must be quick
  // and never wait.
  virtual void Check(std::function<absl::Status()> check) {}
};

}  // namespace ll
