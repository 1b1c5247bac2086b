#include "worker/agent/spec_json.h"

#include <vector>

#include "base/check.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

using google::protobuf::FieldDescriptor;
using Json = nlohmann::ordered_json;

Json Scalar(const v1::JobSpec& spec, const FieldDescriptor* field) {
  const auto* reflection = spec.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->GetString(spec, field);
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection->GetInt64(spec, field);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection->GetDouble(spec, field);
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->GetBool(spec, field);
    default:
      LL_CHECK_MSG(false, "job.proto has a key of a type that specs do not use");
  }
  return {};
}

Json Repeated(const v1::JobSpec& spec, const FieldDescriptor* field) {
  const auto* reflection = spec.GetReflection();
  Json list = Json::array();
  for (int i = 0; i < reflection->FieldSize(spec, field); ++i) {
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      list.push_back(reflection->GetRepeatedString(spec, field, i));
    } else {
      list.push_back(reflection->GetRepeatedInt64(spec, field, i));
    }
  }
  return list;
}

}  // namespace

std::string SpecToJson(const v1::JobSpec& spec) {
  Json out = Json::object();
  std::vector<const FieldDescriptor*> fields;
  spec.GetReflection()->ListFields(spec, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->is_map()) {
      Json labels = Json::object();
      for (const auto& [key, value] : spec.labels()) labels[key] = value;
      out[field->name()] = std::move(labels);
    } else {
      out[field->name()] = field->is_repeated() ? Repeated(spec, field) : Scalar(spec, field);
    }
  }
  // Strings of a Protobuf message are UTF-8 already; `replace` only keeps a foreign sender from
  // throwing here.
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace ll
