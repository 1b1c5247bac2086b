#include "base/cron.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/status_macros.h"

namespace ll {
namespace {

constexpr size_t kMaxBytes = 200;

struct FieldRule {
  const char* name;
  int low, high;
  std::vector<absl::string_view> names;  // of low, low + 1, …; may be empty
};

const std::array<FieldRule, 5>& Fields() {
  static const auto* fields = new std::array<FieldRule, 5>{
      {{"minute", 0, 59, {}},
       {"hour", 0, 23, {}},
       {"day of month", 1, 31, {}},
       {"month",
        1,
        12,
        {"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
       {"day of week", 0, 7, {"sun", "mon", "tue", "wed", "thu", "fri", "sat"}}}};
  return *fields;
}

absl::Status Bad(absl::string_view expected, absl::string_view found, absl::string_view hint = {}) {
  return MakeFieldError(
      {"cron", expected, absl::StrCat("\"", OneLine(found.substr(0, 80)), "\""), hint});
}

absl::StatusOr<int> ParseNumber(const FieldRule& rule, absl::string_view text) {
  const std::string lower = absl::AsciiStrToLower(text);
  for (size_t i = 0; i < rule.names.size(); ++i) {
    if (lower == rule.names[i]) return rule.low + static_cast<int>(i);
  }
  int value = 0;
  const bool digits = !text.empty() && text.size() <= 2 &&
                      std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
  if (!digits || !absl::SimpleAtoi(text, &value) || value < rule.low || value > rule.high) {
    const std::string names = rule.names.empty()
                                  ? ""
                                  : absl::StrCat(" or ", std::string(rule.names.front()), "-",
                                                 std::string(rule.names.back()));
    return Bad(absl::StrCat(rule.name, " ", rule.low, "-", rule.high, names), text);
  }
  return value;
}

// One element of a list: `*`, N or A-B, with /STEP behind `*` and A-B. Returns its numbers as bits.
absl::StatusOr<uint64_t> ParseElement(const FieldRule& rule, absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '/');
  int low = rule.low, high = rule.high, step = 1;
  bool range = parts[0] == "*";
  if (!range) {
    const std::vector<absl::string_view> ends = absl::StrSplit(parts[0], '-');
    if (ends.size() > 2) return Bad(absl::StrCat(rule.name, " as A-B"), parts[0]);
    LL_ASSIGN_OR_RETURN(low, ParseNumber(rule, ends[0]));
    high = low;
    range = ends.size() == 2;
    if (range) {
      LL_ASSIGN_OR_RETURN(high, ParseNumber(rule, ends[1]));
    }
    // A week may be said to end with Sunday.
    if (range && rule.high == 7 && high == 0 && low > 0) high = 7;
    if (high < low) {
      return Bad(absl::StrCat(rule.name, " range that rises"), parts[0],
                 "write a range over the end as two, 22-23,0-5");
    }
  }
  if (parts.size() > 2) return Bad(absl::StrCat(rule.name, " with one step"), text);
  if (parts.size() == 2) {
    if (!range) {
      return Bad(absl::StrCat("a step behind * or a range in ", rule.name), text,
                 absl::StrCat("write ", low, "-", rule.high, "/", std::string(parts[1])));
    }
    if (parts[1].size() > 3 || !absl::SimpleAtoi(parts[1], &step) || step < 1 || step > 100)
      return Bad(absl::StrCat("a step from 1 to 100 in ", rule.name), text);
  }
  uint64_t bits = 0;
  for (int value = low; value <= high; value += step) bits |= uint64_t{1} << value;
  return bits;
}

absl::StatusOr<uint64_t> ParseField(const FieldRule& rule, absl::string_view text) {
  uint64_t bits = 0;
  for (absl::string_view element : absl::StrSplit(text, ',')) {
    LL_ASSIGN_OR_RETURN(const uint64_t more, ParseElement(rule, element));
    bits |= more;
  }
  return bits;
}

absl::StatusOr<absl::string_view> Expand(absl::string_view text) {
  static constexpr std::pair<absl::string_view, absl::string_view> kShort[] = {
      {"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"}, {"@monthly", "0 0 1 * *"},
      {"@weekly", "0 0 * * 0"}, {"@daily", "0 0 * * *"},    {"@midnight", "0 0 * * *"},
      {"@hourly", "0 * * * *"}};
  if (!absl::StartsWith(text, "@")) return text;
  for (const auto& [name, fields] : kShort) {
    if (absl::EqualsIgnoreCase(text, name)) return fields;
  }
  return Bad("@yearly, @monthly, @weekly, @daily or @hourly", text);
}

bool Has(uint64_t bits, int value) { return (bits >> value & 1) != 0; }

constexpr int kLongest[] = {0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

// A week has every weekday and 400 years have every weekday for every date, so only the length of
// the months can keep a rule from ever firing.
bool EverFires(uint32_t days, uint32_t months) {
  for (int month = 1; month <= 12; ++month) {
    for (int day = 1; day <= kLongest[month]; ++day) {
      if (Has(months, month) && Has(days, day)) return true;
    }
  }
  return false;
}

constexpr int kMaxYear = 100'000;

}  // namespace

absl::StatusOr<Cron> Cron::Parse(absl::string_view text) {
  if (text.size() > kMaxBytes) return Bad("at most 200 characters", text);
  const absl::string_view stripped = absl::StripAsciiWhitespace(text);
  LL_ASSIGN_OR_RETURN(const absl::string_view fields, Expand(stripped));
  const std::vector<absl::string_view> parts =
      absl::StrSplit(fields, absl::ByAnyChar(" \t"), absl::SkipEmpty());
  if (parts.size() != 5) {
    return Bad("five fields (minute, hour, day of month, month, day of week)", stripped,
               "\"0 2 * * *\" is every night at two");
  }
  std::array<uint64_t, 5> bits;
  for (size_t i = 0; i < parts.size(); ++i) {
    LL_ASSIGN_OR_RETURN(bits[i], ParseField(Fields()[i], parts[i]));
  }
  const auto open = [&parts](size_t i) { return parts[i][0] == '*'; };
  Cron cron;
  cron.text_ = std::string(stripped);
  cron.minutes_ = bits[0];
  cron.hours_ = static_cast<uint32_t>(bits[1]);
  cron.days_ = static_cast<uint32_t>(bits[2]);
  cron.months_ = static_cast<uint32_t>(bits[3]);
  cron.weekdays_ = static_cast<uint32_t>(bits[4] | (Has(bits[4], 7) ? 1 : 0));
  cron.hour_open_ = open(1);
  cron.day_open_ = open(2);
  cron.weekday_open_ = open(4);
  const bool either = !cron.day_open_ && !cron.weekday_open_;
  if (!either && !EverFires(cron.days_, cron.months_)) {
    return Bad("a rule that fires", stripped, "no month of it has such a day");
  }
  return cron;
}

bool Cron::DayMatches(absl::CivilDay day) const {
  if (!Has(months_, day.month())) return false;
  // absl counts weekdays from Monday.
  const int weekday = (static_cast<int>(absl::GetWeekday(day)) + 1) % 7;
  const bool by_day = Has(days_, day.day()), by_weekday = Has(weekdays_, weekday);
  return day_open_ || weekday_open_ ? by_day && by_weekday : by_day || by_weekday;
}

absl::CivilMinute Cron::NextCivil(absl::CivilMinute from) const {
  absl::CivilMinute at = from;
  while (true) {
    const absl::CivilDay day(at);
    if (!Has(months_, day.month())) {
      at = absl::CivilMinute(absl::CivilMonth(day) + 1);
      continue;
    }
    if (!DayMatches(day)) {
      at = absl::CivilMinute(day + 1);
      continue;
    }
    if (!Has(hours_, at.hour())) {
      at = absl::CivilMinute(absl::CivilHour(at) + 1);
      continue;
    }
    if (Has(minutes_, at.minute())) return at;
    at += 1;
  }
}

absl::Time Cron::NextByClock(absl::Time after, const absl::TimeZone& zone) const {
  // Between two changes of the clock civil and real time run side by side.
  absl::Time from = after + absl::Nanoseconds(1);
  while (true) {
    const absl::CivilSecond civil = zone.At(from).cs;
    absl::CivilMinute minute(civil);
    if (absl::CivilSecond(minute) < civil || zone.At(from).subsecond > absl::ZeroDuration())
      minute += 1;
    minute = NextCivil(minute);
    const absl::Time second = from - zone.At(from).subsecond;
    const absl::Time at = second + absl::Seconds(absl::CivilSecond(minute) - civil);
    absl::TimeZone::CivilTransition change;
    if (!zone.NextTransition(from, &change)) return at;
    const absl::Time changes = zone.At(change.to).trans;
    if (at < changes) return at;
    from = changes;
  }
}

absl::Time Cron::Next(absl::Time after, const absl::TimeZone& zone) const {
  if (after == absl::InfiniteFuture() || after == absl::InfinitePast())
    return absl::InfiniteFuture();
  const absl::CivilSecond civil = zone.At(after).cs;
  if (civil.year() > kMaxYear || civil.year() < -kMaxYear) return absl::InfiniteFuture();
  if (hour_open_) return NextByClock(after, zone);
  for (absl::CivilMinute minute = NextCivil(absl::CivilMinute(civil));;
       minute = NextCivil(minute + 1)) {
    const absl::TimeZone::TimeInfo info = zone.At(absl::CivilSecond(minute));
    const absl::Time at = info.kind == absl::TimeZone::TimeInfo::SKIPPED ? info.trans : info.pre;
    if (at > after) return at;
  }
}

absl::StatusOr<absl::TimeZone> LoadZone(absl::string_view name) {
  // The loader would also take paths and the host's own zone; a schedule must mean the same
  // everywhere.
  const bool plain =
      !name.empty() && name.size() <= 64 && name[0] != '/' && name != "localtime" &&
      std::all_of(name.begin(), name.end(), [](char c) {
        return absl::ascii_isalnum(c) || c == '/' || c == '_' || c == '-' || c == '+';
      });
  absl::TimeZone zone;
  if (plain && absl::LoadTimeZone(name, &zone)) return zone;
  return MakeFieldError({"time_zone", "an IANA time zone",
                         absl::StrCat("\"", OneLine(name.substr(0, 80)), "\""),
                         "such as Europe/Berlin, America/New_York or UTC"});
}

}  // namespace ll
