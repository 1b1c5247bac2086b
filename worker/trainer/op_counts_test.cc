// What the planner counts of a step is what a trace of the step counts.
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <c10/core/GradMode.h>

#include "base/clock.h"
#include "gtest/gtest.h"
#include "kernels/common/torch_op_trace.h"
#include "model/llama.h"
#include "model/plan/job_shape.h"
#include "model/plan/memory_plan.h"
#include "model/plan/time_plan.h"
#include "model/weight_source.h"

namespace ll {
namespace {

constexpr int64_t kTokens = 64;

LlamaConfig SmallConfig(bool qwen3) {
  LlamaConfig c;
  if (qwen3) c.model_type = "qwen3";
  c.hidden_size = 64;
  c.intermediate_size = 192;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 16;
  c.vocab_size = 96;
  c.max_position_embeddings = kTokens;
  c.tie_word_embeddings = true;
  return c;
}

JobSpec SmallSpec(bool all_linear) {
  JobSpec s;
  s.method = "longlora";
  s.lora_rank = 4;
  s.target_modules = all_linear ? AllLinearModules()
                                : std::vector<std::string>{"q_proj", "k_proj", "v_proj", "o_proj"};
  return s;
}

struct Counted {
  double flops = 0, bytes = 0;
};

// All operations of those names, in `phase` or, empty, in any.
Counted Of(const OpTrace& trace, const std::string& phase,
           std::initializer_list<std::string> operations) {
  Counted all;
  for (const auto& [key, sum] : trace.sums()) {
    for (const std::string& operation : operations) {
      if (key.second != operation || (!phase.empty() && key.first != phase)) continue;
      all.flops += sum.work.flops;
      all.bytes += sum.work.bytes;
    }
  }
  return all;
}

OpTrace Traced(const LlamaConfig& config, const JobSpec& spec, Recompute recompute,
               AttentionKind kind, BaseFormat base = BaseFormat::kCompute,
               at::ScalarType dtype = at::kBFloat16) {
  ModelOptions options;
  options.base = base;
  options.dtype = dtype;
  options.lora.rank = static_cast<int>(*spec.lora_rank);
  options.lora.target_modules = spec.target_modules;
  options.train_norm = true;
  options.recompute = recompute;
  RandomWeights weights(1, config);
  auto model = Llama::Create(config, weights, options);
  EXPECT_TRUE(model.ok()) << model.status();
  Row row;
  row.tokens = at::arange(kTokens, at::kLong) % config.vocab_size;
  row.labels = row.tokens;
  OpTrace trace(RealClock(), [] {});
  const OpTracing on(trace);
  const auto loss = (*model)->ForwardBackward(row, {kind, WrapKind::kSplit, kTokens / 4}, 1.0);
  EXPECT_TRUE(loss.ok()) << loss.status();
  return trace;
}

const std::pair<Recompute, std::string> kSettings[] = {
    {Recompute::kNone, "none"}, {Recompute::kSelective, "selective"}, {Recompute::kFull, "full"}};

TEST(OpCountsTest, ThePlannersAndTheTracesAreTheSame) {
  for (const bool qwen3 : {false, true}) {
    for (const bool all_linear : {false, true}) {
      for (const auto& [recompute, name] : kSettings) {
        SCOPED_TRACE(testing::Message()
                     << "qwen3 " << qwen3 << " all " << all_linear << " " << name);
        const LlamaConfig config = SmallConfig(qwen3);
        const JobSpec spec = SmallSpec(all_linear);
        const OpTrace trace = Traced(config, spec, recompute, AttentionKind::kS2);
        const double body = static_cast<double>(LinearParameterCount(config));
        const double down = static_cast<double>(config.hidden_size * config.intermediate_size *
                                                config.num_hidden_layers);
        EXPECT_EQ(Of(trace, "forward", {"product"}).flops, 2 * kTokens * body);
        EXPECT_EQ(Of(trace, "backward", {"product"}).flops, 2 * kTokens * body);
        EXPECT_EQ(Of(trace, "recompute", {"product"}).flops,
                  name == "full"        ? 2 * kTokens * (body - down)
                  : name == "selective" ? 4 * kTokens * down
                                        : 0);
        EXPECT_EQ(Of(trace, "forward", {"LoRA"}).flops + Of(trace, "backward", {"LoRA"}).flops,
                  kTokens * LoraFlops(config, spec, name));
        const double attention = CausalAttentionFlops(config, kTokens, "s2", kTokens / 4);
        EXPECT_EQ(Of(trace, "forward", {"attention"}).flops, attention);
        EXPECT_EQ(Of(trace, "backward", {"attention"}).flops, 2.5 * attention);
        EXPECT_EQ(Of(trace, "loss", {"cross-entropy"}).bytes - kTokens * 12,  // labels and losses
                  kTokens * LossBytes(config));
        // But for what is no tensor of tokens x features: weights, statistics, tables.
        const double layers = Of(trace, "", {"RMSNorm", "SwiGLU", "RoPE"}).bytes -
                              Of(trace, "loss", {"RMSNorm"}).bytes;
        const double planned = ElementwiseBytes(config, spec, name) * kTokens *
                               static_cast<double>(config.num_hidden_layers);
        EXPECT_NEAR(layers / planned, 1, 0.05);
      }
    }
  }
}

// Twice a weight, also where layers are computed again, as they are on a GPU (and here in fp32); a
// CPU's backward pass in bf16 reads some transposed.
TEST(OpCountsTest, AnNf4BaseIsExpandedAsOftenAsIsPlanned) {
  const LlamaConfig config = SmallConfig(/*qwen3=*/false);
  JobSpec spec = SmallSpec(/*all_linear=*/true);
  spec.quantization = "nf4";
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& [recompute, name] : kSettings) {
      SCOPED_TRACE(testing::Message() << c10::toString(dtype) << " " << name);
      const OpTrace trace =
          Traced(config, spec, recompute, AttentionKind::kS2, BaseFormat::kNf4, dtype);
      const double bytes = kExpansionBytes + (dtype == at::kFloat ? 2 : 0);
      const double elements = Of(trace, "", {"NF4 to bf16"}).bytes / bytes;
      EXPECT_EQ(elements, 2 * ExpandedElements(config, spec, name, dtype == at::kBFloat16));
      if (dtype == at::kFloat) {
        EXPECT_EQ(elements, 2 * static_cast<double>(LinearParameterCount(config)));
      }
    }
  }
}

