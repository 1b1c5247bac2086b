#include "llctl/proto_json.h"

#include <cmath>
#include <map>
#include <string>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/struct.pb.h"

namespace ll {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using nlohmann::ordered_json;

ordered_json StructToJson(const google::protobuf::Struct& value);
ordered_json MessageToJson(const Message& message);

ordered_json NumberToJson(double number) {
  // Counts travel through Struct as doubles; print them as the integers they were.
  if (number == std::floor(number) && std::abs(number) < 9e15) return static_cast<int64_t>(number);
  return number;
}

ordered_json ValueToJson(const google::protobuf::Value& value) {
  using google::protobuf::Value;
  switch (value.kind_case()) {
    case Value::kBoolValue:
      return value.bool_value();
    case Value::kNumberValue:
      return NumberToJson(value.number_value());
    case Value::kStringValue:
      return value.string_value();
    case Value::kStructValue:
      return StructToJson(value.struct_value());
    case Value::kListValue: {
      ordered_json list = ordered_json::array();
      for (const auto& item : value.list_value().values()) list.push_back(ValueToJson(item));
      return list;
    }
    default:
      return nullptr;
  }
}

ordered_json StructToJson(const google::protobuf::Struct& value) {
  // The map's order is arbitrary; sorted keys make the output stable.
  std::map<std::string, ordered_json> sorted;
  for (const auto& [key, item] : value.fields()) sorted[key] = ValueToJson(item);
  ordered_json out = ordered_json::object();
  for (auto& [key, item] : sorted) out[key] = std::move(item);
  return out;
}

ordered_json SingularToJson(const Message& message, const FieldDescriptor& field) {
  const Reflection& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection.GetInt64(message, &field);
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection.GetUInt32(message, &field);
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection.GetUInt64(message, &field);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection.GetDouble(message, &field);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return reflection.GetFloat(message, &field);
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.GetBool(message, &field);
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection.GetEnum(message, &field)->name();
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection.GetString(message, &field);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return MessageToJson(reflection.GetMessage(message, &field));
  }
  return nullptr;
}

ordered_json RepeatedToJson(const Message& message, const FieldDescriptor& field) {
  const Reflection& reflection = *message.GetReflection();
  const int size = reflection.FieldSize(message, &field);
  ordered_json list = ordered_json::array();
  for (int i = 0; i < size; ++i) {
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT64:
        list.push_back(reflection.GetRepeatedInt64(message, &field, i));
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        list.push_back(reflection.GetRepeatedString(message, &field, i));
        break;
      case FieldDescriptor::CPPTYPE_MESSAGE:
        list.push_back(MessageToJson(reflection.GetRepeatedMessage(message, &field, i)));
        break;
      default:
        list.push_back(nullptr);  // no such field in our protos; proto_json_test walks them all
    }
  }
  return list;
}

ordered_json MapToJson(const Message& message, const FieldDescriptor& field) {
  const Reflection& reflection = *message.GetReflection();
  std::map<std::string, ordered_json> sorted;
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
    const Message& entry = reflection.GetRepeatedMessage(message, &field, i);
    const auto& type = *entry.GetDescriptor();
    sorted[entry.GetReflection()->GetString(entry, type.map_key())] =
        SingularToJson(entry, *type.map_value());
  }
  ordered_json out = ordered_json::object();
  for (auto& [key, value] : sorted) out[key] = std::move(value);
  return out;
}

ordered_json FieldsToJson(const Message& message) {
  const auto& type = *message.GetDescriptor();
  const Reflection& reflection = *message.GetReflection();
  ordered_json out = ordered_json::object();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (field.is_map()) {
      out[field.name()] = MapToJson(message, field);
    } else if (field.is_repeated()) {
      out[field.name()] = RepeatedToJson(message, field);
    } else if (field.has_presence() && !reflection.HasField(message, &field)) {
      continue;
    } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM &&
               reflection.GetEnumValue(message, &field) == 0) {
      continue;
    } else {
      out[field.name()] = SingularToJson(message, field);
    }
  }
  return out;
}

ordered_json MessageToJson(const Message& message) {
  if (auto* time = dynamic_cast<const google::protobuf::Timestamp*>(&message)) {
    return Rfc3339(ToTime(*time));
  }
  if (auto* value = dynamic_cast<const google::protobuf::Struct*>(&message)) {
    return StructToJson(*value);
  }
  return FieldsToJson(message);
}

}  // namespace

ordered_json ProtoToJson(const Message& message) { return MessageToJson(message); }

absl::Time ToTime(const google::protobuf::Timestamp& timestamp) {
  return absl::FromUnixSeconds(timestamp.seconds()) + absl::Nanoseconds(timestamp.nanos());
}

std::string Rfc3339(absl::Time time) {
  return absl::FormatTime("%Y-%m-%d%ET%H:%M:%E3SZ", time, absl::UTCTimeZone());
}

}  // namespace ll
