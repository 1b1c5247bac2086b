// Protobuf messages as JSON for people and scripts. Differs from Protobuf's own mapping in two
// ways: 64-bit integers are numbers, and values without presence are always there, so that a script
// can rely on a key.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "google/protobuf/message.h"
#include "google/protobuf/timestamp.pb.h"
#include "nlohmann/json.hpp"

namespace ll {

// Keys are the proto's field names in the proto's order. Timestamps are RFC 3339 in UTC, Structs
// become objects, enums their names; an enum at 0, an unset message and an absent optional have no
// key.
nlohmann::ordered_json ProtoToJson(const google::protobuf::Message& message);

absl::Time ToTime(const google::protobuf::Timestamp& timestamp);
std::string Rfc3339(absl::Time time);

}  // namespace ll
