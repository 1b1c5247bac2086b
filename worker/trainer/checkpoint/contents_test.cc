#include "worker/trainer/checkpoint/contents.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/status_matchers.h"
#include "gtest/gtest.h"
#include "model/weight_source.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/optim/sharded_parameters.h"

namespace ll {
namespace {

// A training of a small model, as far as its checkpoints ask.
struct Small {
  explicit Small(const std::string& method, bool tied = true) {
    training.spec.method = method;
    training.spec.model = "/models/small";
    LlamaConfig& c = training.config;
    c.hidden_size = 64;
    c.intermediate_size = 128;
    c.num_hidden_layers = 1;
    c.num_attention_heads = 4;
    c.num_key_value_heads = 2;
    c.head_dim = 16;
    c.vocab_size = 96;
    c.max_position_embeddings = 64;
    c.tie_word_embeddings = tied;
    ModelOptions& options = training.options;
    options.dtype = at::kFloat;
    options.train_all = method == "full";
    if (!options.train_all) {
      options.train_embedding = true;
      options.lora.rank = 4;
      options.lora.target_modules = {"q_proj"};
    }
    training.tokenizer_files = {"/models/small/tokenizer.json"};
    RandomWeights weights(1, c);
    auto made = Llama::Create(c, weights, options);
    EXPECT_TRUE(made.ok()) << made.status();
    model = *std::move(made);
    parameters = std::make_unique<ShardedParameters>(model->parameters(), 0, !tied, *comm);
    optimizer = std::make_unique<AdamWOptimizer>(parameters->slices(), AdamWOptions{});
    state.step = 7;
  }

  Training training;
  std::unique_ptr<Comm> comm = MakeSingleComm();
  std::unique_ptr<Llama> model;
  std::unique_ptr<ShardedParameters> parameters;
  std::unique_ptr<AdamWOptimizer> optimizer;
  TrainerState state;
};

std::map<std::string, std::map<std::string, at::Tensor>> Files(const CheckpointContents& contents) {
  std::map<std::string, std::map<std::string, at::Tensor>> files;
  for (const auto& [file, tensors] : contents.tensor_files) {
    for (const auto& [name, tensor] : tensors) files[file][name] = tensor;
  }
  return files;
}

std::vector<std::string> Texts(const CheckpointContents& contents) {
  std::vector<std::string> names;
  for (const auto& [name, text] : contents.text_files) names.push_back(name);
  return names;
}

constexpr char kEmbedding[] = "model.embed_tokens.weight";

TEST(CheckpointContents, AnAdapterSharesItsTensorsWithTheOptimizersFile) {
  Small small("longlora");
  SnapshotBuffers buffers;
  const CheckpointContents contents =
      WholeContents(small.training, *small.model, *small.optimizer, small.state, &buffers);
  EXPECT_EQ(contents.step, 7);
  EXPECT_FALSE(contents.hurry);
  EXPECT_TRUE(contents.copied_files.empty());
  EXPECT_EQ(Texts(contents),
            (std::vector<std::string>{kAdapterConfigFile, "config.json", kTrainerStateFile}));
  auto files = Files(contents);
  ASSERT_EQ(files.size(), 2u);
  const auto& adapter = files[kAdapterFile];
  const auto& optimizer = files[OptimizerFileName(0, 1)];
  const at::Tensor& embedding = adapter.at(std::string("base_model.model.") + kEmbedding);
  EXPECT_EQ(embedding.const_data_ptr(),
            optimizer.at(std::string("master.") + kEmbedding).const_data_ptr());
  // Training goes on: the snapshot is a copy.
  for (const Parameter& parameter : small.model->parameters()) {
    const at::Tensor& saved = optimizer.at("master." + parameter.name);
    EXPECT_TRUE(at::equal(saved, parameter.master)) << parameter.name;
    EXPECT_NE(saved.const_data_ptr(), parameter.master.const_data_ptr()) << parameter.name;
  }
}

TEST(CheckpointContents, TheLastOneCopiesNothing) {
  Small small("longlora");
  const CheckpointContents contents =
      WholeContents(small.training, *small.model, *small.optimizer, small.state, nullptr);
  EXPECT_TRUE(contents.hurry);
  auto files = Files(contents);
  for (const Parameter& parameter : small.model->parameters()) {
    EXPECT_EQ(files[OptimizerFileName(0, 1)].at("master." + parameter.name).const_data_ptr(),
              parameter.master.const_data_ptr())
        << parameter.name;
  }
}

TEST(CheckpointContents, AFullTrainingSavesAModelFolder) {
  Small small("full", /*tied=*/false);
  const CheckpointContents contents =
      WholeContents(small.training, *small.model, *small.optimizer, small.state, nullptr);
  EXPECT_EQ(contents.copied_files, small.training.tokenizer_files);
  EXPECT_EQ(Texts(contents), (std::vector<std::string>{"config.json", kTrainerStateFile}));
  auto files = Files(contents);
  ASSERT_EQ(files.size(), 2u);
  std::vector<std::string> names, expected;
  for (const auto& [name, tensor] : files["model.safetensors"]) names.push_back(name);
  for (const WeightShape& shape : WeightShapes(small.training.config))
    expected.push_back(shape.name);
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(names, expected);
}

TEST(CheckpointContents, BesidesPartsThereAreNoMastersAndTheAdapterIsMadeLater) {
  Small small("longlora");
  const CheckpointContents contents =
      ContentsBesidesParts(small.training, *small.model, small.state, nullptr);
  EXPECT_TRUE(contents.has_parts);
  EXPECT_TRUE(contents.tensor_files.empty());
  ASSERT_EQ(contents.derived_files.size(), 1u);
  EXPECT_EQ(contents.derived_files[0].first, kAdapterFile);

  Small full("full");
  const CheckpointContents weights =
      ContentsBesidesParts(full.training, *full.model, full.state, nullptr);
  EXPECT_TRUE(weights.derived_files.empty());
  ASSERT_EQ(weights.tensor_files.size(), 1u);
  EXPECT_EQ(weights.tensor_files[0].first, "model.safetensors");
}

}  // namespace
}  // namespace ll
