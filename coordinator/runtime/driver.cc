#include "coordinator/runtime/driver.h"

#include <algorithm>
#include <utility>

#include "base/status_macros.h"

namespace ll {
namespace {

absl::Status StoppedError() {
  return absl::UnavailableError("the coordinator is stopping; try again");
}

}  // namespace

Driver::Driver(DriverOptions options, Clock& clock)
    : tick_(options.tick),
      max_waiting_requests_(options.max_waiting_requests),
      max_batch_(options.max_batch),
      clock_(clock),
      loop_(std::move(options), clock) {
  loop_.AddListener(this);
}

Driver::~Driver() { Stop(); }

absl::Status Driver::Start() {
  LL_RETURN_IF_ERROR(loop_.Start());
  thread_ = std::thread([this] { Loop(); });
  return absl::OkStatus();
}

void Driver::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    wake_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

// ---- the callers' side

bool Driver::Enqueue(Item item, bool bounded) {
  absl::MutexLock lock(&mu_);
  if (stopping_ || (bounded && waiting_requests_ >= max_waiting_requests_)) return false;
  if (bounded) ++waiting_requests_;
  queue_.push_back(std::move(item));
  if (queue_.size() == 1) wake_.SignalAll();
  return true;
}

void Driver::Request(Event event, Answer answer) {
  if (Enqueue({std::move(event), answer, nullptr}, /*bounded=*/true)) return;
  Reply reply;
  reply.status = serving() ? absl::ResourceExhaustedError("too many requests wait; try again")
                           : StoppedError();
  answer(reply, nullptr);
}

void Driver::AgentEvent(Event event, std::function<void()> done) {
  if (Enqueue({std::move(event), nullptr, done}, /*bounded=*/false)) return;
  if (done) done();
}

void Driver::RaiseTermAbove(int64_t above, std::function<void()> done) {
  if (!Enqueue({DriverLoop::RaiseTermAbove{above}, nullptr, done}, /*bounded=*/false)) done();
}

void Driver::Read(Reader reader) {
  if (Enqueue({reader, nullptr, nullptr}, /*bounded=*/true)) return;
  reader(serving() ? absl::ResourceExhaustedError("too many requests wait; try again")
                   : StoppedError(),
         nullptr);
}

ClusterViewPtr Driver::cluster_view() const {
  absl::MutexLock lock(&mu_);
  return view_;
}

std::string Driver::store_description() const {
  absl::MutexLock lock(&mu_);
  return description_;
}

absl::Status Driver::Serving() const {
  absl::MutexLock lock(&mu_);
  return stopping_ ? StoppedError() : serving_;
}

void Driver::Hurry() {
  absl::MutexLock lock(&mu_);
  hurry_ = true;
  wake_.SignalAll();
}

// ---- the loop

void Driver::OnServing(const absl::Status& status) {
  absl::MutexLock lock(&mu_);
  serving_ = status;
  if (status.ok()) description_ = loop_.store_description();
}

void Driver::OnView(const ClusterViewPtr& view) {
  absl::MutexLock lock(&mu_);
  view_ = view;
}

void Driver::Loop() {
  for (;;) {
    std::vector<Item> batch = NextBatch();
    bool stopping;
    {
      absl::MutexLock lock(&mu_);
      stopping = stopping_;
      if (stopping) {
        serving_ = StoppedError();
        std::move(queue_.begin(), queue_.end(), std::back_inserter(batch));
        queue_.clear();
        waiting_requests_ = 0;
      }
    }
    if (stopping) {
      DriverLoop::FailAll(batch, StoppedError());
      return;
    }
    loop_.Run(batch);
  }
}

std::vector<DriverLoop::Item> Driver::NextBatch() {
  std::vector<Item> batch;
  absl::MutexLock lock(&mu_);
  // The clock may be a fake one, so it is looked at several times a tick rather than trusted as a
  // wake-up time.
  const absl::Duration poll = std::max(tick_ / 4, absl::Milliseconds(5));
  while (queue_.empty() && !stopping_ && !hurry_ && clock_.Steady() < loop_.next_tick())
    wake_.WaitFor(mu_, poll);
  if (std::exchange(hurry_, false)) loop_.Hurry();
  while (!queue_.empty() && !stopping_ && batch.size() < max_batch_) {
    Item& item = queue_.front();
    if (item.answer || std::holds_alternative<Reader>(item.what)) --waiting_requests_;
    batch.push_back(std::move(item));
    queue_.pop_front();
  }
  return batch;
}

}  // namespace ll
