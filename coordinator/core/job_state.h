// The states of a job and the only table of the ways between them.
//
//                 1
//   (submitted) ────▶ BLOCKED ──────────┐ 3
//        │ 2                            ▼          4              5
//        └───────────────────────────▶ QUEUED ─────────▶ STARTING ────▶ RUNNING
//                                       ▲  ▲                 │ 6           │ 6
//                                    13 │  │ 11              └──────┬──────┘
//                                  RETRYING│                        ▼        8
//                                       ▲  │          7         FINISHING ───────▶ SUCCEEDED
//                                       └──┼────────────────────────┤  9
//                                          │                        └────────────▶ FAILED
//                                       PAUSED ◀──── PAUSING ◀── (STARTING, RUNNING)
//                                                12           10
//                 QUEUED ◀── PREEMPTING ◀── (STARTING, RUNNING)
//                         17             16
//   every state that is not an end ──▶ CANCELLED (nothing runs)  14
//                                  └─▶ CANCELLING (ranks run) ──▶ CANCELLED  15
//
//  1  Submit names jobs in `after` that have not succeeded yet.
//  2  Submit; nothing to wait for but slots.
//  3  The last job it waited for succeeded. (One of them failed or was cancelled: FAILED.)
//  4  Placement found slots for the whole gang; the epoch rises, every agent gets its StartGang.
//  5  Every rank reported that it trains.
//  6  The first rank ended, well or not, or a deadline ran out; the others end by themselves or are
//     being stopped. The attempt is over only when every rank's end is known.
//  7  It ended in a way that another may mend (lost host, crash, an agent's drain), within budget.
//  8  Every rank ended with exit code 0.
//  9  It failed for good: the class is never retried or the budget is used up.
// 10  Pause: every rank is told to checkpoint and stop. Without slots it goes straight to PAUSED.
// 11  Resume (to BLOCKED where a dependency is still open).
// 12  Every rank's end is known. (All ended with 0 first: SUCCEEDED; a failure that no resume can
//     mend: FAILED.)
// 13  The back-off is over.
// 14  Cancel of a job that holds no slots.
// 15  Every agent confirmed the end of its ranks, or its host was declared dead.
// 16  A more important job needs the slots, a worker of the gang is drained, or the gang changes
// its
//     size: every rank is told to checkpoint and stop.
// 17  Every rank's end is known: it waits for slots again and charges nothing to its budget. (All
//     ended with 0 first: SUCCEEDED; one failed: as from FINISHING; paused meanwhile: PAUSING.)
// 18  BLOCKED, QUEUED, RETRYING or PAUSED beyond its deadline: FAILED.
//
// Being headless (an agent of the gang is out of contact) is a condition beside the state.
#pragma once

#include "absl/strings/string_view.h"

namespace ll {

// Numbers are those of proto ll.v1.JobState and of the store: never renumber.
enum class JobState {
  kBlocked = 1,
  kQueued = 2,
  kStarting = 3,
  kRunning = 4,
  kFinishing = 5,
  kSucceeded = 6,
  kFailed = 7,
  kCancelled = 8,
  kPausing = 9,
  kPaused = 10,
  kPreempting = 11,
  kRetrying = 12,
  kCancelling = 13,
};

inline constexpr JobState kAllJobStates[] = {
    JobState::kBlocked,    JobState::kQueued,    JobState::kStarting,   JobState::kRunning,
    JobState::kFinishing,  JobState::kSucceeded, JobState::kFailed,     JobState::kCancelled,
    JobState::kPausing,    JobState::kPaused,    JobState::kPreempting, JobState::kRetrying,
    JobState::kCancelling,
};

// "QUEUED": the name users and the wire see.
absl::string_view JobStateName(JobState state);
// SUCCEEDED, FAILED, CANCELLED.
bool IsTerminal(JobState state);
// The states in which ranks of the current attempt may be running and so hold slots.
bool HoldsSlots(JobState state);
// Whether the table above has an edge between the two.
bool MayTransition(JobState from, JobState to);

// Why an attempt ended when it did not end well. Numbers are those of proto ll.v1.FailureClass.
enum class FailureClass {
  kNone = 0,
  kUser = 1,
  kInfrastructure = 2,
  kCapacity = 3,
  kOutOfMemory = 4,
  kNotANumber = 5,
};
// "out of memory": for sentences.
absl::string_view FailureClassName(FailureClass failure_class);

}  // namespace ll
