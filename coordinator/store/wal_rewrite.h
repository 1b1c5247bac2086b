// Makes a write-ahead log mean on the disk what it means to who reads it now.
//
// After a sync has failed, the kernel shows pages that are not on the disk and never will be: it
// has given them up, and the next sync says OK. SQLite's recovery would take such frames for good,
// the coordinator would add its commits behind them, and a power cut would take back everything
// from the gap on. Written once more they are dirty again, and the next sync is honest.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace ll {

// Writes the log of the database `path` over itself and syncs it; nothing where there is none.
// Before the database is opened. `vfs` as for sqlite3_open_v2.
absl::Status RewriteWal(const std::string& path, const char* vfs);

}  // namespace ll
