#include "base/cron.h"

#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/ids.h"
#include "base/status_matchers.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

using Texts = std::vector<std::string>;

absl::TimeZone Zone(const std::string& name) { return LoadZone(name).value(); }

absl::Time Utc(const std::string& text) {
  absl::Time time;
  std::string error;
  EXPECT_TRUE(absl::ParseTime("%Y-%m-%d %H:%M", text, absl::UTCTimeZone(), &time, &error)) << error;
  return time;
}

// The next `count` fires after the moment `from` (UTC), as local time with offset.
Texts Fires(const std::string& cron, const std::string& zone, const std::string& from, int count) {
  const Cron rule = Cron::Parse(cron).value();
  Texts out;
  absl::Time at = Utc(from);
  for (int i = 0; i < count; ++i) {
    at = rule.Next(at, Zone(zone));
    out.push_back(absl::FormatTime("%m-%d %H:%M%z", at, Zone(zone)));
  }
  return out;
}

TEST(CronTest, ListsRangesStepsNamesAndShortForms) {
  EXPECT_EQ(
      Fires("*/20 8-9 * * *", "UTC", "2026-01-01 08:30", 4),
      (Texts{"01-01 08:40+0000", "01-01 09:00+0000", "01-01 09:20+0000", "01-01 09:40+0000"}));
  EXPECT_EQ(Fires("5,50 3 1,15 feb-MAR *", "UTC", "2026-01-01 00:00", 3),
            (Texts{"02-01 03:05+0000", "02-01 03:50+0000", "02-15 03:05+0000"}));
  EXPECT_EQ(
      Fires("0 12 * * fri-sun", "UTC", "2026-01-01 00:00", 4),
      (Texts{"01-02 12:00+0000", "01-03 12:00+0000", "01-04 12:00+0000", "01-09 12:00+0000"}));
  EXPECT_EQ(Fires("0 12 * * 7", "UTC", "2026-01-01 00:00", 1),
            Fires("0 12 * * sun", "UTC", "2026-01-01 00:00", 1));
  EXPECT_EQ(Fires("@daily", "UTC", "2026-01-01 00:00", 1), Texts{"01-02 00:00+0000"});
  EXPECT_EQ(Fires("@weekly", "UTC", "2026-01-01 00:00", 1), Texts{"01-04 00:00+0000"});
  EXPECT_EQ(Fires("@monthly", "UTC", "2026-01-01 00:00", 1), Texts{"02-01 00:00+0000"});
  EXPECT_EQ(Fires(" @Yearly ", "UTC", "2026-01-01 00:00", 1), Texts{"01-01 00:00+0000"});
  EXPECT_EQ(Fires("@hourly", "UTC", "2026-01-01 00:00", 1), Texts{"01-01 01:00+0000"});
}

TEST(CronTest, TwoRestrictedDayFieldsAreOneOrTheOther) {
  // 2026-01-13 is a Tuesday; Fridays are the 2nd, 9th, 16th.
  EXPECT_EQ(Fires("0 0 13 * fri", "UTC", "2026-01-03 00:00", 3),
            (Texts{"01-09 00:00+0000", "01-13 00:00+0000", "01-16 00:00+0000"}));
  // A field that begins with * is open: both must match.
  EXPECT_EQ(Fires("0 0 */2 * fri", "UTC", "2026-01-01 00:00", 2),
            (Texts{"01-09 00:00+0000", "01-23 00:00+0000"}));
}

TEST(CronTest, LeapDay) {
  const Cron rule = Cron::Parse("0 0 29 2 *").value();
  EXPECT_EQ(rule.Next(Utc("2026-01-01 00:00"), absl::UTCTimeZone()), Utc("2028-02-29 00:00"));
  EXPECT_EQ(rule.Next(Utc("2096-02-29 00:00"), absl::UTCTimeZone()), Utc("2104-02-29 00:00"));
  // One that is a Sunday, Tuesday, Thursday or Saturday, across a century without a leap day.
  const Cron rare = Cron::Parse("0 0 29 2 */2").value();
  EXPECT_EQ(rare.Next(Utc("2088-03-01 00:00"), absl::UTCTimeZone()), Utc("2116-02-29 00:00"));
}

