#include "coordinator/runtime/driver_loop.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/leader_error.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace ll {
namespace {
constexpr absl::Duration kWorkerMemory = absl::Hours(24 * 7);

// What users see when a commit failed. A full disk is theirs to wait for or to report; where
// another coordinator leads they are told so; anything else is ours.
absl::Status CommitError(const absl::Status& why) {
  if (!ErrorLeader(why).empty()) return why;
  if (why.code() == absl::StatusCode::kResourceExhausted) {
    return Annotate(why, "the coordinator could not write its store");
  }
  absl::Status status = absl::UnavailableError(
      absl::StrCat("the coordinator could not write its store: ", why.message()));
  SetErrorField(status, "store");
  return status;
}

bool IsSubmission(const DriverLoop::Item& item) {
  const Event* event = std::get_if<Event>(&item.what);
  return event != nullptr && (std::holds_alternative<SubmitEvent>(*event) ||
                              std::holds_alternative<SubmitAllEvent>(*event));
}
}  // namespace

absl::Status DriverLoop::Start() {
  LL_CHECK(gateway_ != nullptr);
  started_ = clock_.Now();
  const absl::Status status = Rebuild(/*again=*/false);
  return options_.start_without_store && absl::IsUnavailable(status) ? absl::OkStatus() : status;
}

void DriverLoop::StepDownUnlessCurrent() {
  if (!scheduler_.has_value()) return;
  const absl::Status current = store_->Check();
  if (current.ok()) return;
  LL_LOG(kWarning) << "steps down: " << current.message();
  gateway_->EndAllSessions(current);
  store_.reset();
  scheduler_.reset();
  unusable_ = current;
  next_tick_ = clock_.Steady();  // tries again, and tells who listens, at once
}

Effects DriverLoop::StepTimed(const Event& event, bool pass) {
  const absl::Duration before = clock_.Steady();
  Effects effects =
      pass ? scheduler_->Step(event, Now()) : scheduler_->StepWithoutPass(event, Now());
  const absl::Duration took = clock_.Steady() - before;
  for (DriverListener* listener : listeners_) listener->OnStep(*scheduler_, effects, took);
  return effects;
}

void DriverLoop::Run(std::vector<Item>& batch) {
  StepDownUnlessCurrent();
  const bool tick = clock_.Steady() >= next_tick_;
  if (tick) next_tick_ = clock_.Steady() + options_.tick;
  if (!scheduler_.has_value()) {
    const std::string before(unusable_.message());
    if (tick) (void)Rebuild(true);
    if (!scheduler_.has_value()) {
      // A standby is in good order; the rest is told once for each cause.
      if (before != unusable_.message() && ErrorLeader(unusable_).empty()) {
        LL_LOG(kError) << "the store is still unusable: " << unusable_.message();
      }
      FailAll(batch, CommitError(unusable_));
      return;
    }
  }

  if (!RaiseTerms(batch).ok()) return;
  std::vector<Decided> decided;
  for (size_t i = 0; i < batch.size(); ++i) {
    const Event* event = std::get_if<Event>(&batch[i].what);
    if (event == nullptr) continue;
    // Of submissions that came together the last one's pass serves all, in the queues' order.
    const bool more = IsSubmission(batch[i]) && i + 1 < batch.size() && IsSubmission(batch[i + 1]);
    decided.push_back({StepTimed(*event, /*pass=*/!more), &batch[i]});
  }
  if (tick) decided.push_back({StepTimed(TickEvent{}), nullptr});

  std::vector<Record> records;
  for (Decided& d : decided) {
    std::move(d.effects.records.begin(), d.effects.records.end(), std::back_inserter(records));
  }
  if (!Commit(batch, records).ok()) return;
  NoteRecords(records);
  Publish(decided);
  for (Item& item : batch) {
    if (const Reader* reader = std::get_if<Reader>(&item.what))
      (*reader)(absl::OkStatus(), &*scheduler_);
    if (std::holds_alternative<RaiseTermAbove>(item.what)) item.done();
  }
  if (tick) {
    for (DriverListener* listener : listeners_) listener->OnTick(*scheduler_);
  }
}

