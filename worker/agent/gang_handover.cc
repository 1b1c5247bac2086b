// A gang on its way into the program that is executed in the agent's place, and out of it.
#include <signal.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/agent/gang.h"

namespace ll {
namespace {

int64_t Nanoseconds(absl::Duration time) { return absl::ToInt64Nanoseconds(time); }

v1::KeptProcess ToProto(const RankHandover& from) {
  v1::KeptProcess out;
  out.set_pid(from.pid);
  out.set_events_fd(from.events_fd);
  out.set_control_fd(from.control_fd);
  out.set_unwritten(from.unwritten);
  out.set_half_line(from.half_line);
  out.set_dropped_bytes(from.dropped_bytes);
  if (from.kill_at) out.set_kill_at_ns(Nanoseconds(*from.kill_at));
  out.set_mark(from.mark);
  return out;
}

RankHandover FromProto(const v1::KeptProcess& from) {
  RankHandover out{from.pid(),       from.events_fd(),     from.control_fd(), from.unwritten(),
                   from.half_line(), from.dropped_bytes(), std::nullopt,      from.mark()};
  if (from.has_kill_at_ns()) {
    // The largest number of nanoseconds stands for a kill that was sent.
    out.kill_at = from.kill_at_ns() == Nanoseconds(absl::InfiniteDuration())
                      ? absl::InfiniteDuration()
                      : absl::Nanoseconds(from.kill_at_ns());
  }
  return out;
}

}  // namespace

v1::KeptGang Gang::Handover() const {
  v1::KeptGang out;
  *out.mutable_order() = order_;
  out.set_last_sequence(journal_.last_sequence());
  for (const v1::Report& report : journal_.unacknowledged()) *out.add_unacknowledged() = report;
  if (released_at_) out.set_released_at_ns(Nanoseconds(*released_at_));
  if (ended_at_) out.set_ended_at_ns(Nanoseconds(*ended_at_));
  for (const auto& rank : ranks_) {
    v1::KeptRank& kept = *out.add_ranks();
    kept.set_rank(rank->rank);
    kept.set_slot(rank->slot);
    if (rank->process) *kept.mutable_process() = ToProto(rank->process->Handover());
    if (rank->exit) *kept.mutable_exit() = *rank->exit;
    kept.set_events_acknowledged(rank->events_cursor.acknowledged());
    kept.set_log_acknowledged(rank->log_cursor.acknowledged());
    kept.set_training(rank->training);
    kept.set_knows_rendezvous(rank->knows_rendezvous);
    kept.set_ordered(rank->ordered);
    kept.set_stop_reason(rank->stop_reason);
    kept.set_error_message(rank->error.message);
    if (rank->error.caused_by_rank) kept.set_error_caused_by_rank(*rank->error.caused_by_rank);
    if (rank->result) *kept.mutable_result() = *rank->result;
    kept.set_warnings(rank->warnings);
    kept.set_exited_at_ns(Nanoseconds(rank->exited_at));
  }
  return out;
}

absl::Status Gang::AdoptRank(Rank& rank, const v1::KeptRank& kept) {
  if (kept.has_exit()) rank.exit = kept.exit();
  rank.events_cursor.Rewind(kept.events_acknowledged());
  rank.log_cursor.Rewind(kept.log_acknowledged());
  rank.training = kept.training();
  rank.knows_rendezvous = kept.knows_rendezvous();
  rank.ordered = kept.ordered();
  rank.stop_reason = kept.stop_reason();
  rank.error.message = kept.error_message();
  if (kept.has_error_caused_by_rank()) rank.error.caused_by_rank = kept.error_caused_by_rank();
  if (kept.has_result()) rank.result = kept.result();
  rank.warnings = kept.warnings();
  rank.exited_at = absl::Nanoseconds(kept.exited_at_ns());
  if (!kept.has_process()) return absl::OkStatus();
  auto process = setup_.host->AdoptRank(FromProto(kept.process()));
  if (absl::IsNotFound(process.status())) {
    // Something between the two programs (a wrapper that waits for its children) took its status.
    v1::Report report = ReportOf(rank);
    report.mutable_exit()->set_signal(SIGKILL);
    report.mutable_exit()->set_lost(true);
    report.mutable_exit()->set_ordered(rank.ordered);
    report.mutable_exit()->set_failure_class(v1::INFRASTRUCTURE);
    report.mutable_exit()->set_message(
        absl::StrCat("rank ", rank.rank,
                     " ended while another program took the agent's place, and how is lost"));
    rank.exit = report.exit();
    journal_.Append(std::move(report));
    return absl::OkStatus();
  }
  LL_RETURN_IF_ERROR(process.status());
  rank.process = *std::move(process);
  // A disk that does not let it be opened loses events, each of which is counted, not the rank.
  rank.events.Open(rank.events_cursor.path()).IgnoreError();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Gang>> Gang::Adopt(const GangSetup& setup, Clock& clock,
                                                  const v1::KeptGang& kept) {
  std::unique_ptr<Gang> gang(
      new Gang(setup, clock, kept.order(),
               ReportJournal::Continue(NotesDir(setup, kept.order()),
                                       {kept.unacknowledged().begin(), kept.unacknowledged().end()},
                                       kept.last_sequence(), setup.host->files())));
  if (kept.has_released_at_ns()) gang->released_at_ = absl::Nanoseconds(kept.released_at_ns());
  if (kept.has_ended_at_ns()) gang->ended_at_ = absl::Nanoseconds(kept.ended_at_ns());
  for (const auto& rank : gang->ranks_) {
    for (const v1::KeptRank& from : kept.ranks()) {
      if (from.rank() == rank->rank) LL_RETURN_IF_ERROR(gang->AdoptRank(*rank, from));
    }
  }
  return gang;
}

}  // namespace ll
