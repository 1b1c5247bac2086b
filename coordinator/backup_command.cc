#include "coordinator/backup_command.h"

#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/ids.h"
#include "base/status_macros.h"
#include "coordinator/options.h"
#include "coordinator/store/backup.h"
#include "coordinator/store/pg_connection.h"
#include "coordinator/store/postgres_store.h"
#include "coordinator/store/sqlite_store.h"
#include "coordinator/store_access.h"
#include "nlohmann/json.hpp"
#include "rpc/config_file.h"

namespace ll {
namespace {

struct Flags {
  std::string to, from;
  std::string data_dir, store = "sqlite";
  bool replace = false;
};

absl::Status CheckStore(const Flags& flags) {
  if (IsPostgres(flags.store)) return CheckPostgresUri(flags.store);
  if (flags.store == "sqlite") return absl::OkStatus();
  return MakeFieldError({"store", "sqlite or postgresql://…", "something else"});
}

// Before the store is read, which may take a while.
absl::Status CheckTarget(const std::string& to) {
  constexpr char kHint[] = "give --to a file in a folder that is there";
  if (IsDirectory(to)) {
    return MakeFieldError({"to", "a file", absl::StrCat("the folder ", to), kHint});
  }
  const std::filesystem::path parent = std::filesystem::path(to).parent_path();
  if (parent.empty() || IsDirectory(parent)) return absl::OkStatus();
  return MakeFieldError({"to", "a file in a folder that is there", to, kHint});
}

// What backups that were killed have left beside `to`: a write is over long before.
void RemoveLeftovers(const std::string& to) {
  constexpr time_t kOldSeconds = 3600;
  const std::filesystem::path path(to);
  const std::string folder = path.has_parent_path() ? path.parent_path().string() : ".";
  const std::string prefix = path.filename().string() + ".tmp-";
  for (const std::string& name : ListDir(folder).value_or(std::vector<std::string>())) {
    const std::string leftover = absl::StrCat(folder, "/", name);
    struct stat st;
    if (absl::StartsWith(name, prefix) && stat(leftover.c_str(), &st) == 0 && S_ISREG(st.st_mode) &&
        absl::ToTimeT(RealClock().Now()) - st.st_mtime > kOldSeconds)
      unlink(leftover.c_str());
  }
}

absl::Status MakeBackup(const Flags& flags) {
  LL_RETURN_IF_ERROR(CheckStore(flags));
  LL_RETURN_IF_ERROR(CheckTarget(flags.to));
  Backup backup;
  backup.created = RealClock().Now();
  if (IsPostgres(flags.store)) {
    LL_ASSIGN_OR_RETURN(backup.snapshot, ReadPostgres(flags.store));
    backup.store = "postgresql";
  } else {
    absl::StatusOr<StoreSnapshot> snapshot = ReadSqlite(flags.data_dir);
    if (!snapshot.ok()) {
      // Also a reader of SQLite's log writes beside it.
      const bool may_write = access(flags.data_dir.c_str(), W_OK) == 0;
      return may_write
                 ? snapshot.status()
                 : FieldStatus(snapshot.status().code(), "data-dir", snapshot.status().message(),
                               "run it as the coordinator's account, on a disk that can be "
                               "written");
    }
    backup.snapshot = *std::move(snapshot);
    backup.store = "sqlite";
  }
  const std::string text = EncodeBackup(backup);
  // What cannot be read back is no backup.
  LL_RETURN_IF_ERROR(DecodeBackup(text).status());
  RemoveLeftovers(flags.to);
  LL_RETURN_IF_ERROR(WriteFileAtomic(flags.to, text, 0600));
  // For ll_backup_*; a backup that was made counts also where this cannot be written.
  const nlohmann::ordered_json note = {
      {"time", absl::FormatTime(absl::RFC3339_sec, backup.created, absl::UTCTimeZone())},
      {"bytes", text.size()}};
  const absl::Status noted =
      MakeDirs(flags.data_dir).ok()
          ? WriteFileAtomic(absl::StrCat(flags.data_dir, "/backup.json"), note.dump() + "\n", 0644)
          : absl::OkStatus();
  if (!noted.ok())
    std::cerr << "ll-coordinator: the metrics will not know: " << noted.message() << "\n";
  std::printf("%s: %d jobs, term %lld, %zu bytes\n", flags.to.c_str(),
              static_cast<int>(backup.snapshot.state.jobs.size()),
              static_cast<long long>(backup.snapshot.term), text.size());
  return absl::OkStatus();
}

// With PostgreSQL: as the leader, so that no coordinator works on what is replaced.
absl::StatusOr<std::unique_ptr<Store>> OpenTarget(const Flags& flags,
                                                  std::unique_ptr<LeaseTable>& lease) {
  if (!IsPostgres(flags.store)) return OpenSqliteStore(flags.data_dir);
  const PostgresOptions options{.uri = flags.store, .holder = RandomHex(SystemRandom(), 16)};
  lease = MakePostgresLease(options, absl::Minutes(2));  // longer than Replace may take
  LL_ASSIGN_OR_RETURN(const LeaseAnswer answer, lease->Ask("ll-coordinator restore"));
  if (!answer.mine) {
    return FieldStatus(absl::StatusCode::kUnavailable, "store",
                       absl::StrCat("the coordinator at ", answer.address, " is running on it"),
                       "stop all coordinators first");
  }
  return OpenPostgresStore(options);
}

absl::Status RestoreInto(Store& store, const Backup& backup, const StoredState& state,
                         bool replace) {
  LL_ASSIGN_OR_RETURN(int64_t term, store.RaiseTerm(backup.snapshot.term));
  LL_ASSIGN_OR_RETURN(const StoredState there, store.LoadAll());
  if (!replace && !IsEmpty(there)) {
    return FieldStatus(
        absl::StatusCode::kFailedPrecondition, "replace",
        absl::StrCat("the store is not empty: it holds ", there.jobs.size(), " jobs"),
        "take a backup of it, then give --replace");
  }
  LL_RETURN_IF_ERROR(store.Replace(RecordsOf(state), RealClock().Now()));
  std::printf("restored %d jobs of the backup of %s; term %lld\n",
              static_cast<int>(state.jobs.size()),
              absl::FormatTime(absl::RFC3339_sec, backup.created, absl::UTCTimeZone()).c_str(),
              static_cast<long long>(term));
  return absl::OkStatus();
}

// What root has written belongs to the folder's owner, as whom the coordinator runs.
void GiveToOwner(const std::string& data_dir) {
  struct stat folder;
  if (geteuid() != 0 || stat(data_dir.c_str(), &folder) != 0) return;
  for (const char* name : {"ll.db", "ll.db-wal", "ll.db-shm", "lock"}) {
    const std::string path = absl::StrCat(data_dir, "/", name);
    if (lchown(path.c_str(), folder.st_uid, folder.st_gid) != 0 && errno != ENOENT)
      std::cerr << "ll-coordinator: cannot give " << path
                << " to the owner of its folder: " << std::strerror(errno) << "\n";
  }
}

absl::Status RestoreBackup(const Flags& flags) {
  LL_RETURN_IF_ERROR(CheckStore(flags));
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(flags.from));
  absl::StatusOr<Backup> backup = DecodeBackup(text);
  if (!backup.ok()) return Annotate(backup.status(), flags.from);
  LL_ASSIGN_OR_RETURN(const StoredState state, Restored(*backup, RealClock().Now()));
  std::unique_ptr<LeaseTable> lease;
  absl::Status done;
  {
    LL_ASSIGN_OR_RETURN(auto store, OpenTarget(flags, lease));
    done = RestoreInto(*store, *backup, state, flags.replace);
  }
  if (lease != nullptr) lease->Release();
  if (!IsPostgres(flags.store)) GiveToOwner(flags.data_dir);
  return done;
}

int Fail(const absl::Status& status) {
  std::cerr << "ll-coordinator: " << status.message() << "\n";
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}

}  // namespace

