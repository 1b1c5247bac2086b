#include "base/field_error.h"

#include "base/status_matchers.h"

namespace ll {
namespace {

TEST(FieldErrorTest, MessageNamesFieldExpectedFoundAndHint) {
  absl::Status s =
      MakeFieldError({"context_length", "a positive number of tokens", "-1", "give --ctx N"});
  EXPECT_THAT(
      s, StatusIs(absl::StatusCode::kInvalidArgument,
                  "context_length: expected a positive number of tokens, found -1; give --ctx N"));
  EXPECT_EQ(ErrorField(s), "context_length");
  EXPECT_EQ(ErrorHint(s), "give --ctx N");
}

TEST(FieldErrorTest, WhateverWasFoundTheMessageIsOneLine) {
  const absl::Status s = MakeFieldError({"a\nb", "text", std::string("x\0\n\x7f", 4)});
  EXPECT_EQ(s.message(), "a?b: expected text, found x???");
  EXPECT_EQ(ErrorField(s), "a\nb");
  EXPECT_LT(MakeFieldError({"f", "text", std::string(1 << 20, 'x')}).message().size(), 1100u);
}

TEST(FieldErrorTest, OneLineKeepsCodeAndPayloads) {
  absl::Status given(absl::StatusCode::kNotFound, "a\nb");
  SetErrorField(given, "f");
  const absl::Status s = OneLine(given);
  EXPECT_THAT(s, StatusIs(absl::StatusCode::kNotFound, "a?b"));
  EXPECT_EQ(ErrorField(s), "f");
  EXPECT_TRUE(OneLine(absl::OkStatus()).ok());
}

TEST(FieldErrorTest, AnnotateKeepsCodeAndPayloads) {
  absl::Status s = Annotate(
      FieldStatus(absl::StatusCode::kNotFound, "model", "no such folder", "look"), "job.yaml");
  EXPECT_THAT(s, StatusIs(absl::StatusCode::kNotFound, "job.yaml: model: no such folder; look"));
  EXPECT_EQ(ErrorField(s), "model");
  EXPECT_TRUE(Annotate(absl::OkStatus(), "x").ok());
}

TEST(FieldErrorTest, ASentenceThatIsPassedOnSaysItsFieldAndHintOnce) {
  const absl::Status first = MakeFieldError({"model", "a folder", "none", "give --model"});
  const absl::Status again = FieldStatus(absl::StatusCode::kNotFound, ErrorField(first),
                                         first.message(), ErrorHint(first));
  EXPECT_EQ(again.message(), "model: expected a folder, found none; give --model");
  EXPECT_EQ(again.message(), first.message());
  EXPECT_EQ(ErrorHint(again), "give --model");
}

}  // namespace
}  // namespace ll
