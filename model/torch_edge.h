// Where torch's exceptions become absl::Status: no exception leaves this project's libraries.
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace ll {

// Whether `what`, an error's text, is lack of memory that torch has no type of its own for: of the
// host's allocator, of a GPU's driver (pinned memory, a kernel's stack), of cuBLAS or of NCCL.
// Inline because libll_cuda.so needs it too.
inline bool SaysOutOfMemory(absl::string_view what) {
  return absl::StrContains(what, "DefaultCPUAllocator") ||
         absl::StrContains(what, "not enough memory") || absl::StrContains(what, "out of memory") ||
         absl::StrContains(what, "STATUS_ALLOC_FAILED");
}

// Runs `work` and turns what torch throws into a Status: lack of memory is ResourceExhausted, the
// rest Internal with torch's first line (its backtrace is of no use to the reader).
absl::Status TorchTry(const std::function<absl::Status()>& work);

}  // namespace ll
