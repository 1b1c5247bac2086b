#include <cstring>

#include <ATen/ATen.h>

#include "base/check.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "model/weights/hf_folder.h"
#include "model/weights/hf_writer.h"
#include "model/weights/nf4_io.h"
#include "model/weights/tensor_io.h"

namespace ll {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class WeightsTest : public testing::Test {
 protected:
  void SetUp() override {
    auto config = ParseLlamaConfig(
        R"({"model_type": "llama", "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16})");
    LL_ASSERT_OK(config);
    config_ = *config;
    at::manual_seed(1);
    for (const WeightShape& w : WeightShapes(config_))
      weights_.emplace_back(w.name, at::randn(w.shape));
  }
  absl::Status Write() { return WriteSafetensors(folder_.path() + "/model.safetensors", weights_); }

  const TempDir folder_;
  LlamaConfig config_;
  std::vector<std::pair<std::string, at::Tensor>> weights_;
};

TEST_F(WeightsTest, EveryWeightComesBackInItsDtype) {
  weights_[1].second = weights_[1].second.to(at::kBFloat16);
  weights_[2].second = weights_[2].second.to(at::kHalf);
  LL_ASSERT_OK(Write());
  LL_ASSERT_OK_AND_ASSIGN(auto folder, HfFolder::Open(folder_.path(), config_));
  for (const auto& [name, want] : weights_) {
    LL_ASSERT_OK_AND_ASSIGN(at::Tensor got, folder->Get(name));
    EXPECT_EQ(got.scalar_type(), want.scalar_type()) << name;
    EXPECT_TRUE(at::equal(got, want)) << name;
  }
  EXPECT_THAT(folder->Get("model.nothing"), StatusIs(absl::StatusCode::kNotFound, "model.nothing"));
}

// The weights as a source, and what was released.
class ListedWeights : public WeightSource {
 public:
  explicit ListedWeights(const std::vector<std::pair<std::string, at::Tensor>>& weights)
      : weights_(weights) {}
  absl::StatusOr<at::Tensor> Get(const std::string& hf_name) override {
    for (const auto& [name, tensor] : weights_) {
      if (name == hf_name) return tensor;
    }
    return absl::NotFoundError(hf_name);
  }
  void Release(const std::string& hf_name) override { released.push_back(hf_name); }
  std::vector<std::string> released;

 private:
  const std::vector<std::pair<std::string, at::Tensor>>& weights_;
};

TEST_F(WeightsTest, WrittenInShardsAndReadBack) {
  ListedWeights source(weights_);
  HfWriteOptions options;
  options.max_shard_bytes = 400;
  LL_ASSERT_OK_AND_ASSIGN(const HfWritten written,
                          WriteHfWeights(source, config_, folder_.path(), options));
  EXPECT_EQ(source.released.size(), weights_.size());
  ASSERT_GT(written.files.size(), 3u);
  EXPECT_EQ(written.files.back(), "model.safetensors.index.json");
  EXPECT_EQ(written.bytes, 2 * config_.ParameterCount());
  for (size_t i = 0; i + 1 < written.files.size(); ++i) {
    LL_ASSERT_OK_AND_ASSIGN(const auto file,
                            SafetensorsFile::Open(folder_.path() + "/" + written.files[i]));
    int64_t bytes = 0;
    for (const TensorInfo& tensor : file->tensors()) bytes += tensor.size_bytes;
    EXPECT_TRUE(bytes <= 400 || file->tensors().size() == 1) << written.files[i];
  }
  LL_ASSERT_OK_AND_ASSIGN(auto folder, HfFolder::Open(folder_.path(), config_));
  for (const auto& [name, want] : weights_) {
    LL_ASSERT_OK_AND_ASSIGN(const at::Tensor got, folder->Get(name));
    EXPECT_TRUE(at::equal(got, want.to(at::kBFloat16))) << name;
    folder->Release(name);
    EXPECT_TRUE(at::equal(got, want.to(at::kBFloat16))) << name << " after its pages went";
  }
}

