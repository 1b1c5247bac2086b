// What a child process may touch of the file system, by Landlock (Linux 5.13), and as whom it runs.
// Made before fork, put on between fork and exec.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace ll {

struct Sandbox {
  // Files and folders with all beneath them, by their real paths; one that is not there is left
  // out.
  std::vector<std::string> read;   // and run
  std::vector<std::string> write;  // and read
};

struct UserIdentity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // all of them
};

// NotFound (field "trainer-user"): there is no such account.
absl::StatusOr<UserIdentity> FindUser(const std::string& name);

// The kernel's version of Landlock; 0: it has none, or it is switched off.
int LandlockVersion();

// The kernel's rules for a Sandbox. Movable; closes its descriptor.
class SandboxRules {
 public:
  // Unimplemented where LandlockVersion() is 0.
  static absl::StatusOr<SandboxRules> Make(const Sandbox& sandbox);
  SandboxRules(SandboxRules&& other) noexcept;
  SandboxRules& operator=(SandboxRules&& other) noexcept;
  ~SandboxRules();
  int fd() const { return fd_; }

 private:
  explicit SandboxRules(int fd) : fd_(fd) {}
  int fd_ = -1;
};

// For the child, before exec: async-signal-safe. 0 or an errno. There is no way back.
int EnterSandbox(int rules_fd);
int BecomeUser(const UserIdentity& user);

}  // namespace ll
