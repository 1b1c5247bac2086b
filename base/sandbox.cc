#include "base/sandbox.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"

namespace ll {
namespace {

// Later than this distribution's header.
constexpr uint64_t kAccessTruncate = 1ull << 14;  // version 3

constexpr uint64_t kRead =
    LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr uint64_t kWrite = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
                            LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |
                            LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |
                            LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM;
constexpr uint64_t kNever = LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK;
constexpr uint64_t kOfFiles = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE |
                              LANDLOCK_ACCESS_FS_WRITE_FILE | kAccessTruncate;

uint64_t WriteAccess(int version) {
  return kWrite | (version >= 2 ? LANDLOCK_ACCESS_FS_REFER : 0) |
         (version >= 3 ? kAccessTruncate : 0);
}

// One that is not there needs no rule: what is made there later is for the folder above to allow.
absl::Status AddRule(int rules, const std::string& path, uint64_t access) {
  const int fd = open(path.c_str(), O_PATH | O_CLOEXEC);
  if (fd < 0) return absl::OkStatus();
  struct stat st {};
  fstat(fd, &st);
  landlock_path_beneath_attr rule{};
  rule.allowed_access = S_ISDIR(st.st_mode) ? access : access & kOfFiles;
  rule.parent_fd = fd;
  const long result = syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
  const int error = errno;
  close(fd);
  return result == 0 ? absl::OkStatus() : ErrnoStatus(error, "cannot allow", path);
}

}  // namespace

absl::StatusOr<UserIdentity> FindUser(const std::string& name) {
  passwd entry{};
  passwd* found = nullptr;
  char buffer[16384];
  if (getpwnam_r(name.c_str(), &entry, buffer, sizeof buffer, &found) != 0 || found == nullptr) {
    return FieldStatus(absl::StatusCode::kNotFound, "trainer-user",
                       absl::StrCat("there is no account ", OneLine(name)));
  }
  UserIdentity user{found->pw_uid, found->pw_gid, std::vector<gid_t>(256)};
  int count = static_cast<int>(user.groups.size());
  if (getgrouplist(name.c_str(), user.gid, user.groups.data(), &count) < 0) count = 0;
  user.groups.resize(static_cast<size_t>(count));
  return user;
}

int LandlockVersion() {
  const long version =
      syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  return static_cast<int>(std::max(version, 0l));
}

absl::StatusOr<SandboxRules> SandboxRules::Make(const Sandbox& sandbox) {
  const int version = LandlockVersion();
  if (version == 0) return absl::UnimplementedError("this kernel has no Landlock");
  landlock_ruleset_attr attributes{};
  attributes.handled_access_fs = kRead | WriteAccess(version) | kNever;
  const long fd =
      syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes.handled_access_fs, 0);
  if (fd < 0) return ErrnoStatus(errno, "cannot make", "Landlock rules");
  SandboxRules rules(static_cast<int>(fd));
  fcntl(rules.fd_, F_SETFD, FD_CLOEXEC);
  absl::Status status;
  for (const std::string& path : sandbox.read) status.Update(AddRule(rules.fd_, path, kRead));
  for (const std::string& path : sandbox.write)
    status.Update(AddRule(rules.fd_, path, kRead | WriteAccess(version)));
  if (!status.ok()) return status;
  return rules;
}

SandboxRules::SandboxRules(SandboxRules&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
SandboxRules& SandboxRules::operator=(SandboxRules&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}
SandboxRules::~SandboxRules() {
  if (fd_ >= 0) close(fd_);
}

int EnterSandbox(int rules_fd) {
  // Without it a set-user-id program would get around the rules.
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return errno;
  return syscall(SYS_landlock_restrict_self, rules_fd, 0) == 0 ? 0 : errno;
}

int BecomeUser(const UserIdentity& user) {
  if (setgroups(user.groups.size(), user.groups.data()) != 0 || setgid(user.gid) != 0 ||
      setuid(user.uid) != 0)
    return errno;
  return 0;
}

}  // namespace ll
