#include <unistd.h>

#include <ATen/ATen.h>

#include "base/file.h"
#include "base/status_matchers.h"
#include "model/weights/hf_folder.h"
#include "model/weights/tensor_io.h"

namespace ll {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class WeightsTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/weights_" + std::to_string(getpid());
    LL_ASSERT_OK(RemoveTree(folder_));
    LL_ASSERT_OK(MakeDirs(folder_));
    auto config = ParseLlamaConfig(
        R"({"model_type": "llama", "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16})");
    LL_ASSERT_OK(config);
    config_ = *config;
    at::manual_seed(1);
    for (const WeightShape& w : WeightShapes(config_))
      weights_.emplace_back(w.name, at::randn(w.shape));
  }
  void TearDown() override { LL_ASSERT_OK(RemoveTree(folder_)); }
  absl::Status Write() { return WriteSafetensors(folder_ + "/model.safetensors", weights_); }

  std::string folder_;
  LlamaConfig config_;
  std::vector<std::pair<std::string, at::Tensor>> weights_;
};

TEST_F(WeightsTest, EveryWeightComesBackInItsDtype) {
  weights_[1].second = weights_[1].second.to(at::kBFloat16);
  weights_[2].second = weights_[2].second.to(at::kHalf);
  LL_ASSERT_OK(Write());
  LL_ASSERT_OK_AND_ASSIGN(auto folder, HfFolder::Open(folder_, config_));
  for (const auto& [name, want] : weights_) {
    LL_ASSERT_OK_AND_ASSIGN(at::Tensor got, folder->Get(name));
    EXPECT_EQ(got.scalar_type(), want.scalar_type()) << name;
    EXPECT_TRUE(at::equal(got, want)) << name;
  }
  EXPECT_THAT(folder->Get("model.nothing"), StatusIs(absl::StatusCode::kNotFound, "model.nothing"));
}

TEST_F(WeightsTest, ViewsOutliveTheFolderObject) {
  LL_ASSERT_OK(Write());
  at::Tensor view;
  {
    LL_ASSERT_OK_AND_ASSIGN(auto folder, HfFolder::Open(folder_, config_));
    LL_ASSERT_OK_AND_ASSIGN(view, folder->Get("model.norm.weight"));
  }
  EXPECT_TRUE(at::equal(view, at::Tensor(weights_[weights_.size() - 2].second)));
}

TEST_F(WeightsTest, MissingWrongShapeAndWrongDtypeAreNamed) {
  auto original = weights_;
  weights_.erase(weights_.begin() + 3);
  LL_ASSERT_OK(Write());
  EXPECT_THAT(HfFolder::Open(folder_, config_),
              StatusIs(absl::StatusCode::kNotFound, original[3].first));
  weights_ = original;
  weights_[0].second = at::zeros({12, 8});
  LL_ASSERT_OK(Write());
  EXPECT_THAT(
      HfFolder::Open(folder_, config_),
      StatusIs(
          kInvalid,
          "model.embed_tokens.weight: expected shape [11, 8] as config.json says, found [12, 8]"));
  weights_ = original;
  weights_[0].second = at::zeros({11, 8}, at::kDouble);
  LL_ASSERT_OK(Write());
  EXPECT_THAT(HfFolder::Open(folder_, config_),
              StatusIs(kInvalid, "expected dtype F32, BF16 or F16, found F64"));
}

TEST_F(WeightsTest, TiedHeadNeedsNoHeadWeight) {
  config_.tie_word_embeddings = true;
  weights_.pop_back();
  LL_ASSERT_OK(Write());
  LL_EXPECT_OK(HfFolder::Open(folder_, config_));
  config_.tie_word_embeddings = false;
  EXPECT_THAT(HfFolder::Open(folder_, config_),
              StatusIs(absl::StatusCode::kNotFound, "lm_head.weight"));
}

TEST_F(WeightsTest, NonContiguousTensorsAreWrittenInTheirLogicalOrder) {
  at::Tensor t = at::arange(6, at::kFloat).view({2, 3}).t();
  LL_ASSERT_OK(WriteSafetensors(folder_ + "/t.safetensors", {{"t", t}}));
  LL_ASSERT_OK_AND_ASSIGN(auto file, SafetensorsFile::Open(folder_ + "/t.safetensors"));
  LL_ASSERT_OK_AND_ASSIGN(at::Tensor back, TensorView(file, *file->Find("t")));
  EXPECT_TRUE(at::equal(back, t));
}

}  // namespace
}  // namespace ll
