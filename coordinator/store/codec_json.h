// How a record's fields lie in the JSON of its row; for the codecs alone.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/ids.h"
#include "coordinator/core/types.h"

namespace ll::codec {

using Json = nlohmann::json;

// Times and durations in nanoseconds; what has no end, or never was, is left out.
inline void Put(Json& json, const char* key, absl::Duration value) {
  if (value != absl::InfiniteDuration()) json[key] = absl::ToInt64Nanoseconds(value);
}
inline void Put(Json& json, const char* key, absl::Time value) {
  if (value != absl::InfinitePast()) json[key] = absl::ToUnixNanos(value);
}
inline absl::Duration GetDuration(const Json& json, const char* key) {
  auto it = json.find(key);
  return it == json.end() ? absl::InfiniteDuration() : absl::Nanoseconds(it->get<int64_t>());
}
inline absl::Time GetTime(const Json& json, const char* key) {
  auto it = json.find(key);
  return it == json.end() ? absl::InfinitePast() : absl::FromUnixNanos(it->get<int64_t>());
}
template <typename T>
T Get(const Json& json, const char* key, T fallback = T()) {
  auto it = json.find(key);
  return it == json.end() ? fallback : it->get<T>();
}
template <typename E>
E GetEnum(const Json& json, const char* key, E fallback) {
  return static_cast<E>(Get<int>(json, key, static_cast<int>(fallback)));
}

// Bytes that were written in base64.
inline std::string GetBytes(const Json& json, const char* key) {
  std::string bytes;
  absl::Base64Unescape(Get<std::string>(json, key), &bytes);
  return bytes;
}
inline Json Ids(const std::vector<JobId>& ids) {
  Json list = Json::array();
  for (const JobId& id : ids) list.push_back(id.value());
  return list;
}
inline std::vector<JobId> GetIds(const Json& json, const char* key) {
  std::vector<JobId> ids;
  for (const std::string& id : Get<std::vector<std::string>>(json, key)) ids.push_back(JobId(id));
  return ids;
}

// A job's spec lies in its own row and in its schedule's.
Json ToJson(const CoreSpec& spec);
CoreSpec SpecFromJson(const Json& json);

// Text that is not UTF-8 (a trainer's message) must not make a row unwritable.
inline std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// A row's record by `from_json`; DataLoss where it is none.
template <typename T, typename F>
absl::StatusOr<T> Decode(absl::string_view text, F from_json) {
  // nlohmann reports type errors by exceptions; they end here.
  try {
    return from_json(Json::parse(text.begin(), text.end()));
  } catch (const Json::exception& error) {
    return absl::DataLossError(
        absl::StrCat("a row of the database cannot be read: ", error.what()));
  }
}

}  // namespace ll::codec
