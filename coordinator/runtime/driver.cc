#include "coordinator/runtime/driver.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace ll {
namespace {
constexpr absl::Duration kWorkerMemory = absl::Hours(24 * 7);

absl::Status StoppedError() {
  return absl::UnavailableError("the coordinator is stopping; try again");
}

// What users see when a commit failed. A full disk is theirs to wait for or to report; anything
// else is ours.
absl::Status CommitError(const absl::Status& why) {
  if (why.code() == absl::StatusCode::kResourceExhausted) {
    return Annotate(why, "the coordinator could not write its store");
  }
  return absl::UnavailableError(
      absl::StrCat("the coordinator could not write its store: ", why.message()));
}
}  // namespace

Driver::~Driver() { Stop(); }

absl::Status Driver::Start() {
  LL_CHECK(gateway_ != nullptr);
  LL_ASSIGN_OR_RETURN(store_, options_.open_store());
  LL_ASSIGN_OR_RETURN(term_, store_->RaiseTerm());
  started_ = clock_.Now();
  LL_RETURN_IF_ERROR(Rebuild());
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
  if (stopping_ || (bounded && waiting_requests_ >= options_.max_waiting_requests)) return false;
  if (bounded) ++waiting_requests_;
  queue_.push_back(std::move(item));
  if (queue_.size() == 1) wake_.Signal();
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

bool Driver::serving() const {
  absl::MutexLock lock(&mu_);
  return serving_ && !stopping_;
}

// ---- the loop

void Driver::Loop() {
  for (;;) {
    std::vector<Item> batch = NextBatch();
    bool stopping;
    {
      absl::MutexLock lock(&mu_);
      stopping = stopping_;
      if (stopping) {
        serving_ = false;
        std::move(queue_.begin(), queue_.end(), std::back_inserter(batch));
        queue_.clear();
        waiting_requests_ = 0;
      }
    }
    if (stopping) {
      FailAll(batch, StoppedError());
      return;
    }
    RunBatch(batch);
  }
}

std::vector<Driver::Item> Driver::NextBatch() {
  std::vector<Item> batch;
  absl::MutexLock lock(&mu_);
  // The clock may be a fake one, so it is looked at several times a tick rather than trusted as a
  // wake-up time.
  const absl::Duration poll = std::max(options_.tick / 4, absl::Milliseconds(5));
  while (queue_.empty() && !stopping_ && clock_.Steady() < next_tick_)
    wake_.WaitWithTimeout(&mu_, poll);
  while (!queue_.empty() && !stopping_ && batch.size() < options_.max_batch) {
    Item& item = queue_.front();
    if (item.answer || std::holds_alternative<Reader>(item.what)) --waiting_requests_;
    batch.push_back(std::move(item));
    queue_.pop_front();
  }
  return batch;
}

Effects Driver::StepTimed(const Event& event) {
  const absl::Duration before = clock_.Steady();
  Effects effects = scheduler_->Step(event, Now());
  const absl::Duration took = clock_.Steady() - before;
  for (DriverListener* listener : listeners_) listener->OnStep(took);
  return effects;
}

void Driver::RunBatch(std::vector<Item>& batch) {
  const bool tick = clock_.Steady() >= next_tick_;
  if (tick) next_tick_ = clock_.Steady() + options_.tick;
  if (!scheduler_.has_value()) {
    absl::Status repaired =
        tick ? Rebuild() : absl::UnavailableError("the store could not be opened yet");
    if (!repaired.ok()) {
      if (tick) {
        LL_LOG(kError) << "the store is still unusable: " << repaired.message();
      }
      FailAll(batch, CommitError(repaired));
      return;
    }
  }

  std::vector<Decided> decided;
  for (Item& item : batch) {
    if (const Event* event = std::get_if<Event>(&item.what))
      decided.push_back({StepTimed(*event), &item});
  }
  if (tick) decided.push_back({StepTimed(TickEvent{}), nullptr});

  std::vector<Record> records;
  for (Decided& d : decided) {
    std::move(d.effects.records.begin(), d.effects.records.end(), std::back_inserter(records));
  }
  const absl::Status committed = records.empty() ? absl::OkStatus() : store_->Commit(records);
  if (!committed.ok()) {
    LL_LOG(kError) << "commit of " << records.size() << " records failed: " << committed.message();
    gateway_->EndAllSessions(absl::UnavailableError("the coordinator could not write its store"));
    // A full disk leaves the store usable; after any other error it must be opened again.
    if (committed.code() != absl::StatusCode::kResourceExhausted) store_.reset();
    const absl::Status rebuilt = Rebuild();
    if (!rebuilt.ok()) {
      LL_LOG(kError) << "the store is unusable: " << rebuilt.message();
    }
    FailAll(batch, CommitError(committed));
    return;
  }
  const bool registry_changed =
      std::any_of(records.begin(), records.end(), [](const Record& record) {
        return std::holds_alternative<PutModel>(record) ||
               std::holds_alternative<PutData>(record) ||
               std::holds_alternative<PutWorker>(record) ||
               std::holds_alternative<DeleteWorker>(record);
      });
  if (registry_changed) RefreshView();
  for (const Record& record : records) {
    const auto* deleted = std::get_if<DeleteJob>(&record);
    if (deleted == nullptr) continue;
    for (DriverListener* listener : listeners_) listener->OnDeleted(deleted->job);
  }
  Publish(decided);
  for (Item& item : batch) {
    if (const Reader* reader = std::get_if<Reader>(&item.what))
      (*reader)(absl::OkStatus(), &*scheduler_);
  }
  if (tick) {
    for (DriverListener* listener : listeners_) listener->OnTick(*scheduler_);
  }
}

void Driver::Publish(std::vector<Decided>& decided) {
  std::vector<JobId> changed;
  absl::flat_hash_set<JobId> seen;
  for (Decided& d : decided) {
    for (const std::string& note : d.effects.notes) LL_LOG(kInfo) << note;
    for (const Send& send : d.effects.sends) gateway_->Deliver(send, term_);
    for (JobId& job : d.effects.changed_jobs) {
      if (seen.insert(job).second) changed.push_back(std::move(job));
    }
  }
  for (Decided& d : decided) {
    if (d.item == nullptr) continue;
    if (d.item->answer) d.item->answer(d.effects.reply, &*scheduler_);
    if (d.item->done) d.item->done();
  }
  if (changed.empty()) return;
  for (DriverListener* listener : listeners_) listener->OnChanged(*scheduler_, changed);
}

void Driver::FailAll(std::vector<Item>& batch, const absl::Status& why) {
  Reply reply;
  reply.status = why;
  for (Item& item : batch) {
    if (item.answer) item.answer(reply, nullptr);
    if (const Reader* reader = std::get_if<Reader>(&item.what)) (*reader)(why, nullptr);
    if (item.done) item.done();
  }
}

absl::Status Driver::Rebuild() {
  scheduler_.reset();
  const auto load = [this]() -> absl::Status {
    if (store_ == nullptr) {
      LL_ASSIGN_OR_RETURN(store_, options_.open_store());
    }
    LL_ASSIGN_OR_RETURN(StoredState stored, store_->LoadAll());
    LL_ASSIGN_OR_RETURN(Scheduler scheduler,
                        Scheduler::Recover(std::move(stored), options_.scheduler, Now()));
    scheduler_.emplace(std::move(scheduler));
    return absl::OkStatus();
  };
  absl::Status status = load();
  if (!status.ok()) {
    store_.reset();  // its lock too, so that it can be opened again
    status = term_ == 0 || !thread_.joinable() ? status : load();
  }
  {
    absl::MutexLock lock(&mu_);
    serving_ = status.ok();
    if (status.ok()) description_ = store_->Description();
  }
  for (DriverListener* listener : listeners_) listener->OnServing(status.ok());
  if (status.ok()) RefreshView();
  return status;
}

void Driver::RefreshView() {
  auto view = std::make_shared<ClusterView>();
  const absl::Time now = clock_.Now();
  for (const auto& [name, worker] : scheduler_->workers()) {
    if (!worker.connected && now - worker.last_seen > kWorkerMemory) continue;
    view->workers.push_back(worker);
    view->workers.back().uses.clear();
  }
  view->models = scheduler_->models();
  view->data = scheduler_->data();
  absl::MutexLock lock(&mu_);
  view_ = std::move(view);
}

}  // namespace ll
