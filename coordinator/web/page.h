// What a page is made of, and the frame around it.
#pragma once

#include <google/protobuf/timestamp.pb.h>

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/web/api_client.h"
#include "coordinator/web/html.h"
#include "proto/job.pb.h"

namespace ll {

using Query = std::map<std::string, std::string>;  // decoded

// "a=1&b=x%20y"; of a key that comes twice the first.
Query ParseQuery(absl::string_view text);

struct PageRequest {
  const ApiClient::As& api;
  const Query& query;
  absl::Time now;
  std::string Value(const std::string& key) const {
    const auto found = query.find(key);
    return found == query.end() ? "" : found->second;
  }
};

struct Page {
  std::string title = {};
  // Of the navigation: "jobs", "queues", "workers", "schedules"; may be empty.
  std::string section = {};
  Html body = {};
  int refresh_seconds = 0;  // how often the script fetches what is marked data-live; 0: never
};

// The whole document. `version`: of style and script, so that browsers may keep them.
std::string RenderPage(const Page& page, bool logged_in, const std::string& version);
// What a person is told in a page's place.
Page ErrorPage(const absl::Status& status);

// ---- parts

void AddState(v1::JobState state, Html& out);
// A moment, in UTC; the script shows it in the reader's time zone.
void AddTime(const google::protobuf::Timestamp& time, Html& out);
// How long ago or until, in words.
std::string Ago(const google::protobuf::Timestamp& time, absl::Time now);
void AddJobLink(const std::string& id, const std::string& name, Html& out);
// Two columns; nothing where the value is empty.
void AddFact(Markup name, const std::string& value, Html& out);
std::string NumberText(double value);  // six digits; "" for 0

}  // namespace ll
