// What a trainer may touch: of the environment the names below, of the files what its job needs.
//
// Writes: the attempt's folder, where a merge or copies of checkpoints go, shared memory, devices.
// Reads: where the agent has roots, those, the job store, the system's folders and the trainer's
// own libraries; an agent without roots lets jobs read what it can itself.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/sandbox.h"
#include "proto/job.pb.h"
#include "worker/agent/roots.h"

namespace ll {

enum class SandboxMode { kOff, kAuto, kRequired };

struct TrainerSandboxOptions {
  SandboxMode mode = SandboxMode::kAuto;
  std::string trainer;                  // absolute
  std::vector<std::string> extra_read;  // folders of libraries that are nowhere else named
  std::string user;                     // trainers run as this account; empty: the agent's own
};

// Immutable, thread-safe.
class TrainerSandbox {
 public:
  // Looks at the kernel and, where there are roots, at the libraries that the trainer loads.
  // Errors: kRequired and the kernel has no Landlock; an account that is not there, or that this
  // process may not become (FailedPrecondition, field "trainer-user").
  static absl::StatusOr<std::shared_ptr<const TrainerSandbox>> Make(
      const TrainerSandboxOptions& options, const Roots& roots, const std::string& job_store);

  // Null: the kernel has none, or it is switched off.
  absl::StatusOr<std::shared_ptr<const SandboxRules>> RulesFor(const v1::JobSpec& spec,
                                                               const std::string& out) const;
  const std::optional<UserIdentity>& user() const { return user_; }
  // For the log at the start: "Landlock 4: writes …", or why there is none.
  const std::string& description() const { return description_; }

 private:
  bool on_ = false;
  std::vector<std::string> read_;
  std::optional<UserIdentity> user_;
  std::string description_;
};

// The agent's variables that a trainer gets: what libraries and object stores are set up by, and
// nothing that is the agent's own, such as its token.
std::map<std::string, std::string> TrainerEnvironment();
bool IsTrainerVariable(const std::string& name);

// The folders of the shared libraries that the dynamic loader would load for `program`; it is not
// run. Empty where that cannot be told.
std::vector<std::string> LibraryFolders(const std::string& program);

}  // namespace ll
