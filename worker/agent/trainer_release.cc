#include "worker/agent/trainer_release.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/string_view.h"
#include "base/release_mark.h"

namespace ll {

std::optional<std::string> TrainerRelease(const std::string& path) {
  constexpr size_t kLongest = 32;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  const absl::Cleanup close_it = [fd] { close(fd); };
  struct stat st;
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0) return std::nullopt;
  const size_t size = static_cast<size_t>(st.st_size);
  void* const mapped = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (mapped == MAP_FAILED) return std::nullopt;
  const absl::Cleanup unmap = [mapped, size] { munmap(mapped, size); };
  const absl::string_view bytes(static_cast<const char*>(mapped), size);
  const absl::string_view mark = kTrainerReleaseMark;
  const size_t at = bytes.find(mark);
  if (at == absl::string_view::npos) return std::nullopt;
  const absl::string_view rest = bytes.substr(at + mark.size(), kLongest);
  const size_t end = rest.find('\0');
  if (end == absl::string_view::npos) return std::nullopt;
  return std::string(rest.substr(0, end));
}

}  // namespace ll