TEST(CronTest, InBerlinAJumpedTimeFiresAfterTheJumpAndARepeatedOneOnce) {
  // 2026-03-29 02:00 CET becomes 03:00 CEST.
  EXPECT_EQ(Fires("30 2 * * *", "Europe/Berlin", "2026-03-27 12:00", 3),
            (Texts{"03-28 02:30+0100", "03-29 03:00+0200", "03-30 02:30+0200"}));
  EXPECT_EQ(Fires("0,30 2,3 29 3 *", "Europe/Berlin", "2026-03-28 00:00", 2),
            (Texts{"03-29 03:00+0200", "03-29 03:30+0200"}));
  // 2026-10-25 03:00 CEST becomes 02:00 CET.
  EXPECT_EQ(Fires("30 2 * * *", "Europe/Berlin", "2026-10-23 12:00", 3),
            (Texts{"10-24 02:30+0200", "10-25 02:30+0200", "10-26 02:30+0100"}));
  // Asked in the second pass of that hour.
  EXPECT_EQ(Fires("45 2 * * *", "Europe/Berlin", "2026-10-25 01:30", 1), Texts{"10-26 02:45+0100"});
}

TEST(CronTest, InNewYorkAJumpedTimeFiresAfterTheJumpAndARepeatedOneOnce) {
  EXPECT_EQ(Fires("30 2 * * *", "America/New_York", "2026-03-07 12:00", 2),
            (Texts{"03-08 03:00-0400", "03-09 02:30-0400"}));
  EXPECT_EQ(Fires("30 1 * * *", "America/New_York", "2026-10-31 12:00", 2),
            (Texts{"11-01 01:30-0400", "11-02 01:30-0500"}));
}

TEST(CronTest, AnOpenHourFollowsTheClockOnTheWall) {
  EXPECT_EQ(Fires("30 * * * *", "Europe/Berlin", "2026-03-29 00:00", 2),
            (Texts{"03-29 01:30+0100", "03-29 03:30+0200"}));
  EXPECT_EQ(
      Fires("30 * * * *", "Europe/Berlin", "2026-10-24 23:45", 4),
      (Texts{"10-25 02:30+0200", "10-25 02:30+0100", "10-25 03:30+0100", "10-25 04:30+0100"}));
  EXPECT_EQ(Fires("0 */2 * * *", "Europe/Berlin", "2026-10-24 23:45", 3),
            (Texts{"10-25 02:00+0200", "10-25 02:00+0100", "10-25 04:00+0100"}));
}

TEST(CronTest, LordHoweMovesByHalfAnHour) {
  // 2026-10-04 02:00 +10:30 becomes 02:30 +11; 2026-04-05 02:00 +11 becomes 01:30 +10:30.
  EXPECT_EQ(Fires("15 2 * * *", "Australia/Lord_Howe", "2026-10-02 20:00", 2),
            (Texts{"10-04 02:30+1100", "10-05 02:15+1100"}));
  EXPECT_EQ(Fires("45 1 * * *", "Australia/Lord_Howe", "2026-04-04 00:00", 2),
            (Texts{"04-05 01:45+1100", "04-06 01:45+1030"}));
  EXPECT_EQ(Fires("45 * * * *", "Australia/Lord_Howe", "2026-04-04 14:00", 3),
            (Texts{"04-05 01:45+1100", "04-05 01:45+1030", "04-05 02:45+1030"}));
}

TEST(CronTest, ADayThatAZoneLeftOutIsMadeUpForAfterIt) {
  EXPECT_EQ(Fires("0 12 30 12 *", "Pacific/Apia", "2011-12-01 00:00", 1),
            Texts{"12-31 00:00+1400"});
}

