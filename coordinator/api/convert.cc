#include "coordinator/api/convert.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "base/check.h"
#include "model/spec/spec_fields.h"

namespace ll {
namespace {
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Copies one field between a JobSpec and its message; one overload for each member type of
// SpecMember.
struct FromWire {
  const v1::JobSpec& wire;
  const FieldDescriptor* field;
  JobSpec& out;
  const Reflection& r() const { return *wire.GetReflection(); }

  void operator()(std::optional<std::string> JobSpec::*m) const {
    if (r().HasField(wire, field)) out.*m = r().GetString(wire, field);
  }
  void operator()(std::optional<int64_t> JobSpec::*m) const {
    if (r().HasField(wire, field)) out.*m = r().GetInt64(wire, field);
  }
  void operator()(std::optional<double> JobSpec::*m) const {
    if (r().HasField(wire, field)) out.*m = r().GetDouble(wire, field);
  }
  void operator()(std::optional<bool> JobSpec::*m) const {
    if (r().HasField(wire, field)) out.*m = r().GetBool(wire, field);
  }
  void operator()(std::vector<std::string> JobSpec::*m) const {
    for (int i = 0; i < r().FieldSize(wire, field); ++i)
      (out.*m).push_back(r().GetRepeatedString(wire, field, i));
  }
  void operator()(std::vector<int64_t> JobSpec::*m) const {
    for (int i = 0; i < r().FieldSize(wire, field); ++i)
      (out.*m).push_back(r().GetRepeatedInt64(wire, field, i));
  }
  void operator()(std::map<std::string, std::string> JobSpec::*m) const {
    for (const auto& [key, value] : wire.labels()) (out.*m)[key] = value;
  }
};

struct ToWire {
  const JobSpec& spec;
  const FieldDescriptor* field;
  v1::JobSpec& out;
  const Reflection& r() const { return *out.GetReflection(); }