// After a failure everybody of the batch knows and the scheduler is again what the store holds.
absl::Status DriverLoop::Commit(std::vector<Item>& batch, const std::vector<Record>& records) {
  if (records.empty()) return absl::OkStatus();
  const absl::Duration before = clock_.Steady();
  const absl::Status committed = store_->Commit(records);
  const absl::Duration took = clock_.Steady() - before;
  for (DriverListener* listener : listeners_) listener->OnCommit(took, committed.ok());
  if (committed.ok()) return committed;
  LL_LOG(kError) << "commit of " << records.size() << " records failed: " << committed.message();
  GiveUp(batch, committed);
  return committed;
}

void DriverLoop::GiveUp(std::vector<Item>& batch, const absl::Status& why) {
  gateway_->EndAllSessions(ErrorLeader(why).empty()
                               ? absl::UnavailableError("the coordinator could not write its store")
                               : why);
  // A full disk leaves the store usable; after any other error it must be opened again.
  if (why.code() != absl::StatusCode::kResourceExhausted) store_.reset();
  const absl::Status rebuilt = Rebuild(true);
  if (!rebuilt.ok()) {
    LL_LOG(kError) << "the store is unusable: " << rebuilt.message();
  }
  FailAll(batch, CommitError(why));
}

absl::Status DriverLoop::RaiseTerms(std::vector<Item>& batch) {
  int64_t above = 0;
  for (const Item& item : batch) {
    if (const auto* raise = std::get_if<RaiseTermAbove>(&item.what))
      above = std::max(above, raise->above);
  }
  if (above >= term_) {
    const absl::StatusOr<int64_t> raised = store_->RaiseTerm(above);
    if (!raised.ok()) {
      LL_LOG(kError) << "raising the term above " << above
                     << " failed: " << raised.status().message();
      GiveUp(batch, raised.status());
      return raised.status();
    }
    LL_LOG(kInfo) << "term " << *raised << ": an agent has obeyed " << above;
    term_ = *raised;
  }
  return absl::OkStatus();
}

void DriverLoop::NoteRecords(const std::vector<Record>& records) {
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
}

void DriverLoop::Publish(std::vector<Decided>& decided) {
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

void DriverLoop::FailAll(std::vector<Item>& batch, const absl::Status& why) {
  Reply reply;
  reply.status = why;
  for (Item& item : batch) {
    if (item.answer) item.answer(reply, nullptr);
    if (const Reader* reader = std::get_if<Reader>(&item.what)) (*reader)(why, nullptr);
    if (item.done) item.done();
  }
}

absl::Status DriverLoop::Rebuild(bool again) {
  scheduler_.reset();
  const auto load = [this]() -> absl::Status {
    if (store_ == nullptr) {
      LL_ASSIGN_OR_RETURN(store_, options_.open_store());
      // Meanwhile another coordinator may have had it, and agents may have obeyed that one.
      LL_ASSIGN_OR_RETURN(term_, store_->RaiseTerm());
    }
    LL_ASSIGN_OR_RETURN(StoredState stored, store_->LoadAll());
    restored_ = stored.restored != absl::InfinitePast();
    LL_ASSIGN_OR_RETURN(Scheduler scheduler,
                        Scheduler::Recover(std::move(stored), options_.scheduler, Now()));
    scheduler_.emplace(std::move(scheduler));
    return absl::OkStatus();
  };
  absl::Status status = load();
  if (!status.ok()) {
    store_.reset();  // its lock too, so that it can be opened again
    if (again && ErrorLeader(status).empty()) status = load();
    if (!status.ok()) store_.reset();
  }
  unusable_ = status;
  const absl::Status told = status.ok() ? status : CommitError(status);
  for (DriverListener* listener : listeners_) listener->OnServing(told);
  if (!status.ok()) return status;
  for (DriverListener* listener : listeners_) listener->OnRecovered(*scheduler_);
  RefreshView();
  return status;
}

void DriverLoop::RefreshView() {
  auto view = std::make_shared<ClusterView>();
  const absl::Time now = clock_.Now();
  for (const auto& [name, worker] : scheduler_->workers()) {
    if (!worker.connected && now - worker.last_seen > kWorkerMemory) continue;
    view->workers.push_back(worker);
    view->workers.back().uses.clear();
  }
  view->models = scheduler_->models();
  view->data = scheduler_->data();
  for (DriverListener* listener : listeners_) listener->OnView(view);
}

}  // namespace ll
