// Which files of the host a job may name. Thread-safe functions.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/job.pb.h"

namespace ll {

// Name -> folder with every symbolic link resolved. Empty: every path that the agent's user can
// read.
using Roots = std::map<std::string, std::string>;

// Adds "NAME=DIR". Errors (InvalidArgument, field "root"): no '=', a name twice, not a folder.
absl::Status AddRoot(absl::string_view text, Roots& roots);

// The path with links resolved, if it lies beneath a root. `path` is absolute, or "NAME/rest" with
// a root's name. Links and ".." are resolved before the check, so neither leads out. Errors carry
// `field`: NotFound, PermissionDenied.
absl::StatusOr<std::string> ResolveBeneath(const Roots& roots, absl::string_view field,
                                           const std::string& path);

// Opens such a file for reading without waiting for it (a FIFO has no reader's end to wait for
// here); the caller closes it. The kernel walks from the root's folder and follows no link
// (openat2, RESOLVE_BENEATH): a link that is put in place of a folder after the check is refused
// (PermissionDenied). With no roots every file of the host can be opened.
absl::StatusOr<int> OpenBeneath(const Roots& roots, absl::string_view field,
                                const std::string& path);

// Resolves every path key of the spec in place. With no roots the spec stays as it is.
absl::Status ResolveSpecPaths(const Roots& roots, v1::JobSpec& spec);

}  // namespace ll