TEST(CronTest, RefusesWithThePartAndTheReason) {
  for (const auto& [text, part] :
       std::map<std::string, std::string>{{"", "five fields"},
                                          {"0 2 * *", "five fields"},
                                          {"0 2 * * * *", "five fields"},
                                          {"60 * * * *", "minute 0-59"},
                                          {"* 24 * * *", "hour 0-23"},
                                          {"* * 0 * *", "day of month 1-31"},
                                          {"* * 32 * *", "day of month 1-31"},
                                          {"* * * 13 *", "month 1-12"},
                                          {"* * * * 8", "day of week 0-7"},
                                          {"* * * * xyz", "or sun-sat"},
                                          {"5-1 * * * *", "range that rises"},
                                          {"1-2-3 * * * *", "minute as A-B"},
                                          {"5/10 * * * *", "a step behind"},
                                          {"*/0 * * * *", "a step from 1 to 100"},
                                          {"*/-1 * * * *", "a step from 1 to 100"},
                                          {"*/2/3 * * * *", "one step"},
                                          {", * * * *", "minute 0-59"},
                                          {"+5 * * * *", "minute 0-59"},
                                          {"@reboot", "@yearly"},
                                          {"0 0 30 2 *", "no month of it has such a day"},
                                          {"0 0 31 4,6,9,11 *", "no month of it has such a day"},
                                          {"0 0 30 2 */2", "no month of it has such a day"},
                                          {std::string(300, '*'), "200 characters"}}) {
    const auto parsed = Cron::Parse(text);
    EXPECT_THAT(parsed, StatusIs(absl::StatusCode::kInvalidArgument, part)) << text;
    EXPECT_EQ(ErrorField(parsed.status()), "cron") << text;
  }
  LL_EXPECT_OK(Cron::Parse("0 0 30 2 mon"));  // on Mondays
}

TEST(CronTest, NamesOfZonesAreChecked) {
  for (const char* name : {"", "Mars/Olympus", "localtime", "/etc/localtime", "../../etc/passwd",
                           "file:/etc/localtime", "Europe", "Europe/Berlin "}) {
    const auto zone = LoadZone(name);
    EXPECT_THAT(zone, StatusIs(absl::StatusCode::kInvalidArgument, "an IANA time zone")) << name;
    EXPECT_EQ(ErrorField(zone.status()), "time_zone");
  }
}

TEST(CronTest, ForEverStaysForEver) {
  const Cron rule = Cron::Parse("* * * * *").value();
  EXPECT_EQ(rule.Next(absl::InfiniteFuture(), absl::UTCTimeZone()), absl::InfiniteFuture());
  EXPECT_EQ(rule.Next(absl::FromUnixSeconds(int64_t{1} << 60), absl::UTCTimeZone()),
            absl::InfiniteFuture());
}

// ---- a year, minute by minute

struct Field {
  std::set<int> numbers;
  std::string text;
  bool open = false;
};

Field RandomField(Random& random, int low, int high, double open) {
  Field field;
  const auto in_range = [&] { return low + static_cast<int>(random.Below(high - low + 1)); };
  const auto add = [&field](int a, int b, int step) {
    for (int n = a; n <= b; n += step) field.numbers.insert(n);
  };
  if (static_cast<double>(random.Below(1000)) < 1000 * open) {
    const int step = random.Below(3) == 0 ? 1 + static_cast<int>(random.Below(12)) : 1;
    add(low, high, step);
    field.open = true;
    field.text = step == 1 ? "*" : absl::StrCat("*/", step);
    return field;
  }
  Texts parts;
  for (uint64_t i = 0, n = 1 + random.Below(3); i < n; ++i) {
    int a = in_range(), b = in_range();
    if (a > b) std::swap(a, b);
    const int step = 1 + static_cast<int>(random.Below(5));
    if (random.Below(2) == 0) {
      add(a, a, 1);
      parts.push_back(absl::StrCat(a));
    } else {
      add(a, b, step);
      parts.push_back(absl::StrCat(a, "-", b, "/", step));
    }
  }
  field.text = absl::StrJoin(parts, ",");
  return field;
}

