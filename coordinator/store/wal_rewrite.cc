#include "coordinator/store/wal_rewrite.h"

#include <sqlite3.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace ll {
namespace {

// The largest page; SQLite never asks a VFS for more at once.
constexpr sqlite3_int64 kPieceBytes = 1 << 16;

absl::Status Failed(int code, const std::string& what) {
  if (code == SQLITE_FULL) return absl::ResourceExhaustedError(absl::StrCat(what, ": disk full"));
  return absl::InternalError(absl::StrCat(what, ": ", sqlite3_errstr(code)));
}

absl::Status RewriteFile(sqlite3_file* file, const std::string& name) {
  const sqlite3_io_methods& io = *file->pMethods;
  sqlite3_int64 size = 0;
  int code = io.xFileSize(file, &size);
  std::vector<char> piece(static_cast<size_t>(std::min(size, kPieceBytes)));
  for (sqlite3_int64 at = 0; at < size && code == SQLITE_OK; at += kPieceBytes) {
    const int count = static_cast<int>(std::min(size - at, kPieceBytes));
    code = io.xRead(file, piece.data(), count, at);
    if (code == SQLITE_OK) code = io.xWrite(file, piece.data(), count, at);
  }
  if (code == SQLITE_OK) code = io.xSync(file, SQLITE_SYNC_FULL);
  return code == SQLITE_OK ? absl::OkStatus() : Failed(code, absl::StrCat("rewrite ", name));
}

}  // namespace

absl::Status RewriteWal(const std::string& path, const char* vfs_name) {
  sqlite3_vfs* vfs = sqlite3_vfs_find(vfs_name);
  if (vfs == nullptr) return absl::InvalidArgumentError("no such sqlite3_vfs");
  const std::string log = absl::StrCat(path, "-wal");
  int there = 0;
  int code = vfs->xAccess(vfs, log.c_str(), SQLITE_ACCESS_EXISTS, &there);
  if (code != SQLITE_OK) return Failed(code, absl::StrCat("look for ", log));
  if (there == 0) return absl::OkStatus();
  // The names of a database's files are given to a VFS in SQLite's own form.
  struct FreeName {
    void operator()(const char* name) const { sqlite3_free_filename(const_cast<char*>(name)); }
  };
  const std::unique_ptr<const char, FreeName> name(sqlite3_create_filename(
      path.c_str(), absl::StrCat(path, "-journal").c_str(), log.c_str(), 0, nullptr));
  if (name == nullptr) return absl::InternalError("out of memory");
  std::vector<std::max_align_t> memory(
      static_cast<size_t>(vfs->szOsFile) / sizeof(std::max_align_t) + 1);
  auto* file = reinterpret_cast<sqlite3_file*>(memory.data());
  code = vfs->xOpen(vfs, sqlite3_filename_wal(name.get()), file,
                    SQLITE_OPEN_READWRITE | SQLITE_OPEN_WAL, nullptr);
  if (code != SQLITE_OK) return Failed(code, absl::StrCat("open ", log));
  absl::Status status = RewriteFile(file, log);
  file->pMethods->xClose(file);
  return status;
}

}  // namespace ll
