#include "worker/agent/gang.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/agent/spec_json.h"

namespace ll {
namespace {

// After a rank's end its last telemetry goes first; a coordinator that does not take it must not
// hold up the news.
constexpr absl::Duration kExitWaitsForEvents = absl::Seconds(5);
// How long a finished gang's remaining telemetry is offered.
constexpr absl::Duration kDrain = absl::Seconds(60);
// More than one agent process sends of a gang while its disk is full.
constexpr int64_t kReportsNotOnDisk = 1'000'000;
constexpr int kMaxWarnings = 100;  // per rank, of the agent's own

std::string OutDir(const GangSetup& setup, const v1::StartGang& order) {
  return absl::StrFormat("%s/%s/e%04d", setup.job_store, order.job_id(), order.epoch());
}

std::string EventsName(int rank) {
  return rank == 0 ? "events.jsonl" : absl::StrFormat("events-rank-%02d.jsonl", rank);
}

std::string LastLine(Files& files, const std::string& path) {
  const std::string tail =
      files.ReadAt(path, std::max<int64_t>(0, files.Size(path) - 4096), 4096).value_or("");
  const std::vector<absl::string_view> lines = absl::StrSplit(tail, '\n', absl::SkipWhitespace());
  return lines.empty() ? "" : std::string(lines.back().substr(0, 300));
}

}  // namespace

Gang::Rank::Rank(int rank_index, int slot_index, const std::string& out, Files& files)
    : rank(rank_index),
      slot(slot_index),
      events(files),
      events_cursor(absl::StrCat(out, "/", EventsName(rank_index)), v1::Telemetry::EVENTS, files),
      log_cursor(absl::StrFormat("%s/rank-%02d.log", out, rank_index), v1::Telemetry::LOG, files) {}

Gang::Gang(const GangSetup& setup, Clock& clock, v1::StartGang order, ReportJournal journal)
    : setup_(setup),
      clock_(clock),
      key_{order.job_id(), order.epoch()},
      order_(std::move(order)),
      out_(OutDir(setup, order_)),
      journal_(std::move(journal)) {
  for (const v1::RankPlace& place : order_.ranks()) {
    ranks_.push_back(std::make_unique<Rank>(place.rank(), place.slot(), out_, setup.host->files()));
  }
}

std::string Gang::NotesDir(const GangSetup& setup, const v1::StartGang& order) {
  return absl::StrFormat("%s/%s.e%04d", setup.state_dir, order.job_id(), order.epoch());
}

absl::StatusOr<std::unique_ptr<Gang>> Gang::Start(const GangSetup& setup, Clock& clock,
                                                  const v1::StartGang& order,
                                                  const v1::JobSpec& spec) {
  const std::string notes = NotesDir(setup, order);
  Files& files = setup.host->files();
  LL_RETURN_IF_ERROR(files.MakeDirs(notes));
  LL_RETURN_IF_ERROR(files.MakeDirs(OutDir(setup, order)));
  LL_RETURN_IF_ERROR(
      files.WriteAtomic(absl::StrCat(OutDir(setup, order), "/spec.json"), SpecToJson(spec)));
  // Only now is there a gang that the next agent process must account for.
  LL_RETURN_IF_ERROR(files.WriteAtomic(absl::StrCat(notes, "/order.json"),
                                       absl::StrCat(MessageToLine(order), "\n")));
  LL_ASSIGN_OR_RETURN(ReportJournal journal, ReportJournal::Open(notes, files));
  std::unique_ptr<Gang> gang(new Gang(setup, clock, order, std::move(journal)));
  for (auto& rank : gang->ranks_) {
    const absl::Status status = gang->StartRank(*rank, spec);
    if (!status.ok()) {
      gang->ranks_.clear();  // ends those that were started
      gang->RemoveNotes();
      return status;
    }
  }
  for (const auto& rank : gang->ranks_) {
    v1::Report report = gang->ReportOf(*rank);
    report.mutable_started()->set_pid(rank->process->pid());
    gang->journal_.Append(std::move(report));
  }
  return gang;
}

std::unique_ptr<Gang> Gang::Refused(const GangSetup& setup, Clock& clock,
                                    const v1::StartGang& order, v1::StartRefused refusal) {
  const std::string notes = NotesDir(setup, order);
  // Without notes (a full disk) the refusal lives in memory only, which is enough: nothing was
  // started.
  Files& files = setup.host->files();
  absl::Status noted = files.MakeDirs(notes);
  v1::StartGang no_ranks = order;
  no_ranks.clear_ranks();
  if (noted.ok()) {
    noted = files.WriteAtomic(absl::StrCat(notes, "/order.json"),
                              absl::StrCat(MessageToLine(no_ranks), "\n"));
  }
  auto journal = ReportJournal::Open(notes, files);
  if (!noted.ok() || !journal.ok()) journal = ReportJournal::Open("/nonexistent", files);
  std::unique_ptr<Gang> gang(new Gang(setup, clock, no_ranks, *std::move(journal)));
  v1::Report report;
  report.set_job_id(order.job_id());
  report.set_epoch(order.epoch());
  report.set_rank(order.ranks().empty() ? 0 : order.ranks(0).rank());
  *report.mutable_refused() = std::move(refusal);
  gang->journal_.Append(std::move(report));
  return gang;
}

absl::StatusOr<std::unique_ptr<Gang>> Gang::Reopen(const GangSetup& setup, Clock& clock,
                                                   const std::string& name) {
  const std::string notes = absl::StrCat(setup.state_dir, "/", name);
  Files& files = setup.host->files();
  LL_ASSIGN_OR_RETURN(std::string text, files.Read(absl::StrCat(notes, "/order.json")));
  v1::StartGang order;
  LL_RETURN_IF_ERROR(LineToMessage(text, order));
  LL_ASSIGN_OR_RETURN(ReportJournal journal, ReportJournal::Open(notes, files));
  std::unique_ptr<Gang> gang(new Gang(setup, clock, order, std::move(journal)));
  for (const v1::Report& report : gang->journal_.unacknowledged()) {
    for (auto& rank : gang->ranks_) {
      if (report.has_exit() && report.rank() == rank->rank) rank->exit = report.exit();
    }
  }
  // The coordinator may have seen later reports than those on disk, which was full; what it takes
  // for seen it does not hear.
  gang->journal_.SkipTo(gang->journal_.last_sequence() + kReportsNotOnDisk);
  for (auto& rank : gang->ranks_) {
    if (rank->exit) continue;
    v1::Report report = gang->ReportOf(*rank);
    report.mutable_exit()->set_signal(SIGKILL);
    report.mutable_exit()->set_lost(true);
    report.mutable_exit()->set_failure_class(v1::INFRASTRUCTURE);
    report.mutable_exit()->set_message(
        absl::StrCat("rank ", rank->rank, " ended with the worker's agent process"));
    rank->exit = report.exit();
    gang->journal_.Append(std::move(report));
  }
  gang->ended_at_ = clock.Steady();
  return gang;
}

absl::Status Gang::ConfineRank(RankCommand& command, const v1::JobSpec& spec) const {
  if (setup_.sandbox == nullptr) return absl::OkStatus();
  command.user = setup_.sandbox->user();
  // The attempt's folder is the trainer's; what the agent itself writes there it has opened or
  // made.
  if (command.user && chown(out_.c_str(), command.user->uid, command.user->gid) != 0)
    return ErrnoStatus(errno, "cannot give away", out_);
  LL_ASSIGN_OR_RETURN(command.sandbox, setup_.sandbox->RulesFor(spec, out_));
  return absl::OkStatus();
}

absl::Status Gang::StartRank(Rank& rank, const v1::JobSpec& spec) {
  RankCommand command;
  command.argv = {setup_.trainer,  "run",
                  "--spec",        absl::StrCat(out_, "/spec.json"),
                  "--out",         out_,
                  "--rank",        absl::StrCat(rank.rank),
                  "--world",       absl::StrCat(order_.world_size()),
                  "--epoch",       absl::StrCat(order_.epoch()),
                  "--nonce",       order_.nonce(),
                  "--listen-host", setup_.fabric_host};
  if (!order_.resume_from().empty()) {
    command.argv.insert(command.argv.end(), {"--resume-from", order_.resume_from()});
    if (!order_.resume_manifest_sha256().empty()) {
      command.argv.insert(command.argv.end(),
                          {"--resume-manifest", order_.resume_manifest_sha256()});
    }
  }
  command.environment = setup_.slot_environment(rank.slot);
  if (setup_.trainer_threads > 0) {
    command.argv.insert(command.argv.end(), {"--threads", absl::StrCat(setup_.trainer_threads)});
  }
  command.working_directory = out_;
  command.log_path = rank.log_cursor.path();
  command.mark =
      absl::StrCat(setup_.incarnation, "/", key_.job_id, "/", key_.epoch, "/", rank.rank, "/");
  LL_RETURN_IF_ERROR(ConfineRank(command, spec));
  LL_RETURN_IF_ERROR(rank.events.Open(rank.events_cursor.path()));
  LL_ASSIGN_OR_RETURN(rank.process, setup_.host->StartRank(command));
  LL_LOG(kInfo) << key_.ToString() << " rank " << rank.rank << " started on slot " << rank.slot
                << ", pid " << rank.process->pid();
  return absl::OkStatus();
}

bool Gang::running() const {
  for (const auto& rank : ranks_) {
    if (rank->process) return true;
  }
  return false;
}

std::vector<int> Gang::BusySlots() const {
  std::vector<int> out;
  for (const auto& rank : ranks_) {
    if (rank->process) out.push_back(rank->slot);
  }
  return out;
}

std::map<int, int> Gang::LiveRanks() const {
  std::map<int, int> out;
  for (const auto& rank : ranks_) {
    if (rank->process) out[rank->rank] = rank->slot;
  }
  return out;
}

void Gang::AddPollFds(std::vector<int>& fds) const {
  for (const auto& rank : ranks_) {
    if (!rank->process) continue;
    if (rank->process->events_fd() >= 0) fds.push_back(rank->process->events_fd());
    fds.push_back(rank->process->exit_fd());
  }
}

void Gang::Poll(absl::Duration now) {
  for (auto& rank : ranks_) {
    if (!rank->process) continue;
    // The end is looked for first: what the process wrote before it is then in the pipe when the
    // pipe is read.
    const std::optional<ExitStatus> status = rank->process->Poll();
    rank->process->ReadEvents([&](absl::string_view line) { HandleEvent(*rank, line); },
                              [&](int64_t length) {
                                Warn(*rank,
                                     absl::StrCat("an event of ", length, " bytes was dropped"));
                              });
    if (status) {
      rank->exited_at = now;
      OnExit(*rank, *status);
    } else {
      rank->process->Tick(now);
    }
  }
  if (!running() && !ended_at_) ended_at_ = now;
}

void Gang::Stop(absl::Duration now, absl::Duration grace, bool ordered, const std::string& reason) {
  for (auto& rank : ranks_) {
    if (!rank->process) continue;
    rank->ordered = rank->ordered || ordered;
    rank->stop_reason = reason;
    rank->process->Stop(now, grace);
  }
}

void Gang::Kill(bool ordered, const std::string& reason) {
  for (auto& rank : ranks_) {
    if (!rank->process) continue;
    rank->ordered = rank->ordered || ordered;
    rank->stop_reason = reason;
    rank->process->Kill();
  }
}

void Gang::SendRendezvous(const std::string& address) {
  nlohmann::json line = {{"rendezvous", address}};
  for (auto& rank : ranks_) {
    if (rank->rank == 0 || !rank->process || std::exchange(rank->knows_rendezvous, true)) continue;
    rank->process->SendControlLine(
        line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }
}

void Gang::Say(absl::string_view line) {
  for (auto& rank : ranks_) {
    if (rank->rank == 0 && rank->process)
      rank->process->SendControlLine(absl::StrCat("{\"say\":", line, "}"));
  }
}

v1::Report Gang::ReportOf(const Rank& rank) const {
  v1::Report report;
  report.set_job_id(key_.job_id);
  report.set_epoch(key_.epoch);
  report.set_rank(rank.rank);
  return report;
}

void Gang::WriteEvent(Rank& rank, absl::string_view line) {
  const absl::Status status = rank.events.Append(line);
  if (status.ok()) return;
  setup_.on_dropped_line();
  if (rank.warnings++ == 0) {
    LL_LOG(kWarning) << key_.ToString() << ": events are lost: " << status.message();
  }
}

void Gang::Warn(Rank& rank, const std::string& message) {
  setup_.on_dropped_line();
  if (++rank.warnings > kMaxWarnings) return;
  LL_LOG(kWarning) << key_.ToString() << " rank " << rank.rank << ": " << message;
  const std::string time =
      absl::FormatTime("%Y-%m-%d%ET%H:%M:%E6SZ", clock_.Now(), absl::UTCTimeZone());
  WriteEvent(rank, WarningEventLine(time, rank.rank, message));
}

void Gang::HandleEvent(Rank& rank, absl::string_view line) {
  const absl::StatusOr<TrainerEvent> event = ParseTrainerEvent(line);
  if (!event.ok()) {
    Warn(rank, absl::StrCat("a line that is no event was dropped (",
                            std::string(event.status().message()), "): ", line.substr(0, 200)));
    return;
  }
  WriteEvent(rank, absl::StrCat(line, "\n"));
  v1::Report report = ReportOf(rank);
  if (event->event == "rendezvous") {
    report.mutable_rendezvous()->set_address(event->address);
    journal_.Append(std::move(report));
    SendRendezvous(event->address);  // ranks of this host need not wait for the coordinator
  } else if (event->event == "checkpoint") {
    *report.mutable_checkpoint() = event->checkpoint;
    journal_.Append(std::move(report));
  } else if (event->event == "error") {
    rank.error = *event;
  } else if (event->event == "done") {
    rank.result = event->result;
  }
  const bool works =
      event->event == "step" ||
      (event->event == "phase" && (event->phase == "train" || event->phase == "eval" ||
                                   event->phase == "merge" || event->phase == "generate"));
  if (works && !std::exchange(rank.training, true)) {
    report = ReportOf(rank);
    report.mutable_training()->set_step(event->step);
    journal_.Append(std::move(report));
  }
  setup_.on_event(key_, rank.rank, *event);
}

void Gang::OnExit(Rank& rank, const ExitStatus& status) {
  v1::Report report = ReportOf(rank);
  v1::ExitReport& exit = *report.mutable_exit();
  exit.set_exit_code(status.exit_code);
  exit.set_signal(status.signal);
  exit.set_ordered(rank.ordered);
  if (rank.result) *exit.mutable_result() = *rank.result;
  if (rank.error.caused_by_rank) exit.set_caused_by_rank(*rank.error.caused_by_rank);
  std::string message = rank.error.message;
  if (status.signal != 0) {
    exit.set_failure_class(v1::INFRASTRUCTURE);
    if (!rank.stop_reason.empty()) {
      message = rank.stop_reason;
    } else if (message.empty()) {
      message =
          absl::StrCat("ended by signal ", status.signal, " (", strsignal(status.signal), ")");
    }
  } else if (status.exit_code != 0 && status.exit_code != 10) {
    exit.set_failure_class(FailureClassOfExitCode(status.exit_code));
    if (message.empty()) {
      const std::string last = LastLine(setup_.host->files(), rank.log_cursor.path());
      message = absl::StrCat("ended with exit code ", status.exit_code,
                             last.empty() ? "" : "; its last words: ", last);
    }
  }
  // The agent's own doing (it shuts down, nobody tells it to go on) is no fault of the host.
  exit.set_lost(!rank.stop_reason.empty() && !rank.ordered &&
                exit.failure_class() == v1::INFRASTRUCTURE);
  exit.set_message(message);
  LL_LOG(kInfo) << key_.ToString() << " rank " << rank.rank << " ended: exit code "
                << status.exit_code << ", signal " << status.signal << (message.empty() ? "" : ", ")
                << message;
  rank.exit = exit;
  rank.process.reset();
  rank.events.Close();
  journal_.Append(std::move(report));
}

v1::HeldGang Gang::Describe() const {
  v1::HeldGang out;
  out.set_job_id(key_.job_id);
  out.set_epoch(key_.epoch);
  for (const auto& rank : ranks_) {
    v1::RankState& state = *out.add_ranks();
    state.set_rank(rank->rank);
    state.set_slot(rank->slot);
    state.set_exited(!rank->process);
    if (rank->exit) *state.mutable_exit() = *rank->exit;
    state.set_events_offset(rank->events_cursor.acknowledged());
    state.set_log_offset(rank->log_cursor.acknowledged());
  }
  return out;
}

void Gang::Resume(const v1::Verdict* verdict, const std::vector<v1::TelemetryAck>& telemetry) {
  for (auto& rank : ranks_) {
    rank->events_cursor.Rewind(rank->events_cursor.acknowledged());
    rank->log_cursor.Rewind(rank->log_cursor.acknowledged());
    for (const v1::TelemetryAck& ack : telemetry) {
      if (ack.rank() != rank->rank) continue;
      (ack.stream() == v1::Telemetry::EVENTS ? rank->events_cursor : rank->log_cursor)
          .Rewind(ack.offset());
    }
  }
  sent_sequence_ = 0;
  if (verdict != nullptr) {
    journal_.Acknowledge(verdict->report_sequence());
    journal_.SkipTo(verdict->report_sequence());
  }
}

bool Gang::MayWait(const v1::Report& report, absl::Duration now) const {
  if (!report.has_exit()) return false;
  for (const auto& rank : ranks_) {
    if (rank->rank == report.rank()) {
      return now - rank->exited_at < kExitWaitsForEvents && !rank->events_cursor.AllSent();
    }
  }
  return false;
}

void Gang::Send(absl::Duration now, const Sender& send) {
  for (auto& rank : ranks_) {
    for (TelemetryCursor* cursor : {&rank->events_cursor, &rank->log_cursor}) {
      v1::AgentMessage message;
      v1::Telemetry& telemetry = *message.mutable_telemetry();
      telemetry.set_job_id(key_.job_id);
      telemetry.set_epoch(key_.epoch);
      telemetry.set_rank(rank->rank);
      cursor->Retry(now);
      while (cursor->Next(telemetry)) send(message);
    }
  }
  for (const v1::Report& report : journal_.unacknowledged()) {
    if (report.sequence() <= sent_sequence_) continue;
    if (MayWait(report, now)) return;  // later reports wait too: the order is part of the contract
    v1::AgentMessage message;
    *message.mutable_report() = report;
    send(std::move(message));
    sent_sequence_ = report.sequence();
  }
}

void Gang::AcknowledgeTelemetry(const v1::TelemetryAck& ack) {
  for (auto& rank : ranks_) {
    if (rank->rank != ack.rank()) continue;
    (ack.stream() == v1::Telemetry::EVENTS ? rank->events_cursor : rank->log_cursor)
        .Acknowledge(ack.offset());
  }
}

void Gang::Release(absl::Duration now) {
  if (!released_at_) released_at_ = now;
}

bool Gang::Forgettable(absl::Duration now) const {
  if (running() || !released_at_) return false;
  if (now - std::max(*released_at_, ended_at_.value_or(*released_at_)) > kDrain) return true;
  for (const auto& rank : ranks_) {
    if (!rank->events_cursor.AllAcknowledged() || !rank->log_cursor.AllAcknowledged()) return false;
  }
  return true;
}

void Gang::RemoveNotes() const {
  const absl::Status status = setup_.host->files().RemoveTree(NotesDir(setup_, order_));
  if (!status.ok()) {
    LL_LOG(kWarning) << "cannot remove the notes of " << key_.ToString() << ": "
                     << status.message();
  }
}

}  // namespace ll