TEST_F(WeightsTest, WhatCannotBeWrittenIsNamedAndLeavesNoFile) {
  HfWriteOptions options;
  options.dtype = "float16";
  weights_[3].second[0][0] = 70000.0;
  ListedWeights source(weights_);
  EXPECT_THAT(WriteHfWeights(source, config_, folder_.path(), options),
              StatusIs(kInvalid, weights_[3].first + ": expected finite values in float16"));
  options.dtype = "bfloat16";
  options.stop = [&source] { return source.released.size() == 7; };
  EXPECT_THAT(WriteHfWeights(source, config_, folder_.path(), options),
              StatusIs(absl::StatusCode::kCancelled, "stopped"));
  options.stop = [] { return false; };
  options.nf4 = true;  // 8 x 4 weights have no whole block
  EXPECT_THAT(WriteHfWeights(source, config_, folder_.path(), options),
              StatusIs(kInvalid, "expected a multiple of 64 elements"));
  weights_[2].second = at::zeros({3});
  options.nf4 = false;
  EXPECT_THAT(WriteHfWeights(source, config_, folder_.path(), options),
              StatusIs(absl::StatusCode::kFailedPrecondition, weights_[2].first));
  EXPECT_TRUE(ListDir(folder_.path())->empty());
}

// One layer's gate_proj in NF4; everything else as it was.
class Nf4FolderTest : public WeightsTest {
 protected:
  static constexpr char kName[] = "model.layers.0.mlp.gate_proj.weight";

  void SetUp() override {
    WeightsTest::SetUp();
    config_.hidden_size = 64;
    config_.head_dim = 16;
    weights_.clear();
    for (const WeightShape& w : WeightShapes(config_)) {
      const at::Tensor values = at::randn(w.shape);
      if (w.name != kName) {
        weights_.emplace_back(w.name, values);
        continue;
      }
      quantized_ = QuantizeNf4(values);
      for (auto& tensor : Nf4Tensors(kName, quantized_, "float32")) weights_.push_back(tensor);
    }
  }
  at::Tensor& Tensor(const std::string& name) {
    for (auto& [found, tensor] : weights_) {
      if (found == name) return tensor;
    }
    LL_CHECK(false);
    return weights_[0].second;
  }
  Nf4Tensor quantized_;
};

TEST_F(Nf4FolderTest, CodesComeBackAsTheyWereWritten) {
  LL_ASSERT_OK(Write());
  LL_ASSERT_OK_AND_ASSIGN(auto folder, HfFolder::Open(folder_.path(), config_));
  LL_ASSERT_OK_AND_ASSIGN(const auto kept, folder->GetNf4(kName));
  ASSERT_TRUE(kept.has_value());
  EXPECT_TRUE(at::equal(kept->codes, quantized_.codes));
  EXPECT_TRUE(at::equal(kept->absmax, quantized_.absmax));
  EXPECT_TRUE(at::equal(kept->nested_absmax, quantized_.nested_absmax));
  EXPECT_EQ(kept->offset, quantized_.offset);
  EXPECT_EQ(kept->shape, quantized_.shape);
  at::Tensor want = at::empty(quantized_.shape);
  DequantizeNf4(quantized_, want);
  EXPECT_TRUE(at::equal(*folder->Get(kName), want));
  EXPECT_FALSE((*folder->GetNf4("model.layers.1.mlp.gate_proj.weight")).has_value());
}

TEST_F(Nf4FolderTest, TheHeaderKnowsTheShapesBeforehand) {
  const auto tensors = Nf4Tensors(kName, quantized_, "bfloat16");
  const auto infos = Nf4TensorInfos(kName, quantized_.shape);
  ASSERT_EQ(infos.size(), tensors.size());
  for (size_t i = 0; i < infos.size(); ++i) {
    EXPECT_EQ(infos[i].name, tensors[i].first);
    EXPECT_EQ(infos[i].shape, tensors[i].second.sizes().vec()) << infos[i].name;
    EXPECT_EQ(DtypeBytes(infos[i].dtype), tensors[i].second.element_size()) << infos[i].name;
  }
}

