// What the processes of all daemons begin with.
#pragma once

#include <signal.h>

#include <initializer_list>

namespace ll {

// To be called once the flags are read and before any thread starts: every thread inherits what is
// set here, as do child processes the limit.
// - No core dump is written: it would hold tokens and keys.
// - SIGTERM, SIGINT and `more` are blocked, so that no thread is interrupted by them; the caller
//   waits for the returned set where it wants them (sigtimedwait, signalfd).
// - SIGPIPE is ignored: a peer that hangs up is an error of that call.
sigset_t BeginDaemon(std::initializer_list<int> more = {});

}  // namespace ll
