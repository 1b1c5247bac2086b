// Whether this host's jobs could use a path that an operator registers.
#pragma once

#include "proto/workers.pb.h"
#include "worker/agent/roots.h"

namespace ll {

// Looks at names and sizes, not at contents: a model has a config.json, and every weight file that
// it names is there; a token file holds whole tokens. The trainer checks the rest when it loads.
v1::PathChecked CheckRegisteredPath(const Roots& roots, const v1::CheckPath& check);

}  // namespace ll
