// Five-field cron expressions over civil time: when a rule fires next, in a time zone.
//
//   minute 0-59 · hour 0-23 · day of month 1-31 · month 1-12 or jan-dec · day of week 0-7 or
//   sun-sat (0 and 7 are Sunday)
//
// A field is a list of `*`, N, A-B, each range with an optional step: `*/15`, `8-18/2`, `mon-fri`.
// Or one of @yearly (@annually), @monthly, @weekly, @daily (@midnight), @hourly.
//
// As in Vixie cron, a field that begins with `*` is open. Where day of month and day of week are
// both not open, a day fires that matches either; otherwise one that matches both.
//
// Daylight saving. Where the hour field is not open, a rule fires once for each civil time that it
// names: a time that the clock jumps over fires at the first moment after the jump (several such
// times, or one that the rule names anyway, are one fire), a time that comes twice fires the first
// time. Where the hour field is open, the rule follows the clock on the wall: it fires at every
// real minute whose civil time matches, so every hour goes on being served when the clock is set
// back.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace ll {

// Immutable, thread-safe, cheap to copy.
class Cron {
 public:
  // Errors have the field "cron", name the part and say why; also for a rule that never fires (30
  // February).
  static absl::StatusOr<Cron> Parse(absl::string_view text);

  // The first fire after `after`, exclusive. InfiniteFuture when `after` is infinite or more than
  // 100,000 years away; never otherwise.
  absl::Time Next(absl::Time after, const absl::TimeZone& zone) const;

  const std::string& text() const { return text_; }  // as parsed

 private:
  bool DayMatches(absl::CivilDay day) const;
  // The first matching civil minute at or after `from`.
  absl::CivilMinute NextCivil(absl::CivilMinute from) const;
  absl::Time NextByClock(absl::Time after, const absl::TimeZone& zone) const;

  std::string text_;
  uint64_t minutes_ = 0;
  uint32_t hours_ = 0, days_ = 0, months_ = 0, weekdays_ = 0;  // bit N: the number N
  bool hour_open_ = false, day_open_ = false, weekday_open_ = false;
};

// An IANA time zone of this host's tzdata ("Europe/Berlin", "UTC"). InvalidArgument with the field
// "time_zone" for a name that is unknown. Reads the host's files once per name and process; zones
// never change afterwards, so the answer is the same for the process's life. Thread-safe.
absl::StatusOr<absl::TimeZone> LoadZone(absl::string_view name);

}  // namespace ll
