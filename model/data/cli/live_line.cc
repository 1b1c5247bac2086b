#include "model/data/cli/live_line.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/counted.h"
#include "base/format.h"

namespace ll {
namespace {
constexpr absl::Duration kLivePeriod = absl::Milliseconds(200), kPlainPeriod = absl::Seconds(30);
}  // namespace

LiveLine::LiveLine(const DataTalk& talk) : talk_(talk), start_(absl::Now()), shown_(start_) {}

LiveLine::~LiveLine() { Clear(); }

void LiveLine::Clear() {
  if (visible_) talk_.out << "\r\x1b[K" << std::flush;
  visible_ = false;
}

void LiveLine::Show(const PackProgress& p) {
  const absl::Time now = absl::Now();
  if (first_bytes_ < 0) first_bytes_ = p.bytes_done;
  if (now - shown_ < (talk_.terminal ? kLivePeriod : kPlainPeriod)) return;
  shown_ = now;
  const double seconds = absl::ToDoubleSeconds(now - start_);
  const double speed = static_cast<double>(p.bytes_done - first_bytes_) / std::max(seconds, 1e-3);
  std::string text = absl::StrFormat("%3.0f %%, %s, %s, %s/s",
                                     100.0 * static_cast<double>(p.bytes_done) /
                                         static_cast<double>(std::max<int64_t>(p.bytes_total, 1)),
                                     Counted(p.tokens, "token"), Counted(p.documents, "document"),
                                     HumanBytes(static_cast<int64_t>(speed)));
  if (speed > 0) {
    const double left = static_cast<double>(p.bytes_total - p.bytes_done) / speed;
    absl::StrAppend(&text, ", ", HumanDuration(absl::Seconds(std::max(left, 0.0))), " left");
  }
  if (talk_.terminal) {
    talk_.out << "\r" << text << "\x1b[K" << std::flush;
    visible_ = true;
  } else {
    talk_.out << "pack: " << text << std::endl;
  }
}

void LiveLine::Say(const std::string& text) {
  Clear();
  talk_.out << "pack: " << text << std::endl;
}

}  // namespace ll