  void operator()(std::optional<std::string> JobSpec::*m) const {
    if (spec.*m) r().SetString(&out, field, *(spec.*m));
  }
  void operator()(std::optional<int64_t> JobSpec::*m) const {
    if (spec.*m) r().SetInt64(&out, field, *(spec.*m));
  }
  void operator()(std::optional<double> JobSpec::*m) const {
    if (spec.*m) r().SetDouble(&out, field, *(spec.*m));
  }
  void operator()(std::optional<bool> JobSpec::*m) const {
    if (spec.*m) r().SetBool(&out, field, *(spec.*m));
  }
  void operator()(std::vector<std::string> JobSpec::*m) const {
    for (const std::string& item : spec.*m) r().AddString(&out, field, item);
  }
  void operator()(std::vector<int64_t> JobSpec::*m) const {
    for (int64_t item : spec.*m) r().AddInt64(&out, field, item);
  }
  void operator()(std::map<std::string, std::string> JobSpec::*m) const {
    for (const auto& [key, value] : spec.*m) (*out.mutable_labels())[key] = value;
  }
};

struct WireField {
  const FieldDescriptor* wire;
  const SpecField* field;
};

// Found by name once: looking eighty names up takes longer than copying what a spec gives.
const std::vector<WireField>& WireFields() {
  static const auto* fields = new std::vector<WireField>([] {
    std::vector<WireField> out;
    for (const SpecField& field : SpecFields()) {
      out.push_back({v1::JobSpec::descriptor()->FindFieldByName(field.name), &field});
      LL_CHECK_MSG(out.back().wire != nullptr, field.name.c_str());
    }
    return out;
  }());
  return *fields;
}

// The jobs that it waits for and starts from. Those of a schedule's run are not yet known when its
// spec is written.
void NameOthers(const CoreSpec& core, v1::JobSpec& out) {
  const auto fill = [](const std::vector<JobId>& ids, auto* list) {
    list->Clear();
    for (const JobId& id : ids) list->Add(std::string(id.value()));
  };
  fill(core.after, out.mutable_after());
  fill(core.after_any, out.mutable_after_any());
  if (!core.source.empty()) out.set_job(core.source.value());
}

void FillSummarySpec(const CoreSpec& core, v1::JobSpec* out) {
  if (!core.name.empty()) out->set_name(core.name);
  out->set_kind(core.kind);
  out->set_queue(core.queue);
  out->set_gpus(core.gpus);
  if (core.max_gpus > core.gpus) out->set_max_gpus(core.max_gpus);
  out->set_priority(core.priority);
  for (const auto& [key, value] : core.labels) (*out->mutable_labels())[key] = value;
}

void FillProgress(const Job& job, const StepFacts& newest, v1::Progress* out) {
  out->set_step(newest.step);
  out->set_max_steps(newest.max_steps);
  if (newest.max_steps == 0) {
    v1::JobSpec resolved;
    if (resolved.ParseFromString(job.payload->resolved_spec))
      out->set_max_steps(resolved.max_steps());
  }
  out->set_loss(newest.loss);
  out->set_grad_norm(newest.grad_norm);
  out->set_learning_rate(newest.learning_rate);
  out->set_tokens_per_second(newest.tokens_per_second);
  out->set_step_seconds(newest.step_seconds);
  out->set_tokens(newest.tokens);
  out->set_peak_bytes(newest.peak_bytes);
  if (newest.mfu.has_value()) out->set_mfu(*newest.mfu);
  *out->mutable_time() = ToTimestamp(newest.time);
  for (const auto& [phase, seconds] : newest.phases)
    (*out->mutable_phases()->mutable_fields())[phase].set_number_value(seconds);
}

void FillCheckpoint(const Checkpoint& checkpoint, v1::Checkpoint* out) {
  out->set_step(checkpoint.step);
  out->set_epoch(checkpoint.epoch);
  out->set_path(checkpoint.path);
  out->set_manifest_sha256(checkpoint.manifest_sha256);
  out->set_worker(checkpoint.worker);
}

}  // namespace

JobSpec SpecFromProto(const v1::JobSpec& wire) {
  JobSpec spec;
  for (const WireField& field : WireFields())
    std::visit(FromWire{wire, field.wire, spec}, field.field->member);
  return spec;
}

v1::JobSpec SpecToProto(const JobSpec& spec) {
  v1::JobSpec wire;
  for (const WireField& field : WireFields())
    std::visit(ToWire{spec, field.wire, wire}, field.field->member);
  return wire;
}

std::string SerializeDeterministic(const google::protobuf::MessageLite& message) {
  std::string out;
  google::protobuf::io::StringOutputStream stream(&out);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
  coded.Trim();
  return out;
}

google::protobuf::Timestamp ToTimestamp(absl::Time time) {
  google::protobuf::Timestamp out;
  const int64_t seconds = absl::ToUnixSeconds(time);
  out.set_seconds(seconds);
  out.set_nanos(
      static_cast<int32_t>((time - absl::FromUnixSeconds(seconds)) / absl::Nanoseconds(1)));
  return out;
}

v1::Job JobToProto(const Job& job, const std::optional<StepFacts>& newest, JobDetail detail) {
  v1::Job out;
  out.set_job_id(job.id.value());
  out.set_state(static_cast<v1::JobState>(job.state));
  const bool waits = job.state == JobState::kQueued && !job.wait_reason.empty();
  out.set_reason(waits ? job.wait_reason : job.reason);
  out.set_epoch(job.epoch);
  out.set_retries(job.retries);
  out.set_user(job.user);
  out.set_tenant(job.tenant);
  *out.mutable_submitted() = ToTimestamp(job.submitted);
  if (job.started != absl::InfinitePast()) *out.mutable_started() = ToTimestamp(job.started);
  if (job.finished != absl::InfinitePast()) *out.mutable_finished() = ToTimestamp(job.finished);
  if (newest.has_value()) FillProgress(job, *newest, out.mutable_progress());
  if (job.newest_checkpoint.has_value())
    FillCheckpoint(*job.newest_checkpoint, out.mutable_newest_checkpoint());
  if (job.attempt.has_value() && HoldsSlots(job.state)) {
    for (const Rank& rank : job.attempt->ranks) out.add_workers(rank.worker.value());
  }
  out.set_headless(job.headless);
  out.set_failure_class(static_cast<v1::FailureClass>(job.failure_class));
  out.set_request_id(job.request_id);
  if (detail == JobDetail::kSummary) {
    FillSummarySpec(job.spec, out.mutable_spec());
    return out;
  }
  out.mutable_spec()->ParseFromString(job.payload->spec);
  out.mutable_resolved_spec()->ParseFromString(job.payload->resolved_spec);
  for (v1::JobSpec* spec : {out.mutable_spec(), out.mutable_resolved_spec()})
    NameOthers(job.spec, *spec);
  if (!job.payload->forecast.empty())
    out.mutable_forecast()->ParseFromString(job.payload->forecast);
  if (!job.result.empty()) out.mutable_result()->ParseFromString(job.result);
  if (detail != JobDetail::kHistory) return out;
  for (const Transition& transition : job.history) {
    v1::Transition* t = out.add_history();
    *t->mutable_time() = ToTimestamp(transition.time);
    t->set_state(static_cast<v1::JobState>(transition.state));
    t->set_reason(transition.reason);
    t->set_epoch(transition.epoch);
  }
  return out;
}

v1::CheckpointRecord CheckpointToProto(const CheckpointFacts& facts, const std::string& kept) {
  v1::CheckpointRecord out;
  out.set_step(facts.step);
  out.set_epoch(facts.epoch);
  if (facts.written != absl::InfinitePast()) *out.mutable_written() = ToTimestamp(facts.written);
  out.set_size_bytes(facts.size_bytes);
  out.set_path(facts.path);
  out.set_manifest_sha256(facts.manifest_sha256);
  if (facts.loss.has_value()) out.set_loss(*facts.loss);
  out.set_copy_uri(facts.copy_uri);
  out.set_removed(facts.removed);
  out.set_kept(kept);
  return out;
}

v1::StepRecord StepToProto(const StepFacts& step) {
  v1::StepRecord out;
  out.set_step(step.step);
  out.set_epoch(step.epoch);
  out.set_loss(step.loss);
  out.set_grad_norm(step.grad_norm);
  out.set_learning_rate(step.learning_rate);
  out.set_tokens(step.tokens);
  out.set_step_seconds(step.step_seconds);
  out.set_tokens_per_second(step.tokens_per_second);
  if (step.mfu.has_value()) out.set_mfu(*step.mfu);
  out.set_peak_bytes(step.peak_bytes);
  *out.mutable_time() = ToTimestamp(step.time);
  for (const auto& [name, seconds] : step.phases) {
    (*out.mutable_phases()->mutable_fields())[name].set_number_value(seconds);
  }
  return out;
}

v1::Worker WorkerToProto(const Worker& worker, absl::Duration lease) {
  v1::Worker out;
  out.set_worker(worker.name.value());
  out.set_host(worker.host);
  out.set_connected(worker.connected && worker.silence <= lease);
  *out.mutable_last_seen() = ToTimestamp(worker.last_seen);
  for (const Slot& slot : worker.slots) {
    v1::Slot* s = out.add_slots();
    s->set_index(slot.index);
    s->set_kind(slot.kind);
    s->set_memory_bytes(slot.memory_bytes);
  }
  for (const auto& [slot, use] : worker.uses) {
    v1::SlotUse* u = out.add_uses();
    u->set_slot(slot);
    u->set_job_id(use.job.value());
    u->set_epoch(use.epoch);
    u->set_rank(use.rank);
  }
  out.set_version(worker.version);
  out.set_http_address(worker.http_address);
  out.set_cordoned(worker.cordoned);
  out.set_draining(worker.draining);
  out.set_cordon_reason(worker.cordon_reason);
  out.set_nvlink_domain(worker.nvlink_domain);
  out.set_rack(worker.rack);
  return out;
}

v1::Queue QueueToProto(const Queue& queue, double share) {
  v1::Queue out;
  const QueueRecord& record = queue.record;
  out.set_name(record.name);
  out.set_weight(record.weight);
  if (record.quota_gpus.has_value()) out.set_quota_gpus(*record.quota_gpus);
  if (record.max_gpus.has_value()) out.set_max_gpus(*record.max_gpus);
  if (record.max_jobs.has_value()) out.set_max_jobs(*record.max_jobs);
  out.set_held_gpus(queue.gpus);
  out.set_running_jobs(queue.jobs);
  out.set_waiting_jobs(static_cast<int>(queue.waiting.size()));
  out.set_share(share);
  return out;
}

}  // namespace ll
