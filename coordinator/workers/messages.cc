#include "coordinator/workers/messages.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "coordinator/runtime/telemetry.h"

namespace ll {
namespace {

constexpr int kProtocolVersion = 1;
constexpr int kMaxSlots = 1024;
constexpr int kMaxHeldGangs = 1024;
constexpr int kMaxRanks = 4096;
// Of all gangs that an agent holds: more than its slots could have been given.
constexpr int kMaxHeldRanks = 65'536;
// Of what stands in records and in every answer.
constexpr size_t kMaxTextBytes = 256, kMaxMessageBytes = 4096;

absl::Status CheckName(absl::string_view field, const std::string& name) {
  constexpr char kAllowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  if (!name.empty() && name.size() <= 64 && name.find_first_not_of(kAllowed) == std::string::npos) {
    return absl::OkStatus();
  }
  return MakeFieldError({field, "1 to 64 letters, digits, '.', '_' or '-'",
                         absl::StrCat("\"", name.substr(0, 80), "\"")});
}

absl::Status CheckText(absl::string_view field, const std::string& text, size_t most) {
  const bool plain = std::none_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_iscntrl(static_cast<unsigned char>(c));
  });
  if (plain && text.size() <= most) return absl::OkStatus();
  return MakeFieldError({field, absl::StrCat("at most ", most, " bytes without control characters"),
                         OneLine(text.substr(0, 80))});
}

// What a newer agent may tell is as good as nothing.
FailureClass ClassOf(v1::FailureClass told) {
  return v1::FailureClass_IsValid(told) ? static_cast<FailureClass>(told) : FailureClass::kNone;
}

RankExit ExitFromProto(const v1::ExitReport& exit) {
  RankExit out;
  out.code = exit.exit_code();
  out.signal = exit.signal();
  out.ordered = exit.ordered();
  out.lost = exit.lost();
  out.failure_class = ClassOf(exit.failure_class());
  out.message = std::string(CutText(exit.message(), kMaxMessageBytes));
  if (exit.has_caused_by_rank()) out.caused_by = std::max(-1, exit.caused_by_rank());
  return out;
}

std::string ResultOf(const v1::ExitReport& exit) {
  return exit.has_result() ? exit.result().SerializeAsString() : std::string();
}

// A job that starts from another's checkpoint: the trainer gets it as its adapter, or, to train
// every weight, as its model.
void StartFrom(const Checkpoint& source, v1::JobSpec& spec) {
  if (spec.kind() == "train" && spec.method() == "full") {
    spec.set_model(source.path);
    spec.clear_model_config();
  } else {
    spec.set_adapter(source.path);
  }
}

struct ToMessage {
  const SchedulerOptions& options;
  v1::CoordinatorMessage& out;

  void operator()(const WelcomeOrder& order) const {
    v1::Welcome* welcome = out.mutable_welcome();
    welcome->set_lease_seconds(absl::ToDoubleSeconds(options.lease));
    welcome->set_heartbeat_seconds(absl::ToDoubleSeconds(options.heartbeat));
    for (const Verdict& verdict : order.verdicts) {
      v1::Verdict* v = welcome->add_verdicts();
      v->set_job_id(verdict.job.value());
      v->set_epoch(verdict.epoch);
      v->set_keep(verdict.keep);
      v->set_report_sequence(verdict.report_sequence);
    }
  }
  void operator()(const RejectHelloOrder&) const {}
  void operator()(const StartGangOrder& order) const {
    v1::StartGang* start = out.mutable_start();
    start->set_job_id(order.job.value());
    start->set_epoch(order.epoch);
    start->mutable_spec()->ParseFromString(order.payload->resolved_spec);
    if (order.source.has_value()) StartFrom(*order.source, *start->mutable_spec());
    // Jobs may share a URI; each has a folder of its own below it.
    if (start->spec().has_checkpoint_uri()) {
      start->mutable_spec()->set_checkpoint_uri(absl::StrCat(
          absl::StripSuffix(start->spec().checkpoint_uri(), "/"), "/", order.job.value()));
    }
    start->set_world_size(order.world_size);
    for (const RankPlace& place : order.ranks) {
      v1::RankPlace* p = start->add_ranks();
      p->set_rank(place.rank);
      p->set_slot(place.slot);
    }
    start->set_nonce(order.nonce);
    if (!order.resume_from.has_value()) return;
    start->set_resume_from(order.resume_from->path);
    start->set_resume_manifest_sha256(order.resume_from->manifest_sha256);
    start->set_first_step(order.resume_from->step);
  }
  void operator()(const StopGangOrder& order) const {
    v1::StopGang* stop = out.mutable_stop();
    stop->set_job_id(order.job.value());
    stop->set_epoch(order.epoch);
    stop->set_checkpoint(order.checkpoint);
    stop->set_grace_seconds(absl::ToDoubleSeconds(order.grace));
    stop->set_reason(order.reason);
  }
  void operator()(const RendezvousOrder& order) const {
    v1::RendezvousOrder* rendezvous = out.mutable_rendezvous();
    rendezvous->set_job_id(order.job.value());
    rendezvous->set_epoch(order.epoch);
    rendezvous->set_address(order.address);
  }
  void operator()(const ReleaseGangOrder& order) const {
    v1::ReleaseGang* release = out.mutable_release();
    release->set_job_id(order.job.value());
    release->set_epoch(order.epoch);
  }
  void operator()(const ReportAckOrder& order) const {
    v1::ReportAck* ack = out.mutable_report_ack();
    ack->set_job_id(order.job.value());
    ack->set_epoch(order.epoch);
    ack->set_sequence(order.sequence);
  }
};

}  // namespace

