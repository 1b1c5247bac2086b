#include "model/offload.h"

#include <functional>
#include <map>
#include <random>

#include "base/status_matchers.h"
#include "model/llama.h"

namespace ll {
namespace {

// Copies as late as the rules allow, so that whoever reads or writes too early sees it.
class LateCopier : public HostCopier {
 public:
  at::Tensor NewHostTensor(const at::Tensor& like) override {
    host_elements += like.numel();
    return at::full_like(like, -1.0);
  }
  int64_t Start(const at::Tensor& from, const at::Tensor& to) override {
    pending_[next_] = [from, to] { to.copy_(from); };
    return next_++;
  }
  void Wait(int64_t copy) override {
    while (!pending_.empty() && pending_.begin()->first <= copy) {
      pending_.begin()->second();
      pending_.erase(pending_.begin());
    }
  }
  size_t pending() const { return pending_.size(); }
  int64_t host_elements = 0;

 private:
  std::map<int64_t, std::function<void()>> pending_;
  int64_t next_ = 0;
};

TEST(InputOffload, EveryLayerGetsItsInputBack) {
  // 8 elements a layer, in one piece or in 3, 3 and 2.
  for (const auto& [layers, piece_bytes] : {std::pair<size_t, int64_t>{1, 1 << 20},
                                            {2, 1 << 20},
                                            {3, 12},
                                            {4, 1 << 20},
                                            {5, 12},
                                            {9, 12},
                                            {9, 1 << 20}}) {
    auto copier = std::make_unique<LateCopier>();
    LateCopier& late = *copier;
    InputOffload offload(std::move(copier), piece_bytes);
    const size_t pieces = piece_bytes == 12 ? 3 : 1;
    std::vector<at::Tensor> slots;
    for (int64_t i = 0; i < InputOffload::kSlots; ++i) slots.push_back(at::zeros({4, 2}));
    for (const int64_t tokens : {4, 3}) {  // a shorter row uses the same memory
      std::vector<at::Tensor> inputs;
      for (size_t l = 0; l < layers; ++l)
        inputs.push_back(slots[l % InputOffload::kSlots].narrow(0, 0, tokens));
      offload.Prepare(inputs);
      for (size_t l = 0; l < layers; ++l) {
        offload.BeforeWrite(l);
        inputs[l].fill_(static_cast<double>(100 * tokens + static_cast<int64_t>(l)));
        offload.Written(l);
        EXPECT_LE(late.pending(), pieces * static_cast<size_t>(InputOffload::kSlots));
      }
      for (size_t l = layers; l-- > 0;) {
        offload.BeforeBackward(l);
        const float expected = static_cast<float>(100 * tokens + static_cast<int64_t>(l));
        EXPECT_EQ(inputs[l].min().item<float>(), expected) << layers << " layers, layer " << l;
        EXPECT_EQ(inputs[l].max().item<float>(), expected);
      }
      EXPECT_EQ(late.host_elements, static_cast<int64_t>(layers) * 4 * 2);
    }
  }
}

// A row that ends in the middle, for lack of memory: its slots become other tensors.
TEST(InputOffload, NothingIsUnderWayOnceItIsSettled) {
  constexpr size_t kLayers = 9;
  auto copier = std::make_unique<LateCopier>();
  LateCopier& late = *copier;
  InputOffload offload(std::move(copier));
  std::vector<at::Tensor> inputs;
  for (size_t l = 0; l < kLayers; ++l) inputs.push_back(at::zeros({4, 2}));
  offload.Prepare(inputs);
  for (size_t l = 0; l < kLayers; ++l) {
    offload.BeforeWrite(l);
    offload.Written(l);
  }
  for (size_t l = kLayers; l-- > 4;) offload.BeforeBackward(l);
  EXPECT_GT(late.pending(), 0u);
  offload.Settle();
  EXPECT_EQ(late.pending(), 0u);
}

TEST(InputOffload, AModelComputesTheSameBits) {
  LlamaConfig config;
  config.vocab_size = 61;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_hidden_layers = 5;
  config.num_attention_heads = config.num_key_value_heads = 2;
  config.head_dim = 16;
  config.max_position_embeddings = 64;
  config.tie_word_embeddings = true;
  ModelOptions options;
  options.lora = {4, 8, 0, {"q_proj", "down_proj"}, false};
  options.train_norm = options.train_embedding = true;
  options.recompute = Recompute::kFull;
  RandomWeights weights(3, config);
  LL_ASSERT_OK_AND_ASSIGN(const auto plain, Llama::Create(config, weights, options));
  options.offload_activations = true;
  LL_ASSERT_OK_AND_ASSIGN(const auto offloaded, Llama::Create(config, weights, options));
  const AttentionSpec attention{AttentionKind::kS2, WrapKind::kSplit, 8};
  at::manual_seed(4);
  for (const int64_t tokens : {40, 24, 48}) {
    const at::Tensor ids = at::randint(0, 61, {tokens}, at::kLong);
    const Row row{ids, ids.roll(-1), {}, 0};
    LL_ASSERT_OK_AND_ASSIGN(const double expected, plain->ForwardBackward(row, attention, 0.1));
    LL_ASSERT_OK_AND_ASSIGN(const double got, offloaded->ForwardBackward(row, attention, 0.1));
    EXPECT_EQ(got, expected);
    EXPECT_EQ(*offloaded->Nll(row, attention), *plain->Nll(row, attention));
  }
  for (size_t i = 0; i < plain->parameters().size(); ++i)
    EXPECT_TRUE(at::equal(offloaded->parameters()[i].grad, plain->parameters()[i].grad));
  options.recompute = Recompute::kNone;
  EXPECT_THAT(Llama::Create(config, weights, options).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, "offload_activations"));
}

}  // namespace
}  // namespace ll
