#include "coordinator/core/job_state.h"

#include <cstdint>

namespace ll {
namespace {

constexpr uint32_t Bit(JobState s) { return 1u << static_cast<int>(s); }

// Where each state may go. Cancel is possible from every state that is not an end.
uint32_t Successors(JobState from) {
  using enum JobState;
  switch (from) {
    case kBlocked:
      return Bit(kQueued) | Bit(kPaused) | Bit(kFailed) | Bit(kCancelled);
    case kQueued:
      return Bit(kStarting) | Bit(kPaused) | Bit(kFailed) | Bit(kCancelled);
    case kStarting:
      return Bit(kRunning) | Bit(kFinishing) | Bit(kPausing) | Bit(kPreempting) | Bit(kCancelling);
    case kRunning:
      return Bit(kFinishing) | Bit(kPausing) | Bit(kPreempting) | Bit(kCancelling);
    case kFinishing:
      return Bit(kSucceeded) | Bit(kFailed) | Bit(kRetrying) | Bit(kCancelling);
    case kPausing:
      return Bit(kPaused) | Bit(kSucceeded) | Bit(kFailed) | Bit(kCancelling);
    case kPaused:
      return Bit(kQueued) | Bit(kBlocked) | Bit(kFailed) | Bit(kCancelled);
    case kRetrying:
      return Bit(kQueued) | Bit(kPaused) | Bit(kFailed) | Bit(kCancelled);
    case kCancelling:
      return Bit(kCancelled);
    case kPreempting:
      return Bit(kQueued) | Bit(kSucceeded) | Bit(kFailed) | Bit(kRetrying) | Bit(kPausing) |
             Bit(kCancelling);
    case kSucceeded:
    case kFailed:
    case kCancelled:
      return 0;
  }
  return 0;
}

}  // namespace

bool MayTransition(JobState from, JobState to) { return (Successors(from) & Bit(to)) != 0; }

absl::string_view JobStateName(JobState state) {
  switch (state) {
    case JobState::kBlocked:
      return "BLOCKED";
    case JobState::kQueued:
      return "QUEUED";
    case JobState::kStarting:
      return "STARTING";
    case JobState::kRunning:
      return "RUNNING";
    case JobState::kFinishing:
      return "FINISHING";
    case JobState::kSucceeded:
      return "SUCCEEDED";
    case JobState::kFailed:
      return "FAILED";
    case JobState::kCancelled:
      return "CANCELLED";
    case JobState::kPausing:
      return "PAUSING";
    case JobState::kPaused:
      return "PAUSED";
    case JobState::kPreempting:
      return "PREEMPTING";
    case JobState::kRetrying:
      return "RETRYING";
    case JobState::kCancelling:
      return "CANCELLING";
  }
  return "UNKNOWN";
}

bool IsTerminal(JobState state) {
  return state == JobState::kSucceeded || state == JobState::kFailed ||
         state == JobState::kCancelled;
}

bool HoldsSlots(JobState state) {
  return state == JobState::kStarting || state == JobState::kRunning ||
         state == JobState::kFinishing || state == JobState::kPausing ||
         state == JobState::kPreempting || state == JobState::kCancelling;
}

absl::string_view FailureClassName(FailureClass failure_class) {
  switch (failure_class) {
    case FailureClass::kNone:
      return "none";
    case FailureClass::kUser:
      return "user error";
    case FailureClass::kInfrastructure:
      return "infrastructure";
    case FailureClass::kCapacity:
      return "capacity";
    case FailureClass::kOutOfMemory:
      return "out of memory";
    case FailureClass::kNotANumber:
      return "not a number";
  }
  return "unknown";
}

}  // namespace ll
