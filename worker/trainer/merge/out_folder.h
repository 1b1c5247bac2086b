// The folder a merge or a copy writes to, checked against mistakes that would cost data.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/new_folder.h"

namespace ll {

// `inputs` are files and folders that must survive: an output that is one of them or holds one is
// refused; so is, with `overwrite`, an existing folder that holds no model, and a disk with less
// than `bytes` free.
absl::StatusOr<NewFolder> OpenOutFolder(const std::string& field, const std::string& path,
                                        bool overwrite, const std::vector<std::string>& inputs,
                                        int64_t bytes);

// A full disk is the host's fault, not lack of memory.
absl::Status DiskError(absl::Status status);

}  // namespace ll
