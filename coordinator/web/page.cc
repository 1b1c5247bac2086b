#include "coordinator/web/page.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/format.h"

namespace ll {
namespace {

absl::Time FromProto(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

void AddNavigation(const Page& page, Html& out) {
  const auto link = [&](Markup path, Markup name, absl::string_view section) {
    out.Raw("<a href=\"").Raw(path).Raw("\"");
    if (page.section == section) out.Raw(" aria-current=\"page\"");
    out.Raw(">").Raw(name).Raw("</a>");
  };
  out.Raw("<nav aria-label=\"Sections\">");
  link("/", "Jobs", "jobs");
  link("/queues", "Queues", "queues");
  link("/workers", "Workers", "workers");
  link("/schedules", "Schedules", "schedules");
  out.Raw("</nav>");
}

}  // namespace

Query ParseQuery(absl::string_view text) {
  Query query;
  for (const absl::string_view pair : absl::StrSplit(text, '&', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(pair, absl::MaxSplits('=', 1));
    query.try_emplace(UrlDecode(parts.first), UrlDecode(parts.second));
  }
  return query;
}

std::string RenderPage(const Page& page, bool logged_in, const std::string& version) {
  Html out;
  out.Raw(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
      "<meta name=\"color-scheme\" content=\"light dark\"><title>");
  out.Text(page.title).Raw(" · ll</title><link rel=\"icon\" href=\"/ui/icon.svg\">");
  out.Raw("<link rel=\"stylesheet\" href=\"/ui/ll.css?v=").UrlPart(version).Raw("\">");
  out.Raw("<script src=\"/ui/ll.js?v=").UrlPart(version).Raw("\" defer></script></head>");
  out.Raw("<body data-refresh=\"").Number(page.refresh_seconds).Raw("\">");
  out.Raw(
      "<a class=\"skip\" href=\"#main\">Skip to the content</a><header><a class=\"brand\" "
      "href=\"/\">ll</a>");
  if (logged_in) {
    AddNavigation(page, out);
    out.Raw("<span id=\"news\" role=\"status\"></span>");
    out.Raw("<form method=\"post\" action=\"/logout\"><button>Log out</button></form>");
  }
  out.Raw("</header><main id=\"main\" tabindex=\"-1\">")
      .Add(page.body)
      .Raw("</main></body></html>\n");
  return out.str();
}

Page ErrorPage(const absl::Status& status) {
  Page page;
  page.title = status.code() == absl::StatusCode::kNotFound ? "Not found" : "Not to be had";
  page.body.Raw("<h1>").Text(page.title).Raw("</h1><p class=\"error\">");
  page.body.Text(status.message()).Raw("</p>");
  if (const std::string hint = ErrorHint(status); !hint.empty())
    page.body.Raw("<p>").Text(hint).Raw("</p>");
  return page;
}

void AddState(v1::JobState state, Html& out) {
  const std::string name = v1::JobState_Name(state);
  out.Raw("<span class=\"state ")
      .Text(absl::AsciiStrToLower(name))
      .Raw("\">")
      .Text(name)
      .Raw("</span>");
}

void AddTime(const google::protobuf::Timestamp& time, Html& out) {
  if (time.seconds() == 0) return;
  const absl::Time at = FromProto(time);
  out.Raw("<time datetime=\"")
      .Text(absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", at, absl::UTCTimeZone()));
  out.Raw("\">")
      .Text(absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", at, absl::UTCTimeZone()))
      .Raw("</time>");
}

std::string Ago(const google::protobuf::Timestamp& time, absl::Time now) {
  if (time.seconds() == 0) return "";
  const absl::Duration passed = now - FromProto(time);
  if (absl::AbsDuration(passed) < absl::Seconds(1)) return "just now";
  if (passed < absl::ZeroDuration())
    return absl::StrCat("in ", HumanDuration(absl::Trunc(-passed, absl::Seconds(1))));
  if (passed < absl::Minutes(1)) return absl::StrCat(absl::ToInt64Seconds(passed), "s ago");
  return absl::StrCat(HumanDuration(absl::Trunc(passed, absl::Seconds(1))), " ago");
}

void AddJobLink(const std::string& id, const std::string& name, Html& out) {
  out.Raw("<a href=\"/jobs/").UrlPart(id);
  if (name.empty()) {
    out.Raw("\" class=\"id\">").Text(id).Raw("</a>");
  } else {
    out.Raw("\">").Text(name).Raw("</a>");
  }
}

void AddFact(Markup name, const std::string& value, Html& out) {
  if (value.empty()) return;
  out.Raw("<div><dt>").Raw(name).Raw("</dt><dd>").Text(value).Raw("</dd></div>");
}

std::string NumberText(double value) {
  return value == 0 || !std::isfinite(value) ? (value == 0 ? "" : absl::StrCat(value))
                                             : absl::StrFormat("%.6g", value);
}

}  // namespace ll
