// The embedded store: one SQLite file, DATA_DIR/ll.db, in WAL mode with synchronous=FULL.
//
// The data folder belongs to one coordinator at a time (flock on DATA_DIR/lock) and must not lie on
// a network file system, where neither locks nor WAL's shared memory can be trusted.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "coordinator/store/store.h"

namespace ll {

// Makes the folder (0700) where it is missing, opens or creates the database, checks it and brings
// its schema up to date. Errors name the folder: Unavailable when another coordinator holds it,
// FailedPrecondition for a network file system, another program's file or a newer schema, DataLoss
// for a damaged one.
absl::StatusOr<std::unique_ptr<Store>> OpenSqliteStore(const std::string& data_dir);

// Everything at one moment, through SQLite's backup API, beside a coordinator that goes on writing.
// NotFound: no store is there; FailedPrecondition: of another program or version.
absl::StatusOr<StoreSnapshot> ReadSqlite(const std::string& data_dir);

// Another disk than the system's, for the simulator.
struct SqliteDisk {
  const char* vfs = nullptr;  // name of a registered sqlite3_vfs; null: SQLite's own
  std::function<absl::Status()> sync_folder;  // makes the entries of the database's folder durable
};
// As above, for the one file; without the folder's lock and the look at its file system.
absl::StatusOr<std::unique_ptr<Store>> OpenSqliteStore(const SqliteDisk& disk,
                                                       const std::string& path);

// Whether statfs's f_type names a network file system.
bool IsNetworkFileSystem(uint64_t f_type);

}  // namespace ll
