// A small file that people change while the coordinator runs.
#pragma once

#include <sys/stat.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/clock.h"

namespace ll {

// Not thread-safe.
class WatchedFile {
 public:
  WatchedFile(std::string path, Clock& clock)
      : path_(std::move(path)), clock_(clock), stamp_(Stamp()) {}

  const std::string& path() const { return path_; }
  // True once after each change; looks at most once a second unless `at_once`. Never without a
  // path.
  bool Changed(bool at_once = false) {
    const absl::Duration now = clock_.Steady();
    if (path_.empty() || (now < next_look_ && !at_once)) return false;
    next_look_ = now + absl::Seconds(1);
    std::string stamp = Stamp();
    const bool changed = stamp != stamp_;
    stamp_ = std::move(stamp);
    return changed;
  }

 private:
  std::string Stamp() const {
    struct stat st;
    if (path_.empty() || stat(path_.c_str(), &st) != 0) return "missing";
    // Also of its owner and mode: one that could not be read is tried again when it can be.
    return absl::StrCat(st.st_ino, ":", st.st_size, ":", st.st_mtim.tv_sec, ":", st.st_mtim.tv_nsec,
                        ":", st.st_ctim.tv_sec, ":", st.st_ctim.tv_nsec);
  }

  const std::string path_;
  Clock& clock_;
  std::string stamp_;
  absl::Duration next_look_ = absl::ZeroDuration();
};

}  // namespace ll
