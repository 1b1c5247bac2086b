// For tests: a real PostgreSQL server on a socket in a folder of its own, once a process.
#pragma once

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/file.h"
#include "base/temp_dir.h"
#include "coordinator/store/pg_connection.h"

namespace ll {

class PostgresForTest {
 public:
  // Started with the first call; ends with the process.
  static PostgresForTest& Get() {
    static auto* server = new Owner();
    return *server->it;
  }

  std::string uri() const { return absl::StrCat("postgresql://ll@/postgres?host=", dir_.path()); }
  std::unique_ptr<PgConnection> Connect() const {
    auto connection = PgConnection::Open(uri(), "test", absl::Seconds(5));
    LL_CHECK_MSG(connection.ok(), std::string(connection.status().message()).c_str());
    return *std::move(connection);
  }
  void Do(const std::string& sql) const {
    const absl::Status status = Connect()->Execute(sql, absl::Seconds(5));
    LL_CHECK_MSG(status.ok(), std::string(status.message()).c_str());
  }
  void Wipe() const { Do("DROP SCHEMA IF EXISTS ll CASCADE"); }

  // As `pg_ctl stop -m immediate`, and back again.
  void Kill() {
    kill(server_, SIGQUIT);
    waitpid(server_, nullptr, 0);
    server_ = -1;
  }
  void Start() {
    server_ = Run({"postgres", "-D", dir_.path() + "/data", "-k", dir_.path(), "-c",
                   "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=40", "-c",
                   "shared_buffers=16MB"});
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (!PgConnection::Open(uri(), "test", absl::Seconds(1)).ok()) {
      LL_CHECK_MSG(absl::Now() < deadline, "PostgreSQL does not start");
      absl::SleepFor(absl::Milliseconds(20));
    }
  }

 private:
  struct Owner {
    Owner() : it(new PostgresForTest()) {
      made = it;
      atexit([] { delete made; });
    }
    PostgresForTest* it;
    static inline PostgresForTest* made = nullptr;
  };

  PostgresForTest() {
    // PostgreSQL refuses to run as root.
    if (geteuid() == 0) {
      user_ = getpwnam("postgres");
      LL_CHECK_MSG(user_ != nullptr, "no user postgres: install postgresql-15");
      LL_CHECK(chown(dir_.path().c_str(), user_->pw_uid, user_->pw_gid) == 0);
    }
    int status = 0;
    const pid_t initdb = Run({"initdb", "-D", dir_.path() + "/data", "-U", "ll", "-A", "trust",
                              "-N", "--no-locale", "-E", "UTF8", "--no-instructions"});
    LL_CHECK(waitpid(initdb, &status, 0) == initdb && status == 0);
    Start();
  }
  ~PostgresForTest() {
    if (server_ > 0) Kill();
  }

  pid_t Run(std::vector<std::string> argv) const {
    argv[0] = absl::StrCat("/usr/lib/postgresql/15/bin/", argv[0]);
    const pid_t child = fork();
    LL_CHECK(child >= 0);
    if (child > 0) return child;
    prctl(PR_SET_PDEATHSIG, SIGQUIT);
    if (user_ != nullptr &&
        (setgroups(0, nullptr) != 0 || setgid(user_->pw_gid) != 0 || setuid(user_->pw_uid) != 0)) {
      _exit(1);
    }
    prctl(PR_SET_PDEATHSIG, SIGQUIT);  // cleared by setuid
    const int log = open((dir_.path() + "/log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(log, 1);
    dup2(log, 2);
    if (chdir(dir_.path().c_str()) != 0) _exit(1);
    std::vector<char*> raw;
    for (std::string& a : argv) raw.push_back(a.data());
    raw.push_back(nullptr);
    execv(raw[0], raw.data());
    _exit(127);
  }

  const TempDir dir_;
  const passwd* user_ = nullptr;
  pid_t server_ = -1;
};

}  // namespace ll
