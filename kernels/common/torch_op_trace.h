// Where a training step's time goes, operation by operation. Off but in `ll-trainer profile step`:
// an operation then costs the load of one pointer.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <utility>

#include <ATen/ATen.h>

#include "base/clock.h"

namespace ll {

// What an operation has to do at least: floating point operations (2 a multiply-add) and bytes of
// its operands, each read or written once.
struct OpWork {
  double flops = 0, bytes = 0;
};

// Adds up what the thread that switched it on runs. Not thread-safe: of one thread.
class OpTrace {
 public:
  struct Sum {
    int64_t calls = 0;
    double seconds = 0;
    OpWork work;
  };
  // {phase, operation}
  using Key = std::pair<std::string, std::string>;

  // `finish` waits until the device has done what was enqueued: an operation's time is then its
  // own, with the time to start it and without any overlap with others.
  OpTrace(Clock& clock, std::function<void()> finish) : clock_(clock), finish_(std::move(finish)) {}

  const std::map<Key, Sum>& sums() const { return sums_; }

 private:
  friend class OpScope;
  friend class OpPhase;

  Clock& clock_;
  const std::function<void()> finish_;
  const char* phase_ = "";
  bool inside_ = false;  // an operation: those within it are part of it
  std::map<Key, Sum> sums_;
};

// The one that is on in this thread, or null. Owned by whoever switched it on.
inline thread_local OpTrace* active_op_trace = nullptr;

// `trace` is on in this thread as long as this lives. No other may be.
class OpTracing {
 public:
  explicit OpTracing(OpTrace& trace) { active_op_trace = &trace; }
  ~OpTracing() { active_op_trace = nullptr; }
  OpTracing(const OpTracing&) = delete;
  OpTracing& operator=(const OpTracing&) = delete;
};

// What follows in this scope belongs to `phase`, which is a literal.
class OpPhase {
 public:
  explicit OpPhase(const char* phase) : trace_(active_op_trace) {
    if (trace_ != nullptr) before_ = std::exchange(trace_->phase_, phase);
  }
  ~OpPhase() {
    if (trace_ != nullptr) trace_->phase_ = before_;
  }
  OpPhase(const OpPhase&) = delete;
  OpPhase& operator=(const OpPhase&) = delete;

 private:
  OpTrace* const trace_;
  const char* before_ = "";
};

// One operation, from here to the end of the scope. `work` is a function that returns its OpWork,
// called only where a trace is on.
class OpScope {
 public:
  template <typename Work>
  OpScope(const char* op, const Work& work) : trace_(active_op_trace) {
    if (trace_ == nullptr) return;
    if (trace_->inside_) {
      trace_ = nullptr;
      return;
    }
    op_ = op;
    work_ = work();
    trace_->finish_();
    trace_->inside_ = true;
    start_ = trace_->clock_.Steady();
  }
  ~OpScope() {
    if (trace_ != nullptr) End();
  }
  OpScope(const OpScope&) = delete;
  OpScope& operator=(const OpScope&) = delete;

 private:
  void End() {
    trace_->finish_();
    OpTrace::Sum& sum = trace_->sums_[{trace_->phase_, op_}];
    sum.seconds += absl::ToDoubleSeconds(trace_->clock_.Steady() - start_);
    sum.calls += 1;
    sum.work.flops += work_.flops;
    sum.work.bytes += work_.bytes;
    trace_->inside_ = false;
  }

  OpTrace* trace_;
  const char* op_ = "";
  OpWork work_;
  absl::Duration start_;
};

// An operation that moves these; one that is read and written is named twice.
inline OpWork Moves(std::initializer_list<std::reference_wrapper<const at::Tensor>> tensors) {
  OpWork work;
  for (const at::Tensor& t : tensors)
    work.bytes += t.defined() ? static_cast<double>(t.nbytes()) : 0;
  return work;
}

// A product y = a b; `adds`: to what y holds already.
inline OpWork ProductWork(const at::Tensor& y, const at::Tensor& a, const at::Tensor& b,
                          bool adds = false) {
  OpWork work = Moves({y, a, b});
  if (adds) work.bytes += static_cast<double>(y.nbytes());
  work.flops = 2.0 * static_cast<double>(y.numel()) * static_cast<double>(a.size(1));
  return work;
}

}  // namespace ll
