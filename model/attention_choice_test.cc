#include "model/attention_choice.h"

#include "absl/strings/str_cat.h"
#include "base/status_matchers.h"

namespace ll {
namespace {

constexpr char kHost[] = R"({"date":"2026-01-01T00:00:00Z","gpu":"NVIDIA H100 80GB HBM3, 580.1"})";

std::string Judged(absl::string_view kernel, absl::string_view status, int kv_heads = 4,
                   bool same_bits = true, int head_dim = 128, int queries = 256) {
  return absl::StrCat(
      R"({"entry_point":")", kernel, R"(","case":"c","batch":2,"heads":4,"kv_heads":)", kv_heads,
      R"(,"queries":)", queries, R"(,"keys":256,"head_dim":)", head_dim,
      R"(,"overlapping":false,"bit_equal":{"forward":true,"backward":false,"runs":20},)",
      R"("bit_equal_deterministic":{"forward":true,"backward":)", same_bits ? "true" : "false",
      R"(},"status":")", status, "\"}\n");
}

std::string Timed(absl::string_view kernel, double seconds, bool deterministic = false,
                  int kv_heads = 16) {
  return absl::StrCat(
      R"({"entry_point":")", kernel, R"(","case":"s","batch":4,"heads":16,"kv_heads":)", kv_heads,
      R"(,"queries":8192,"keys":8192,"head_dim":128,"overlapping":false,"deterministic":)",
      deterministic ? "true" : "false", R"(,"forward_seconds":)", seconds / 3,
      R"(,"backward_seconds":)", seconds * 2 / 3, R"(,"status":"timed"})", "\n");
}

constexpr char kFlash[] = "_flash_attention_forward", kCudnn[] = "_cudnn_attention_forward",
               kEfficient[] = "_scaled_dot_product_efficient_attention";

AttentionTable TableOf(absl::string_view lines) {
  auto table = AttentionTable::Parse(absl::StrCat(kHost, "\n", lines), "NVIDIA H100 80GB HBM3");
  LL_EXPECT_OK(table.status());
  return *std::move(table);
}

AttentionKernel ChosenFrom(absl::string_view lines, const AttentionNeeds& needs = {}) {
  const AttentionTable table = TableOf(lines);
  return ChooseAttention(&table, 9, needs).kernel;
}

TEST(AttentionChoice, WithoutMeasurementsByTheArchitecture) {
  EXPECT_EQ(ChooseAttention(nullptr, 8, {}).kernel, AttentionKernel::kFlash);
  EXPECT_EQ(ChooseAttention(nullptr, 9, {}).kernel, AttentionKernel::kCudnn);
  EXPECT_EQ(ChooseAttention(nullptr, 9, {.deterministic = true}).kernel, AttentionKernel::kFlash);
}

TEST(AttentionChoice, WhatOnlyOneKernelCanDo) {
  const AttentionTable table = TableOf(absl::StrCat(Judged(kCudnn, "ok"), Timed(kCudnn, 0.001)));
  EXPECT_EQ(ChooseAttention(&table, 9, {.plain = false}).kernel, AttentionKernel::kFlash);
  EXPECT_EQ(ChooseAttention(&table, 9, {.bf16 = false}).kernel, AttentionKernel::kEfficient);
}

TEST(AttentionChoice, TheFastestThatIsRight) {
  const std::string all_right =
      absl::StrCat(Judged(kFlash, "ok"), Judged(kCudnn, "ok"), Judged(kEfficient, "ok"));
  EXPECT_EQ(ChosenFrom(absl::StrCat(all_right, Timed(kFlash, 3), Timed(kCudnn, 2))),
            AttentionKernel::kCudnn);
  EXPECT_EQ(ChosenFrom(absl::StrCat(all_right, Timed(kFlash, 2), Timed(kCudnn, 3))),
            AttentionKernel::kFlash);
  EXPECT_EQ(
      ChosenFrom(absl::StrCat(all_right, Timed(kFlash, 2), Timed(kCudnn, 3), Timed(kEfficient, 1))),
      AttentionKernel::kEfficient);
  EXPECT_EQ(ChosenFrom(absl::StrCat(Judged(kFlash, "ok"), Judged(kCudnn, "wrong"), Timed(kFlash, 3),
                                    Timed(kCudnn, 2))),
            AttentionKernel::kFlash);
  EXPECT_EQ(ChosenFrom(absl::StrCat(Judged(kFlash, "ok"), Judged(kCudnn, "ok"),
                                    Judged(kCudnn, "ended the process"), Timed(kFlash, 3),
                                    Timed(kCudnn, 2))),
            AttentionKernel::kFlash);
}

TEST(AttentionChoice, CasesOfAnotherKindDoNotCount) {
  const std::string times =
      absl::StrCat(Timed(kFlash, 3), Timed(kCudnn, 2), Judged(kFlash, "ok"), Judged(kCudnn, "ok"));
  // Grouped heads, other widths, fewer queries than keys.
  const std::string others =
      absl::StrCat(Judged(kCudnn, "refused", 2), Judged(kCudnn, "wrong", 4, true, 64),
                   Judged(kCudnn, "wrong", 4, true, 128, 96));
  EXPECT_EQ(ChosenFrom(absl::StrCat(times, others)), AttentionKernel::kCudnn);
  EXPECT_EQ(ChosenFrom(absl::StrCat(times, others), {.grouped_heads = true}),
            AttentionKernel::kFlash);
  EXPECT_EQ(ChosenFrom(absl::StrCat(times, others), {.head_dim = 64}), AttentionKernel::kFlash);
  EXPECT_EQ(ChosenFrom(times, {.head_dim = 96}), AttentionKernel::kFlash);
}

TEST(AttentionChoice, BitsMustBeEqualWhereThatIsAskedFor) {
  const std::string flash =
      absl::StrCat(Judged(kFlash, "ok"), Timed(kFlash, 3), Timed(kFlash, 4, true));
  const std::string cudnn = absl::StrCat(Timed(kCudnn, 2), Timed(kCudnn, 2.5, true));
  EXPECT_EQ(ChosenFrom(absl::StrCat(flash, cudnn, Judged(kCudnn, "ok", 4, true)),
                       {.deterministic = true}),
            AttentionKernel::kCudnn);
  const std::string unequal = absl::StrCat(flash, cudnn, Judged(kCudnn, "ok", 4, false));
  EXPECT_EQ(ChosenFrom(unequal, {.deterministic = true}), AttentionKernel::kFlash);
  EXPECT_EQ(ChosenFrom(unequal), AttentionKernel::kCudnn);
}

TEST(AttentionTable, TheLastSectionOfTheGpu) {
  const std::string other = R"({"gpu":"NVIDIA A100-SXM4-80GB, 580.1"})";
  const std::string text = absl::StrCat(kHost, "\n", Judged(kFlash, "wrong"), Timed(kFlash, 1),
                                        other, "\n", Judged(kFlash, "ok"), Timed(kFlash, 7), kHost,
                                        "\n", Judged(kFlash, "ok"), Timed(kFlash, 5));
  LL_ASSERT_OK_AND_ASSIGN(const AttentionTable h100,
                          AttentionTable::Parse(text, "NVIDIA H100 80GB HBM3"));
  EXPECT_TRUE(h100.Right(AttentionKernel::kFlash, {}));
  EXPECT_NEAR(*h100.Seconds(AttentionKernel::kFlash, {}), 5, 1e-9);
  LL_ASSERT_OK_AND_ASSIGN(const AttentionTable a100,
                          AttentionTable::Parse(text, "NVIDIA A100-SXM4-80GB"));
  EXPECT_NEAR(*a100.Seconds(AttentionKernel::kFlash, {}), 7, 1e-9);
}

TEST(AttentionTable, RefusesWhatItCannotRead) {
  EXPECT_THAT(AttentionTable::Parse(kHost, "NVIDIA H200").status(),
              StatusIs(absl::StatusCode::kNotFound, "H200"));
  // Not a prefix of another GPU's name.
  EXPECT_THAT(AttentionTable::Parse(kHost, "NVIDIA H100").status(),
              StatusIs(absl::StatusCode::kNotFound, "H100"));
  EXPECT_THAT(AttentionTable::Parse("nonsense", "NVIDIA H100").status(),
              StatusIs(absl::StatusCode::kInvalidArgument, "line 1"));
  const std::string deep =
      absl::StrCat("{\"gpu\":\"x\",\"more\":", std::string(5000, '['), std::string(5000, ']'), "}");
  EXPECT_THAT(AttentionTable::Parse(deep, "x").status(),
              StatusIs(absl::StatusCode::kInvalidArgument, "line 1: expected at most 8 levels"));
  EXPECT_THAT(
      AttentionTable::Parse(absl::StrCat(kHost, "\n{\"entry_point\":7}\n"), "NVIDIA H100 80GB HBM3")
          .status(),
      StatusIs(absl::StatusCode::kInvalidArgument, "line 2"));
}

}  // namespace
}  // namespace ll
