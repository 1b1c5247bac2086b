#include "rpc/connection_ledger.h"

#include <iterator>
#include <utility>

namespace ll {

bool ConnectionLedger::Misused(const Connection& connection) const {
  return connection.at_work > limits_.calls_at_once ||
         (connection.given_up >= limits_.given_up && 2 * connection.given_up > connection.began);
}

// Handshake and settings are bytes too, but of a connection that never began a call all count: a
// flood may be over before the first look.
bool ConnectionLedger::Idles(const Connection& connection, const Socket& socket) const {
  const int64_t seen = connection.progress == 0 ? 0 : connection.seen_bytes;
  return connection.at_work == 0 && socket.bytes_received - seen > limits_.idle_bytes;
}

bool ConnectionLedger::CallArrived(Identity connection, std::string* peer) {
  absl::MutexLock lock(&mutex_);
  Arrivals& arrivals = arrivals_[connection];
  *peer = arrivals.peer;
  ++waiting_;
  if (++arrivals.waiting <= limits_.calls_at_once) return false;
  waiting_ -= std::exchange(arrivals.waiting, 0);
  return true;
}

void ConnectionLedger::ArrivedCallBegan(Identity connection, const std::string& peer) {
  absl::MutexLock lock(&mutex_);
  Arrivals& arrivals = arrivals_[connection];
  if (arrivals.peer != peer) arrivals = {.waiting = arrivals.waiting, .peer = peer};
  if (arrivals.waiting == 0) return;
  --arrivals.waiting;
  --waiting_;
}

bool ConnectionLedger::CallBegan(const std::string& peer) {
  absl::MutexLock lock(&mutex_);
  Connection& connection = connections_[peer];
  ++connection.at_work;
  ++connection.began;
  ++connection.progress;
  return Misused(connection);
}

bool ConnectionLedger::CallEnded(const std::string& peer, bool given_up) {
  absl::MutexLock lock(&mutex_);
  const auto found = connections_.find(peer);
  if (found == connections_.end()) return false;
  Connection& connection = found->second;
  --connection.at_work;
  connection.given_up += given_up;
  return Misused(connection);
}

void ConnectionLedger::MessageCame(const std::string& peer) {
  absl::MutexLock lock(&mutex_);
  const auto found = connections_.find(peer);
  if (found != connections_.end()) ++found->second.progress;
}

std::vector<std::string> ConnectionLedger::Look(const std::vector<Socket>& sockets) {
  std::vector<std::string> misused;
  absl::MutexLock lock(&mutex_);
  for (auto& [peer, connection] : connections_) connection.seen = false;
  for (const Socket& socket : sockets) {
    Connection& connection = connections_[socket.peer];
    connection.seen = true;
    if (connection.progress != connection.seen_progress ||
        socket.bytes_received < connection.seen_bytes) {  // fewer: another connection of that name
      connection.seen_progress = connection.progress;
      connection.seen_bytes = socket.bytes_received;
    } else if (socket.bytes_received - connection.seen_bytes > limits_.bytes_without_progress) {
      misused.push_back(socket.peer);
      continue;
    }
    if (waiting_ > limits_.waiting_calls && Idles(connection, socket))
      misused.push_back(socket.peer);
  }
  for (auto it = connections_.begin(); it != connections_.end();) {
    it = it->second.seen || it->second.at_work > 0 ? std::next(it) : connections_.erase(it);
  }
  return misused;
}

void ConnectionLedger::Forgive() {
  absl::MutexLock lock(&mutex_);
  for (auto& [peer, connection] : connections_) {
    connection.began /= 2;
    connection.given_up /= 2;
  }
  waiting_ = 0;
  for (auto it = arrivals_.begin(); it != arrivals_.end();) {
    it->second.waiting /= 2;
    waiting_ += it->second.waiting;
    const auto next = std::next(it);
    if (it->second.waiting == 0) arrivals_.erase(it);
    it = next;
  }
}

}  // namespace ll