TEST(OpCountsTest, NothingIsTracedWhereNoTraceIsOn) {
  OpTrace trace(RealClock(), [] { FAIL() << "nothing to wait for"; });
  {
    const OpPhase phase("forward");
    const OpScope scope("product", [] {
      ADD_FAILURE() << "work is not asked for";
      return OpWork{};
    });
  }
  EXPECT_TRUE(trace.sums().empty());
}

TEST(OpCountsTest, AnOperationWithinAnotherIsPartOfIt) {
  OpTrace trace(RealClock(), [] {});
  std::optional<OpTracing> on(trace);
  {
    const OpPhase phase("forward");
    const OpScope outer("LoRA", [] { return OpWork{3, 4}; });
    const OpScope inner("dropout", [] { return OpWork{5, 6}; });
  }
  {
    const OpScope later("AdamW", [] { return OpWork{0, 7}; });
  }
  on.reset();
  ASSERT_EQ(trace.sums().size(), 2u);
  const OpTrace::Sum& lora = trace.sums().at({"forward", "LoRA"});
  EXPECT_EQ(lora.calls, 1);
  EXPECT_EQ(lora.work.flops, 3);
  EXPECT_EQ(trace.sums().at({"", "AdamW"}).work.bytes, 7);
}

}  // namespace
}  // namespace ll
