// Which connections misuse HTTP/2. gRPC's server (1.51) bounds messages, streams and metadata, but
// not what it holds for streams that were reset before they were answered (CVE-2023-44487) nor for
// a block of headers that never ends (CVE-2024-27316): a client without any credentials can fill
// the memory with either. The ledger tells such a connection by what it did; ConnectionGuard hangs
// it up.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"

namespace ll {

struct ConnectionLimits {
  // Calls that have arrived and did not begin yet, or are at work, at once. Streams are limited
  // too, but a reset stream no longer counts there while its call still has to be taken apart here.
  int64_t calls_at_once = 512;
  // Calls that the client gave up before an answer: as many, and more than half of all. Both counts
  // are halved now and then, so that a connection that lives for weeks may give up some.
  int64_t given_up = 500;
  // Bytes that came since the connection last began a call or ended a message: nothing of use is
  // that long, a message has 2 MiB at most.
  int64_t bytes_without_progress = 8 << 20;
  // Calls on all connections together that have arrived and do not begin, since their message does
  // not come: gRPC holds some 11 KB for each. While there are more, connections that talk and
  // bring nothing to an end are hung up: those without a call at work that sent so many bytes
  // since their last progress.
  int64_t waiting_calls = 1024;
  int64_t idle_bytes = 4096;
};

// Thread-safe. A peer is named as grpc::ServerContext::peer() does ("ipv4:127.0.0.1:4711"); other
// peers (in-process) are never hung up.
class ConnectionLedger {
 public:
  explicit ConnectionLedger(ConnectionLimits limits = {}) : limits_(limits) {}

  // A call has arrived on a connection of which only an identity is known, by no name: gRPC tells
  // the name when the call begins, which under a flood is thousands of calls later.
  using Identity = const void*;
  // Whether a connection should be hung up now; `peer` says which, empty where no name is known
  // yet.
  bool CallArrived(Identity connection, std::string* peer) ABSL_LOCKS_EXCLUDED(mutex_);
  void ArrivedCallBegan(Identity connection, const std::string& peer) ABSL_LOCKS_EXCLUDED(mutex_);

  // Each says whether the connection should be hung up now.
  bool CallBegan(const std::string& peer) ABSL_LOCKS_EXCLUDED(mutex_);
  bool CallEnded(const std::string& peer, bool given_up) ABSL_LOCKS_EXCLUDED(mutex_);

  void MessageCame(const std::string& peer) ABSL_LOCKS_EXCLUDED(mutex_);

  struct Socket {
    std::string peer;
    int64_t bytes_received;  // since it was connected
  };
  // All connections that there are: the others are forgotten, save those with calls still at work.
  // Returns the peers to hang up. To be called every fraction of a second.
  std::vector<std::string> Look(const std::vector<Socket>& sockets) ABSL_LOCKS_EXCLUDED(mutex_);

  // More calls wait than may: the next look should be soon.
  bool Crowded() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return waiting_ > limits_.waiting_calls;
  }

  // Every call forgives half of what was given up so far, and of what arrived and never began.
  void Forgive() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Connection {
    int64_t at_work = 0;
    int64_t began = 0, given_up = 0;  // halved by Forgive
    int64_t progress = 0;             // calls begun and messages
    int64_t seen_progress = -1;       // at the last Look that saw progress ...
    int64_t seen_bytes = 0;           // ... and the bytes received then
    bool seen = false;                // by the last Look
  };
  struct Arrivals {
    int64_t waiting = 0;
    std::string peer;  // empty: not known
  };
  bool Misused(const Connection& connection) const;
  bool Idles(const Connection& connection, const Socket& socket) const;

  const ConnectionLimits limits_;
  absl::Mutex mutex_;
  std::map<std::string, Connection> connections_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<Identity, Arrivals> arrivals_ ABSL_GUARDED_BY(mutex_);
  int64_t waiting_ ABSL_GUARDED_BY(mutex_) = 0;  // of all arrivals
};

}  // namespace ll