// The real minutes of 2026 in a zone, with their civil times. Offsets are whole minutes then.
struct Year {
  explicit Year(const absl::TimeZone& zone) {
    const absl::Time begin = absl::FromCivil(absl::CivilSecond(2026, 1, 1), zone);
    const absl::Time end = absl::FromCivil(absl::CivilSecond(2027, 1, 1), zone);
    for (absl::Time t = begin; t < end; t += absl::Minutes(1)) {
      times.push_back(t);
      civil.push_back(absl::CivilMinute(zone.At(t).cs));
    }
  }
  std::vector<absl::Time> times;
  std::vector<absl::CivilMinute> civil;
};

// What fires in the year, by going through all its minutes.
std::set<absl::Time> BruteForce(const Year& year, const std::vector<Field>& f) {
  const auto matches = [&f](absl::CivilMinute m) {
    const bool day = f[2].numbers.count(m.day()) > 0;
    const int weekday = static_cast<int>(absl::GetWeekday(m)) + 1;  // Monday 1 … Sunday 7
    const bool week =
        f[4].numbers.count(weekday) > 0 || (weekday == 7 && f[4].numbers.count(0) > 0);
    const bool either = !f[2].open && !f[4].open;
    return f[0].numbers.count(m.minute()) > 0 && f[1].numbers.count(m.hour()) > 0 &&
           f[3].numbers.count(m.month()) > 0 && (either ? day || week : day && week);
  };
  std::set<absl::Time> fires;
  if (f[1].open) {
    for (size_t i = 0; i < year.times.size(); ++i) {
      if (matches(year.civil[i])) fires.insert(year.times[i]);
    }
    return fires;
  }
  // A civil minute is served when the clock first shows it or anything later.
  size_t i = 0;
  for (absl::CivilMinute m(2026, 1, 1); m < absl::CivilMinute(2027, 1, 1); ++m) {
    while (i < year.civil.size() && year.civil[i] < m) ++i;
    if (i < year.civil.size() && matches(m)) fires.insert(year.times[i]);
  }
  return fires;
}

TEST(CronTest, AgreesWithEveryMinuteOfAYear) {
  constexpr uint64_t kSeed = 20261025;
  SeededRandom random(kSeed);
  std::printf("seed %llu\n", static_cast<unsigned long long>(kSeed));
  for (const char* name : {"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"}) {
    const absl::TimeZone zone = Zone(name);
    const Year year(zone);
    for (int round = 0; round < 15; ++round) {
      const std::vector<Field> fields = {
          RandomField(random, 0, 59, 0.1), RandomField(random, 0, 23, 0.3),
          RandomField(random, 1, 31, 0.5), RandomField(random, 1, 12, 0.7),
          RandomField(random, 0, 7, 0.5)};
      const std::string text = absl::StrJoin(
          fields, " ", [](std::string* out, const Field& field) { out->append(field.text); });
      const auto rule = Cron::Parse(text);
      const std::set<absl::Time> expected = BruteForce(year, fields);
      if (!rule.ok()) {  // such as 31 November
        EXPECT_TRUE(expected.empty()) << text;
        continue;
      }
      std::set<absl::Time> found;
      absl::Time at = year.times.front() - absl::Nanoseconds(1);
      while ((at = rule->Next(at, zone)) <= year.times.back()) found.insert(at);
      EXPECT_EQ(found, expected) << text << " in " << name;
      // From anywhere the next one is the same.
      for (int i = 0; i < 200; ++i) {
        const absl::Time from =
            year.times.front() + absl::Seconds(static_cast<int64_t>(random.Below(365 * 86400)));
        const auto next = expected.upper_bound(from);
        if (next == expected.end()) continue;
        EXPECT_EQ(rule->Next(from, zone), *next) << text << " in " << name << " after " << from;
      }
    }
  }
}

}  // namespace
}  // namespace ll
