#include "coordinator/api/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status_matchers.h"
#include "model/spec/spec_fields.h"

namespace ll {
namespace {

TEST(Convert, TheSpecTableAndTheProtoHaveTheSameKeys) {
  std::vector<std::string> in_proto;
  const auto* descriptor = v1::JobSpec::descriptor();
  for (int i = 0; i < descriptor->field_count(); ++i)
    in_proto.push_back(descriptor->field(i)->name());
  EXPECT_THAT(SpecFieldNames(), ::testing::UnorderedElementsAreArray(in_proto));
}

TEST(Convert, EveryKeySurvivesBothWays) {
  JobSpec spec;
  // A value of the right kind for every key: whatever the table names must come back.
  for (const SpecField& field : SpecFields()) {
    std::string text = "7";
    if (std::holds_alternative<std::optional<bool> JobSpec::*>(field.member)) text = "true";
    if (std::holds_alternative<std::map<std::string, std::string> JobSpec::*>(field.member))
      text = "a=b,c=d";
    LL_ASSERT_OK(SetField(spec, field.name, text)) << field.name;
  }
  const v1::JobSpec wire = SpecToProto(spec);
  EXPECT_EQ(SpecFromProto(wire), spec);
  EXPECT_EQ(SerializeDeterministic(SpecToProto(SpecFromProto(wire))), SerializeDeterministic(wire));
  EXPECT_EQ(SpecFromProto(v1::JobSpec()), JobSpec());
}

TEST(Convert, StatesAndClassesHaveTheSameNumbers) {
  for (JobState state : kAllJobStates) {
    EXPECT_EQ(v1::JobState_Name(static_cast<int>(state)), std::string(JobStateName(state)));
  }
  EXPECT_EQ(static_cast<int>(FailureClass::kNotANumber), v1::NOT_A_NUMBER);
}

}  // namespace
}  // namespace ll
