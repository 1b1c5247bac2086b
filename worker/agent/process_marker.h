// Finding and ending processes by a mark in their environment.
//
// A process group ends with the processes that stayed in it; a mark in the environment is inherited
// by everything a trainer ever started, also after setsid() and after the agent itself was killed.
// Marks hold the agent's random incarnation, so no other process can carry one by chance, and a
// process id that was given out anew carries none.
#pragma once

#include <sys/types.h>

#include "absl/strings/string_view.h"

namespace ll {

// The environment variable: "INCARNATION/JOB/EPOCH/RANK/".
inline constexpr char kMarkName[] = "LL_RANK_MARK";

// Sends SIGKILL to every process of this user, other than the caller, whose mark starts with
// `prefix` (not empty), until a look finds none or the deadline has passed. Returns how many
// processes were signalled. `wait_ms` 0 looks once and waits for nobody.
int KillMarked(absl::string_view prefix, int wait_ms);

// A descriptor of the process that becomes readable at its end; -1 with errno set. (glibc's own
// declaration lacks C linkage in the oldest supported version.)
int PidfdOpen(pid_t pid);

}  // namespace ll
