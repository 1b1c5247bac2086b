#include "coordinator/store/codec.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "coordinator/store/codec_json.h"

namespace ll {

namespace codec {

Json ToJson(const CoreSpec& spec) {
  Json json = {{"name", spec.name},
               {"kind", spec.kind},
               {"queue", spec.queue},
               {"gpus", spec.gpus},
               {"priority", spec.priority},
               {"max_retries", spec.max_retries},
               {"after", Ids(spec.after)},
               {"required_slot_bytes", spec.required_slot_bytes},
               {"slot_kinds", spec.slot_kinds},
               {"hosts", spec.hosts}};
  Put(json, "max_runtime", spec.max_runtime);
  Put(json, "max_headless", spec.max_headless);
  Put(json, "ttl_after_finished", spec.ttl_after_finished);
  if (!spec.after_any.empty()) json["after_any"] = Ids(spec.after_any);
  Put(json, "forecast_duration", spec.forecast_duration);
  if (spec.min_runtime.has_value()) Put(json, "min_runtime", *spec.min_runtime);
  if (spec.deadline != absl::InfiniteFuture()) Put(json, "deadline", spec.deadline);
  if (!spec.source.empty()) json["source"] = spec.source.value();
  if (!spec.labels.empty()) json["labels"] = spec.labels;
  if (spec.max_gpus > 0) json["max_gpus"] = spec.max_gpus;
  if (spec.batch_rows > 0) json["batch_rows"] = spec.batch_rows;
  if (spec.row_ranks > 1) json["row_ranks"] = spec.row_ranks;
  if (spec.copies_checkpoints) json["copies_checkpoints"] = true;
  if (spec.kinds_named) json["kinds_named"] = true;
  if (!spec.other_kinds.empty()) json["other_kinds"] = spec.other_kinds;
  return json;
}

CoreSpec SpecFromJson(const Json& json) {
  CoreSpec spec;
  spec.name = Get<std::string>(json, "name");
  spec.kind = Get<std::string>(json, "kind", "train");
  spec.queue = Get<std::string>(json, "queue");
  spec.gpus = Get<int>(json, "gpus", 1);
  spec.priority = Get<int>(json, "priority");
  spec.max_retries = Get<int>(json, "max_retries", spec.max_retries);
  spec.after = GetIds(json, "after");
  spec.required_slot_bytes = Get<int64_t>(json, "required_slot_bytes");
  spec.slot_kinds = Get<std::vector<std::string>>(json, "slot_kinds");
  spec.hosts = Get<std::vector<std::string>>(json, "hosts");
  spec.max_runtime = GetDuration(json, "max_runtime");
  spec.max_headless = GetDuration(json, "max_headless");
  spec.ttl_after_finished = GetDuration(json, "ttl_after_finished");
  // Absent in records of versions that did not know them: the defaults mean what those did.
  spec.after_any = GetIds(json, "after_any");
  spec.forecast_duration = GetDuration(json, "forecast_duration");
  if (json.contains("min_runtime")) spec.min_runtime = GetDuration(json, "min_runtime");
  if (json.contains("deadline")) spec.deadline = GetTime(json, "deadline");
  spec.source = JobId(Get<std::string>(json, "source"));
  spec.labels = Get<std::map<std::string, std::string>>(json, "labels");
  spec.max_gpus = Get<int>(json, "max_gpus");
  spec.batch_rows = Get<int>(json, "batch_rows");
  spec.row_ranks = std::max(1, Get<int>(json, "row_ranks"));
  spec.copies_checkpoints = Get<bool>(json, "copies_checkpoints");
  spec.kinds_named = Get<bool>(json, "kinds_named");
  spec.other_kinds = Get<std::vector<std::string>>(json, "other_kinds");
  return spec;
}

}  // namespace codec

using namespace codec;

namespace {

// ---- parts of a job

Json ToJson(const Checkpoint& checkpoint) {
  return {{"step", checkpoint.step},     {"epoch", checkpoint.epoch},
          {"path", checkpoint.path},     {"manifest_sha256", checkpoint.manifest_sha256},
          {"worker", checkpoint.worker}, {"host", checkpoint.host}};
}

Checkpoint CheckpointFromJson(const Json& json) {
  return {Get<int64_t>(json, "step"),       Get<int64_t>(json, "epoch"),
          Get<std::string>(json, "path"),   Get<std::string>(json, "manifest_sha256"),
          Get<std::string>(json, "worker"), Get<std::string>(json, "host")};
}

Json ToJson(const Rank& rank) {
  Json json = {{"worker", rank.worker.value()},
               {"slot", rank.slot},
               {"incarnation", rank.incarnation},
               {"phase", static_cast<int>(rank.phase)}};
  if (rank.phase == RankPhase::kExited) {
    json["exit"] = {{"code", rank.exit.code},
                    {"signal", rank.exit.signal},
                    {"ordered", rank.exit.ordered},
                    {"lost", rank.exit.lost},
                    {"reported", rank.exit.reported},
                    {"failure_class", static_cast<int>(rank.exit.failure_class)},
                    {"message", rank.exit.message},
                    {"caused_by", rank.exit.caused_by}};
  }
  return json;
}

Rank RankFromJson(const Json& json) {
  Rank rank;
  rank.worker = WorkerId(Get<std::string>(json, "worker"));
  rank.slot = Get<int>(json, "slot");
  rank.incarnation = Get<std::string>(json, "incarnation");
  rank.phase = GetEnum(json, "phase", RankPhase::kOrdered);
  const Json exit = Get<Json>(json, "exit", Json::object());
  rank.exit.code = Get<int>(exit, "code");
  rank.exit.signal = Get<int>(exit, "signal");
  rank.exit.ordered = Get<bool>(exit, "ordered");
  rank.exit.lost = Get<bool>(exit, "lost");
  rank.exit.reported = Get<bool>(exit, "reported");
  rank.exit.failure_class = GetEnum(exit, "failure_class", FailureClass::kNone);
  rank.exit.message = Get<std::string>(exit, "message");
  rank.exit.caused_by = Get<int>(exit, "caused_by", -1);
  return rank;
}

Json ToJson(const Attempt& attempt) {
  Json json = {{"epoch", attempt.epoch},
               {"nonce", attempt.nonce},
               {"rendezvous", attempt.rendezvous},
               {"stop", static_cast<int>(attempt.stop)},
               {"stop_reason", attempt.stop_reason},
               {"slot_kind", attempt.slot_kind}};
  for (const Rank& rank : attempt.ranks) json["ranks"].push_back(ToJson(rank));
  for (const auto& [worker, sequence] : attempt.report_sequence)
    json["reports"][worker.value()] = sequence;
  if (attempt.resume_from.has_value()) json["resume_from"] = ToJson(*attempt.resume_from);
  if (attempt.forced.has_value()) {
    json["forced"] = {{"failure_class", static_cast<int>(attempt.forced->failure_class)},
                      {"message", attempt.forced->message}};
  }
  return json;
}

Attempt AttemptFromJson(const Json& json) {
  Attempt attempt;
  attempt.epoch = Get<int64_t>(json, "epoch");
  attempt.nonce = Get<std::string>(json, "nonce");
  attempt.rendezvous = Get<std::string>(json, "rendezvous");
  attempt.stop = GetEnum(json, "stop", StopKind::kNone);
  attempt.stop_reason = Get<std::string>(json, "stop_reason");
  attempt.slot_kind = Get<std::string>(json, "slot_kind");
  for (const Json& rank : Get<Json>(json, "ranks", Json::array()))
    attempt.ranks.push_back(RankFromJson(rank));
  for (const auto& [worker, sequence] : Get<std::map<std::string, int64_t>>(json, "reports")) {
    attempt.report_sequence[WorkerId(worker)] = sequence;
  }
  if (json.contains("resume_from")) attempt.resume_from = CheckpointFromJson(json["resume_from"]);
  if (json.contains("forced")) {
    attempt.forced = Failure{GetEnum(json["forced"], "failure_class", FailureClass::kNone),
                             Get<std::string>(json["forced"], "message")};
  }
  return attempt;
}

}  // namespace

std::string EncodeJob(const Job& job) {
  Json json = {{"job_id", job.id.value()},
               {"sequence", job.sequence},
               {"request_id", job.request_id},
               {"user", job.user},
               {"spec", ToJson(job.spec)},
               {"state", static_cast<int>(job.state)},
               {"reason", job.reason},
               {"epoch", job.epoch},
               {"retries", job.retries},
               {"stuck_attempts", job.stuck_attempts},
               {"waiting_for", Ids(job.waiting_for)},
               {"transitions", job.transitions},
               {"failure_class", static_cast<int>(job.failure_class)}};
  if (!job.tenant.empty()) json["tenant"] = job.tenant;
  if (job.preemptions > 0) json["preemptions"] = job.preemptions;
  if (!job.preempted_by.empty()) json["preempted_by"] = job.preempted_by.value();
  if (job.claims) json["claims"] = true;
  if (job.epoch_floor > 0) json["epoch_floor"] = job.epoch_floor;
  if (job.resizes > 0) json["resizes"] = job.resizes;
  if (job.resize_to > 0) json["resize_to"] = job.resize_to;
  Put(json, "submitted", job.submitted);
  Put(json, "started", job.started);
  Put(json, "finished", job.finished);
  Put(json, "run_time", job.run_time);
  if (job.forecast_done != job.run_time) Put(json, "forecast_done", job.forecast_done);
  if (job.newest_checkpoint.has_value()) json["newest_checkpoint"] = ToJson(*job.newest_checkpoint);
  if (job.source_checkpoint.has_value()) json["source_checkpoint"] = ToJson(*job.source_checkpoint);
  if (job.attempt.has_value()) json["attempt"] = ToJson(*job.attempt);
  return Dump(json);
}

absl::StatusOr<Job> DecodeJob(absl::string_view text) {
  return Decode<Job>(text, [](const Json& json) {
    Job job;
    job.id = JobId(Get<std::string>(json, "job_id"));
    job.sequence = Get<int64_t>(json, "sequence");
    job.request_id = Get<std::string>(json, "request_id");
    job.user = Get<std::string>(json, "user");
    job.tenant = Get<std::string>(json, "tenant");
    job.spec = SpecFromJson(Get<Json>(json, "spec", Json::object()));
    job.state = GetEnum(json, "state", JobState::kQueued);
    job.reason = Get<std::string>(json, "reason");
    job.epoch = Get<int64_t>(json, "epoch");
    job.epoch_floor = Get<int64_t>(json, "epoch_floor");
    job.retries = Get<int>(json, "retries");
    job.stuck_attempts = Get<int>(json, "stuck_attempts");
    job.waiting_for = GetIds(json, "waiting_for");
    job.transitions = Get<int64_t>(json, "transitions");
    job.failure_class = GetEnum(json, "failure_class", FailureClass::kNone);
    job.preemptions = Get<int>(json, "preemptions");
    job.preempted_by = JobId(Get<std::string>(json, "preempted_by"));
    job.claims = Get<bool>(json, "claims");
    job.resizes = Get<int>(json, "resizes");
    job.resize_to = Get<int>(json, "resize_to");
    job.submitted = GetTime(json, "submitted");
    job.started = GetTime(json, "started");
    job.finished = GetTime(json, "finished");
    job.run_time = absl::Nanoseconds(Get<int64_t>(json, "run_time"));
    job.forecast_done =
        json.contains("forecast_done") ? GetDuration(json, "forecast_done") : job.run_time;
    if (json.contains("newest_checkpoint"))
      job.newest_checkpoint = CheckpointFromJson(json["newest_checkpoint"]);
    if (json.contains("source_checkpoint"))
      job.source_checkpoint = CheckpointFromJson(json["source_checkpoint"]);
    if (json.contains("attempt")) job.attempt = AttemptFromJson(json["attempt"]);
    return job;
  });
}

std::string EncodeWorker(const Worker& worker) {
  Json json = {{"name", worker.name.value()},
               {"incarnation", worker.incarnation},
               {"host", worker.host},
               {"fabric_host", worker.fabric_host},
               {"version", worker.version},
               {"http_address", worker.http_address},
               {"declared_dead", worker.declared_dead},
               {"nvlink_domain", worker.nvlink_domain},
               {"rack", worker.rack},
               {"cordoned", worker.cordoned},
               {"draining", worker.draining},
               {"cordon_reason", worker.cordon_reason}};
  Put(json, "last_seen", worker.last_seen);
  for (const Slot& slot : worker.slots) {
    json["slots"].push_back(
        {{"index", slot.index}, {"kind", slot.kind}, {"memory_bytes", slot.memory_bytes}});
  }
  return Dump(json);
}

absl::StatusOr<Worker> DecodeWorker(absl::string_view text) {
  return Decode<Worker>(text, [](const Json& json) {
    Worker worker;
    worker.name = WorkerId(Get<std::string>(json, "name"));
    worker.incarnation = Get<std::string>(json, "incarnation");
    worker.host = Get<std::string>(json, "host");
    worker.fabric_host = Get<std::string>(json, "fabric_host");
    worker.version = Get<std::string>(json, "version");
    worker.http_address = Get<std::string>(json, "http_address");
    worker.declared_dead = Get<bool>(json, "declared_dead");
    worker.nvlink_domain = Get<std::string>(json, "nvlink_domain");
    worker.rack = Get<std::string>(json, "rack");
    worker.cordoned = Get<bool>(json, "cordoned");
    worker.draining = Get<bool>(json, "draining");
    worker.cordon_reason = Get<std::string>(json, "cordon_reason");
    worker.last_seen = GetTime(json, "last_seen");
    for (const Json& slot : Get<Json>(json, "slots", Json::array())) {
      worker.slots.push_back({Get<int>(slot, "index"), Get<std::string>(slot, "kind"),
                              Get<int64_t>(slot, "memory_bytes")});
    }
    return worker;
  });
}

std::string EncodeQueue(const QueueRecord& queue) {
  Json json = {{"name", queue.name}, {"weight", queue.weight}, {"used", queue.used}};
  if (queue.quota_gpus.has_value()) json["quota_gpus"] = *queue.quota_gpus;
  if (queue.max_gpus.has_value()) json["max_gpus"] = *queue.max_gpus;
  if (queue.max_jobs.has_value()) json["max_jobs"] = *queue.max_jobs;
  return Dump(json);
}

absl::StatusOr<QueueRecord> DecodeQueue(absl::string_view text) {
  return Decode<QueueRecord>(text, [](const Json& json) {
    QueueRecord queue;
    queue.name = Get<std::string>(json, "name");
    queue.weight = Get<double>(json, "weight", 1);
    queue.used = Get<std::map<std::string, double>>(json, "used");
    if (json.contains("quota_gpus")) queue.quota_gpus = Get<int>(json, "quota_gpus");
    if (json.contains("max_gpus")) queue.max_gpus = Get<int>(json, "max_gpus");
    if (json.contains("max_jobs")) queue.max_jobs = Get<int>(json, "max_jobs");
    return queue;
  });
}

}  // namespace ll