absl::StatusOr<AgentHelloEvent> HelloFromProto(const v1::Hello& hello, uint64_t session) {
  if (hello.protocol_version() != kProtocolVersion) {
    return MakeFieldError(
        {"protocol_version", absl::StrCat(kProtocolVersion), absl::StrCat(hello.protocol_version()),
         "run ll-worker and ll-coordinator of one version"},
        absl::StatusCode::kFailedPrecondition);
  }
  LL_RETURN_IF_ERROR(CheckName("name", hello.worker()));
  LL_RETURN_IF_ERROR(CheckName("incarnation", hello.incarnation()));
  if (hello.slots_size() > kMaxSlots) {
    return MakeFieldError(
        {"slots", absl::StrCat("at most ", kMaxSlots), absl::StrCat(hello.slots_size())});
  }
  if (hello.gangs_size() > kMaxHeldGangs) {
    return MakeFieldError(
        {"gangs", absl::StrCat("at most ", kMaxHeldGangs), absl::StrCat(hello.gangs_size())});
  }
  AgentHelloEvent out;
  out.session = session;
  out.worker = WorkerId(hello.worker());
  out.incarnation = hello.incarnation();
  out.host = hello.host();
  out.fabric_host = hello.fabric_host();
  out.version = hello.version();
  out.http_address = hello.http_address();
  for (const auto& [field, text] :
       {std::make_pair("host", &hello.host()), std::make_pair("fabric_host", &hello.fabric_host()),
        std::make_pair("version", &hello.version()),
        std::make_pair("http_address", &hello.http_address())})
    LL_RETURN_IF_ERROR(CheckText(field, *text, kMaxTextBytes));
  for (const auto& [field, label] : {std::make_pair("nvlink_domain", &hello.nvlink_domain()),
                                     std::make_pair("rack", &hello.rack())}) {
    if (!label->empty()) LL_RETURN_IF_ERROR(CheckName(field, *label));
  }
  out.nvlink_domain = hello.nvlink_domain();
  out.rack = hello.rack();
  for (const v1::Slot& slot : hello.slots()) {
    if (slot.index() < 0 || slot.memory_bytes() < 0) {
      return MakeFieldError(
          {"slots", "an index and a size that are not negative", "a negative one"});
    }
    LL_RETURN_IF_ERROR(CheckText("slots", slot.kind(), kMaxTextBytes));
    out.slots.push_back({slot.index(), slot.kind(), slot.memory_bytes()});
  }
  int ranks = 0;
  for (const v1::HeldGang& gang : hello.gangs()) {
    ranks += gang.ranks_size();
    if (ranks > kMaxHeldRanks)
      return MakeFieldError({"ranks", absl::StrCat("at most ", kMaxHeldRanks), "more"});
    if (!LooksLikeJobId(gang.job_id()) || gang.epoch() < 1) {
      return MakeFieldError({"gangs", "job ids and epochs from 1", "something else"});
    }
    HeldGang held{JobId(gang.job_id()), gang.epoch(), {}};
    for (const v1::RankState& rank : gang.ranks()) {
      if (rank.rank() < 0 || rank.rank() >= kMaxRanks)
        return MakeFieldError({"rank", "0 to 4095", absl::StrCat(rank.rank())});
      held.ranks.push_back({rank.rank(), rank.slot(), rank.exited(), ExitFromProto(rank.exit()),
                            ResultOf(rank.exit())});
    }
    out.gangs.push_back(std::move(held));
  }
  return out;
}

absl::StatusOr<ReportEvent> ReportFromProto(const v1::Report& report, const WorkerId& worker,
                                            uint64_t session) {
  ReportEvent out;
  out.worker = worker;
  out.session = session;
  if (!LooksLikeJobId(report.job_id()))
    return MakeFieldError({"job_id", "a job id", "something else"});
  out.job = JobId(report.job_id());
  out.epoch = report.epoch();
  out.rank = report.rank();
  out.sequence = report.sequence();
  switch (report.what_case()) {
    case v1::Report::kStarted:
      out.fact = StartedFact{};
      return out;
    case v1::Report::kRendezvous:
      LL_RETURN_IF_ERROR(CheckText("address", report.rendezvous().address(), kMaxTextBytes));
      out.fact = RendezvousFact{report.rendezvous().address()};
      return out;
    case v1::Report::kTraining:
      out.fact = TrainingFact{report.training().step()};
      return out;
    case v1::Report::kCheckpoint:
      LL_RETURN_IF_ERROR(CheckText("path", report.checkpoint().path(), kMaxMessageBytes));
      LL_RETURN_IF_ERROR(
          CheckText("manifest_sha256", report.checkpoint().manifest_sha256(), kMaxTextBytes));
      out.fact = CheckpointFact{report.checkpoint().step(), report.checkpoint().path(),
                                report.checkpoint().manifest_sha256()};
      return out;
    case v1::Report::kExit:
      out.fact = ExitFact{ExitFromProto(report.exit()), ResultOf(report.exit())};
      return out;
    case v1::Report::kRefused:
      out.fact = RefusedFact{{ClassOf(report.refused().failure_class()),
                              std::string(CutText(report.refused().message(), kMaxMessageBytes))},
                             report.refused().leaving()};
      return out;
    case v1::Report::WHAT_NOT_SET:
      break;
  }
  return MakeFieldError({"report", "a fact", "none"});
}

std::vector<v1::SlotLoad> LoadsFromProto(const v1::Heartbeat& heartbeat) {
  const auto& all = heartbeat.loads();
  return {all.begin(), all.begin() + std::min(all.size(), kMaxSlots)};
}

v1::CoordinatorMessage OrderToProto(const Send& send, const SchedulerOptions& options) {
  v1::CoordinatorMessage out;
  std::visit(ToMessage{options, out}, send.order);
  return out;
}

}  // namespace ll