void NameBackupCommands(CLI::App& app) {
  app.add_subcommand("backup",
                     "Write everything in the store to a file, beside a coordinator that runs");
  app.add_subcommand(
      "restore",
      "Fill a store from a backup while no coordinator runs on it. Attempts that were under way "
      "begin anew from their newest checkpoints; agents end what the backup does not know");
}

std::optional<int> RunBackupCommand(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  if (command != "backup" && command != "restore") return std::nullopt;
  Flags flags;
  flags.data_dir = DefaultCoordinatorDataDir();
  CLI::App app{"Copies a coordinator's store, and puts the copy back."};
  app.name("ll-coordinator");
  app.require_subcommand(1);
  NameBackupCommands(app);
  CLI::App* backup = app.get_subcommand("backup");
  backup->add_option("--to", flags.to, "The file; replaced once the backup is whole")->required();
  CLI::App* restore = app.get_subcommand("restore");
  restore->add_option("--from", flags.from, "A file that backup wrote")->required();
  restore->add_flag("--replace", flags.replace,
                    "Also where the store is not empty: all of it goes");
  for (CLI::App* sub : {backup, restore}) {
    sub->add_option("--data-dir", flags.data_dir, "As of ll-coordinator")->capture_default_str();
    sub->add_option("--store", flags.store, "As of ll-coordinator")->capture_default_str();
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::cerr << "ll-coordinator: " << error.what() << "; see ll-coordinator " << command
              << " --help\n";
    return 2;
  }
  const absl::Status done = command == "backup" ? MakeBackup(flags) : RestoreBackup(flags);
  return done.ok() ? 0 : Fail(done);
}

}  // namespace ll
