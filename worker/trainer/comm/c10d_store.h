// What the transports over c10d share: the store behind RendezvousStore, and everything of an
// operation but the moving of bytes, so that the same job has the same list of operations, sequence
// numbers and bytes on each of them. Inline because libll_cuda.so needs it too.
#pragma once

#include <exception>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include <torch/csrc/distributed/c10d/Store.hpp>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "model/torch_edge.h"
#include "worker/trainer/comm/comm.h"

namespace ll {

// Runs a c10d call; what it throws becomes Unavailable (a peer or the network failed) with `what`
// in front.
template <typename Call>
absl::Status C10dTry(const std::string& what, Call&& call) {
  try {
    call();
    return absl::OkStatus();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat(what, ": out of memory"));
  } catch (const std::exception& error) {
    // The first line says it; what follows is a backtrace.
    const std::string text = error.what();
    const std::string message = absl::StrCat(what, ": ", text.substr(0, text.find('\n')));
    return SaysOutOfMemory(text) ? absl::ResourceExhaustedError(message)
                                 : absl::UnavailableError(message);
  }
}

class C10dStore : public RendezvousStore {
 public:
  explicit C10dStore(c10::intrusive_ptr<c10d::Store> store) : store_(std::move(store)) {}
  const c10::intrusive_ptr<c10d::Store>& store() const { return store_; }

  absl::Status Set(const std::string& key, const std::string& value) override {
    return C10dTry("rendezvous: store", [&] { store_->set(key, value); });
  }
  absl::StatusOr<std::string> Get(const std::string& key) override {
    std::string value;
    const absl::Status got = C10dTry("rendezvous: store", [&] { value = store_->get_to_str(key); });
    if (!got.ok()) return got;
    return value;
  }

 private:
  c10::intrusive_ptr<c10d::Store> store_;
};

// Numbers a group's operations, counts their bytes, tells the watch about them, and lets it explain
// those that fail.
class OperationLog {
 public:
  OperationLog(std::string group, std::shared_ptr<PeerWatch> watch)
      : group_(std::move(group)), watch_(std::move(watch)) {}

  // Of an operation that is about to start; returns its number.
  int64_t Count(int64_t bytes_sent, int64_t bytes_received) {
    counters_.bytes_sent += bytes_sent;
    counters_.bytes_received += bytes_received;
    return ++counters_.operations;
  }
  // Runs the part of the newest operation that does not wait. It fails where a peer is already
  // gone.
  template <typename Call>
  absl::Status Start(const char* operation, Call&& call) {
    LL_RETURN_IF_ERROR(Failed());
    absl::Status status = Try(operation, call);
    if (status.ok() || watch_ == nullptr) return status;
    watch_->Begin(operation, group_.c_str(), counters_.operations);
    return watch_->Explain(std::move(status));
  }
  // Runs the blocking part of the newest operation.
  template <typename Call>
  absl::Status Wait(const char* operation, Call&& call) {
    LL_RETURN_IF_ERROR(Failed());
    if (watch_ != nullptr) watch_->Begin(operation, group_.c_str(), counters_.operations);
    const absl::Duration start = RealClock().Steady();
    absl::Status status = Try(operation, call);
    counters_.wait_seconds += absl::ToDoubleSeconds(RealClock().Steady() - start);
    if (watch_ == nullptr) return status;
    if (!status.ok()) return watch_->Explain(std::move(status));
    watch_->End();
    return status;
  }
  void EnterPhase(const char* phase) {
    if (watch_ != nullptr) watch_->Enter(phase);
  }
  const CommCounters& counters() const { return counters_; }

 private:
  absl::Status Failed() const { return watch_ != nullptr ? watch_->Failed() : absl::OkStatus(); }
  template <typename Call>
  absl::Status Try(const char* operation, Call&& call) {
    return C10dTry(absl::StrCat(operation, " ", counters_.operations, " of ", group_), call);
  }

  const std::string group_;
  const std::shared_ptr<PeerWatch> watch_;
  CommCounters counters_;
};

inline int64_t BytesOf(const std::vector<at::Tensor>& tensors) {
  int64_t bytes = 0;
  for (const at::Tensor& t : tensors) bytes += static_cast<int64_t>(t.nbytes());
  return bytes;
}
inline int64_t BytesOf(const std::vector<PeerMessage>& messages) {
  int64_t bytes = 0;
  for (const PeerMessage& m : messages) bytes += static_cast<int64_t>(m.tensor.nbytes());
  return bytes;
}

// A group over c10d; a transport says how bytes move. Its functions may throw.
class LoggedComm : public Comm {
 public:
  LoggedComm(const CommOptions& options, const std::string& group)
      : options_(options), log_(group, options.watch) {}

  int rank() const final { return options_.rank; }
  int world_size() const final { return options_.world_size; }
  void EnterPhase(const char* phase) final { log_.EnterPhase(phase); }
  CommCounters counters() const override { return log_.counters(); }

  absl::Status AllReduceSum(const std::vector<at::Tensor>& tensors) final {
    log_.Count(BytesOf(tensors), BytesOf(tensors));
    return log_.Wait("all-reduce", [&] {
      for (const at::Tensor& tensor : tensors) Sum(tensor);
    });
  }
  absl::Status Broadcast(at::Tensor tensor) final {
    const int64_t bytes = static_cast<int64_t>(tensor.nbytes());
    log_.Count(rank() == 0 ? bytes : 0, rank() == 0 ? 0 : bytes);
    return log_.Wait("broadcast", [&] { TakeRankZeros(tensor); });
  }
  absl::Status StartExchangeAs(const char* operation, std::vector<PeerMessage> sends,
                               std::vector<PeerMessage> receives) final {
    LL_CHECK(exchange_ == nullptr);
    exchange_ = operation;
    const int64_t number = log_.Count(BytesOf(sends), BytesOf(receives));
    absl::Status status = log_.Start(operation, [&] { StartMessages(number, sends, receives); });
    if (!status.ok()) exchange_ = nullptr;
    return status;
  }
  absl::Status FinishExchange() final {
    const char* operation = std::exchange(exchange_, nullptr);
    return log_.Wait(operation != nullptr ? operation : "exchange", [&] { FinishMessages(); });
  }

 protected:
  virtual void Sum(const at::Tensor& tensor) = 0;
  virtual void TakeRankZeros(const at::Tensor& tensor) = 0;
  // Starts exchange `number` of the group. The tensors must be held until FinishMessages.
  virtual void StartMessages(int64_t number, const std::vector<PeerMessage>& sends,
                             const std::vector<PeerMessage>& receives) = 0;
  // Waits for them. Not called where they could not be started or another operation failed.
  virtual void FinishMessages() = 0;
  const CommOptions& options() const { return options_; }

 private:
  const CommOptions options_;
  OperationLog log_;
  const char* exchange_ = nullptr;  // what the one under way is called
};

}  // namespace ll
