#include "coordinator/store/mem_store.h"

namespace ll {

struct MemStore::Apply {
  MemStore& s;

  void operator()(const PutSubmission& r) const { s.payloads_[r.job] = r.payload; }
  void operator()(const PutJob& r) const { s.jobs_[r.job.id] = r.job; }
  void operator()(const PutTransition& r) const {
    auto& history = s.transitions_[r.job];
    history[r.index] = r.transition;
    const int64_t gone = r.index - static_cast<int64_t>(kMaxHistory);
    history.erase(history.begin(), history.upper_bound(gone));
  }
  void operator()(const DeleteJob& r) const {
    s.jobs_.erase(r.job);
    s.payloads_.erase(r.job);
    s.transitions_.erase(r.job);
  }
  void operator()(const PutRequest& r) const {
    s.requests_[{r.request.user, r.request.request_id}] = r.request;
  }
  void operator()(const DeleteRequest& r) const { s.requests_.erase({r.user, r.request_id}); }
  void operator()(const PutWorker& r) const { s.workers_[r.worker.name] = r.worker; }
  void operator()(const DeleteWorker& r) const { s.workers_.erase(r.worker); }
  void operator()(const PutModel& r) const { s.models_[r.model.name] = r.model; }
  void operator()(const PutData& r) const { s.data_[r.data.name] = r.data; }
  void operator()(const PutQueue& r) const { s.queues_[r.queue.name] = r.queue; }
  void operator()(const PutSchedule& r) const { s.schedules_[r.schedule.name] = r.schedule; }
  void operator()(const DeleteSchedule& r) const {
    s.schedules_.erase(r.schedule);
    s.schedule_runs_.erase(r.schedule);
  }
  void operator()(const PutScheduleRun& r) const {
    s.schedule_runs_[r.schedule][r.run.number] = r.run;
  }
  void operator()(const DeleteScheduleRun& r) const {
    s.schedule_runs_[r.schedule].erase(r.number);
  }
};

absl::Status MemStore::Commit(absl::Span<const Record> records) {
  if (!fail_next_.ok()) return std::exchange(fail_next_, absl::OkStatus());
  if (std::exchange(drop_next_, false)) return absl::OkStatus();
  for (const Record& record : records) std::visit(Apply{*this}, record);
  return absl::OkStatus();
}

absl::Status MemStore::Replace(absl::Span<const Record> records, absl::Time restored) {
  const int64_t term = term_;
  *this = MemStore();
  term_ = term;
  restored_ = restored;
  return Commit(records);
}

absl::StatusOr<StoredState> MemStore::LoadAll() {
  StoredState state;
  state.restored = restored_;
  for (const auto& [id, stored] : jobs_) {
    Job job = stored;
    auto payload = payloads_.find(id);
    if (payload == payloads_.end()) return absl::DataLossError("a job has no submission");
    job.payload = payload->second;
    job.history.clear();
    for (const auto& [index, transition] : transitions_[id]) {
      if (index >= job.transitions - static_cast<int64_t>(kMaxHistory))
        job.history.push_back(transition);
    }
    state.jobs.push_back(std::move(job));
  }
  for (const auto& [key, request] : requests_) state.requests.push_back(request);
  for (const auto& [name, worker] : workers_) state.workers.push_back(worker);
  for (const auto& [name, model] : models_) state.models.push_back(model);
  for (const auto& [name, data] : data_) state.data.push_back(data);
  for (const auto& [name, queue] : queues_) state.queues.push_back(queue);
  for (const auto& [name, schedule] : schedules_) state.schedules.push_back(schedule);
  for (const auto& [name, runs] : schedule_runs_) {
    for (const auto& [number, run] : runs) state.schedule_runs.push_back({name, run});
  }
  return state;
}

}  // namespace ll
