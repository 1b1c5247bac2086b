// The agent's state on its way into the program that is executed in its place, and out of it.
#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "worker/agent/agent.h"
#include "worker/agent/reexec.h"

namespace ll {
namespace {

std::string JobStoreOf(const AgentOptions& options) {
  return options.job_store.empty() ? absl::StrCat(options.work_dir, "/jobs") : options.job_store;
}

absl::Status Differs(const char* flag, const std::string& expected, const std::string& found) {
  return MakeFieldError({flag, absl::StrCat(expected, ", as the running agent has it"), found,
                         "restart the agent instead"},
                        absl::StatusCode::kFailedPrecondition);
}

bool HasSlot(const AgentOptions& options, int index) {
  return std::any_of(options.slots.begin(), options.slots.end(),
                     [&](const v1::Slot& slot) { return slot.index() == index; });
}

}  // namespace

absl::Status CheckAgentState(const v1::AgentState& state, const AgentOptions& options) {
  if (state.format() != kAgentStateFormat) {
    return MakeFieldError({"format", absl::StrCat(kAgentStateFormat), absl::StrCat(state.format()),
                           "restart the agent instead"},
                          absl::StatusCode::kFailedPrecondition);
  }
  if (state.name() != options.name) return Differs("name", state.name(), options.name);
  if (state.work_dir() != options.work_dir)
    return Differs("work-dir", state.work_dir(), options.work_dir);
  // Where gangs have written, they go on writing.
  if (!state.gangs().empty() && state.job_store() != JobStoreOf(options))
    return Differs("job-store", state.job_store(), JobStoreOf(options));
  for (const v1::KeptGang& gang : state.gangs()) {
    for (const v1::KeptRank& rank : gang.ranks()) {
      if (!rank.has_process() || HasSlot(options, rank.slot())) continue;
      return Differs(
          "cpu-slots, gpus",
          absl::StrCat("slot ", rank.slot(), ", on which ", gang.order().job_id(), " runs"),
          absl::StrCat(options.slots.size(), " other slots"));
    }
  }
  return absl::OkStatus();
}

v1::AgentState Agent::Handover() const {
  v1::AgentState state;
  state.set_format(kAgentStateFormat);
  state.set_version(LL_VERSION);
  state.set_name(options_.name);
  state.set_work_dir(options_.work_dir);
  state.set_job_store(setup_.job_store);
  state.set_http_address(options_.http_address);
  state.set_incarnation(setup_.incarnation);
  state.set_highest_term(orders_.highest_term());
  state.set_lock_fd(lock_ == nullptr ? -1 : lock_->fd);
  state.set_reexecs(reexecs_);
  state.set_welcomed(ever_welcomed_);
  state.set_lease_ns(absl::ToInt64Nanoseconds(lease_.length()));
  state.set_last_contact_ns(absl::ToInt64Nanoseconds(lease_.last()));
  state.set_heartbeat_sequence(heartbeat_sequence_);
  for (const auto& [key, gang] : gangs_) *state.add_gangs() = gang->Handover();
  return state;
}

absl::Status Agent::Adopt(const v1::AgentState& state) {
  LL_RETURN_IF_ERROR(CheckAgentState(state, options_));
  if (fcntl(state.lock_fd(), F_SETFD, FD_CLOEXEC) != 0)
    return ErrnoStatus(errno, "cannot go on with the lock of", options_.work_dir);
  lock_ = std::make_shared<HostLock>(state.lock_fd());
  setup_.incarnation = state.incarnation();
  LL_RETURN_IF_ERROR(orders_.AcceptTerm(state.highest_term()));
  reexecs_ = state.reexecs();
  ever_welcomed_ = state.welcomed();
  lease_.set_length(absl::Nanoseconds(state.lease_ns()));
  lease_.Contact(absl::Nanoseconds(state.last_contact_ns()));
  heartbeat_sequence_ = state.heartbeat_sequence();
  int ranks = 0;
  for (const v1::KeptGang& kept : state.gangs()) {
    LL_ASSIGN_OR_RETURN(std::unique_ptr<Gang> gang, Gang::Adopt(setup_, clock_, kept));
    ranks += static_cast<int>(gang->BusySlots().size());
    Keep(std::move(gang));
  }
  LL_LOG(kInfo) << "goes on in the place of version " << state.version() << ": "
                << state.gangs_size() << " gangs, " << ranks << " running ranks";
  return SaveNotes();
}

}  // namespace ll
