// ll-coordinator pki init|issue|join-token, ll-coordinator audit verify: for administrators on the
// coordinator's host.
#pragma once

namespace ll {

// `argv` begins with the command's own name. Exit codes: 0 done, 1 it failed (audit verify: a line
// is broken), 2 usage.
int RunPkiCommand(int argc, char** argv);
int RunAuditCommand(int argc, char** argv);

}  // namespace ll
