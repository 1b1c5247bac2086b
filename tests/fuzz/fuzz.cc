#include "tests/fuzz/fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace ll {

void CheckRefusal(const absl::Status& status) {
  const absl::string_view message = status.message();
  LL_CHECK_MSG(status.code() != absl::StatusCode::kInternal, "input was taken for a fault of ours");
  LL_CHECK_MSG(!message.empty() && message.size() < 4000, "an empty or endless message");
  for (const char c : message)
    LL_CHECK_MSG(static_cast<unsigned char>(c) >= ' ', "more than one line");
}

MemoryFile::MemoryFile(absl::string_view bytes) : fd_(memfd_create("fuzz", MFD_CLOEXEC)) {
  LL_CHECK(fd_ >= 0);
  LL_CHECK(write(fd_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  path_ = absl::StrCat("/proc/self/fd/", fd_);
}

MemoryFile::~MemoryFile() { close(fd_); }

}  // namespace ll
