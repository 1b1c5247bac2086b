// `ll-worker join`: a certificate for this host's agent, by a token of `ll-coordinator pki
// join-token`. The key is made here and never leaves.
#pragma once

namespace ll {

// `argv` begins with "join". Exit codes: 0 DIR holds worker.key, worker.crt and ca.crt; 1 it
// failed; 2 usage; 6 the token was not taken.
int RunJoinCommand(int argc, char** argv);

}  // namespace ll