TEST_F(Nf4FolderTest, WhatDoesNotFitIsRefused) {
  const auto opens = [this](const std::string& name, const at::Tensor& instead) {
    const at::Tensor before = Tensor(name);
    Tensor(name) = instead;
    EXPECT_TRUE(Write().ok());
    const absl::Status status = HfFolder::Open(folder_.path(), config_).status();
    Tensor(name) = before;
    return status;
  };
  const std::string state = std::string(kName) + ".quant_state.bitsandbytes__nf4";
  const auto with_state = [&](const std::string& from, const std::string& to) {
    const at::Tensor bytes = Tensor(state);
    std::string text(static_cast<const char*>(bytes.const_data_ptr()), bytes.nbytes());
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    at::Tensor other = at::empty({static_cast<int64_t>(text.size())}, at::kByte);
    std::memcpy(other.data_ptr(), text.data(), text.size());
    return opens(state, other);
  };
  EXPECT_THAT(opens(kName, at::zeros({8, 1}, at::kByte)),
              StatusIs(kInvalid, "expected U8[384, 1]"));
  EXPECT_THAT(opens(std::string(kName) + ".absmax", at::zeros({11}, at::kByte)),
              StatusIs(kInvalid, "absmax: expected U8[12], found U8[11]"));
  EXPECT_THAT(opens(std::string(kName) + ".quant_map", at::zeros({16})),
              StatusIs(kInvalid, "quant_map: expected the values of NF4"));
  EXPECT_THAT(opens(state, at::zeros({5}, at::kByte)),
              StatusIs(kInvalid, "expected a JSON object"));
  EXPECT_THAT(with_state("\"blocksize\":64", "\"blocksize\":128"),
              StatusIs(kInvalid, "blocksize: expected 64, found 128"));
  EXPECT_THAT(with_state("\"nf4\"", "\"fp4\""),
              StatusIs(kInvalid, "quant_type: expected \"nf4\", found \"fp4\""));
  const std::string deep = std::string(20'000, '[') + std::string(20'000, ']');
  EXPECT_THAT(with_state("\"blocksize\":64", "\"blocksize\":64,\"x\":" + deep),
              StatusIs(kInvalid, "levels"));
  EXPECT_THAT(with_state("\"blocksize\":64", "\"blocksize\":64,\"blocksize\":64"),
              StatusIs(kInvalid, "twice"));
  EXPECT_THAT(with_state("[12,64]", "[64,12]"), StatusIs(kInvalid, "shape: expected [12,64]"));
  EXPECT_THAT(with_state("nested_offset\":", "nested_offset\":null,\"x\":"),
              StatusIs(kInvalid, "nested_offset: expected a number"));
}

TEST_F(WeightsTest, ViewsOutliveTheFolderObject) {
  LL_ASSERT_OK(Write());
  at::Tensor view;
  {
    LL_ASSERT_OK_AND_ASSIGN(auto folder, HfFolder::Open(folder_.path(), config_));
    LL_ASSERT_OK_AND_ASSIGN(view, folder->Get("model.norm.weight"));
  }
  EXPECT_TRUE(at::equal(view, at::Tensor(weights_[weights_.size() - 2].second)));
}

TEST_F(WeightsTest, MissingWrongShapeAndWrongDtypeAreNamed) {
  auto original = weights_;
  weights_.erase(weights_.begin() + 3);
  LL_ASSERT_OK(Write());
  EXPECT_THAT(HfFolder::Open(folder_.path(), config_),
              StatusIs(absl::StatusCode::kNotFound, original[3].first));
  weights_ = original;
  weights_[0].second = at::zeros({12, 8});
  LL_ASSERT_OK(Write());
  EXPECT_THAT(
      HfFolder::Open(folder_.path(), config_),
      StatusIs(
          kInvalid,
          "model.embed_tokens.weight: expected shape [11, 8] as config.json says, found [12, 8]"));
  weights_ = original;
  weights_[0].second = at::zeros({11, 8}, at::kDouble);
  LL_ASSERT_OK(Write());
  EXPECT_THAT(HfFolder::Open(folder_.path(), config_),
              StatusIs(kInvalid, "expected dtype F32, BF16 or F16, found F64"));
}

TEST_F(WeightsTest, TiedHeadNeedsNoHeadWeight) {
  config_.tie_word_embeddings = true;
  weights_.pop_back();
  LL_ASSERT_OK(Write());
  LL_EXPECT_OK(HfFolder::Open(folder_.path(), config_));
  config_.tie_word_embeddings = false;
  EXPECT_THAT(HfFolder::Open(folder_.path(), config_),
              StatusIs(absl::StatusCode::kNotFound, "lm_head.weight"));
}

TEST_F(WeightsTest, NonContiguousTensorsAreWrittenInTheirLogicalOrder) {
  at::Tensor t = at::arange(6, at::kFloat).view({2, 3}).t();
  LL_ASSERT_OK(WriteSafetensors(folder_.path() + "/t.safetensors", {{"t", t}}));
  LL_ASSERT_OK_AND_ASSIGN(auto file, SafetensorsFile::Open(folder_.path() + "/t.safetensors"));
  LL_ASSERT_OK_AND_ASSIGN(at::Tensor back, TensorView(file, *file->Find("t")));
  EXPECT_TRUE(at::equal(back, t));
}

}  // namespace
}  // namespace ll
