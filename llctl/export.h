// llctl export
#pragma once

#include "llctl/session.h"

namespace ll {

void AddExportCommand(CLI::App& app, Action& chosen);

}  // namespace ll
