#include "base/status_matchers.h"
#include "model/plan/flops_table.h"
#include "model/plan/gpu_attention.h"
#include "model/plan/job_shape.h"
#include "model/plan/memory_plan.h"
#include "model/plan/models.h"
#include "model/plan/time_plan.h"

namespace ll {
namespace {

using ::testing::HasSubstr;

JobSpec Spec(const std::string& yaml) {
  auto parsed = ParseJobSpec("model: m\n" + yaml);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  auto resolved = Resolve(*parsed);
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  return *resolved;
}

TEST(ParameterTest, TrainableCountsOfThePapers) {  // claims 11, 12
  LlamaConfig c = *BuiltInModel("7b");
  EXPECT_EQ(LoraParameterCount(c, Spec("ctx: 8192\nmethod: lora\n")), 8388608);
  EXPECT_EQ(LoraParameterCount(*BuiltInModel("13b"), Spec("ctx: 8192\nmethod: lora\n")), 13107200);
  EXPECT_EQ(LoraParameterCount(*BuiltInModel("70b"), Spec("ctx: 8192\nmethod: lora\n")), 32768000);
  EXPECT_EQ(LoraParameterCount(c, Spec("ctx: 8192\nmethod: longqlora\n")), 159907840);
  EXPECT_EQ(LoraParameterCount(*BuiltInModel("13b"), Spec("ctx: 8192\nmethod: longqlora\n")),
            250347520);
  c.vocab_size = 32001;
  EXPECT_EQ(TrainableParameterCount(c, Spec("ctx: 8192\n")), 139730944);
  EXPECT_EQ(TrainableParameterCount(c, Spec("ctx: 8192\nmethod: full\n")), c.ParameterCount());
}

// The sum of the embedding's gradient over 8 ranks: a part of it, and the rows that tokens touched,
// a rank's and the others', which were counted: of 4,096 random tokens of 32,000 words, 3,844, of
// 32,768 20,507.
int64_t EmbeddingSum(const LlamaConfig& c, int64_t touched) {
  return (c.vocab_size / 8 + 2 * touched) * c.hidden_size * 4;
}

TEST(ContextParallelTest, ARankHoldsItsShareOfARow) {
  const LlamaConfig c = *BuiltInModel("7b");
  const std::string keys = "ctx: 32768\ngpus: 8\nglobal_batch_size: 8\n";
  const JobSpec one = Spec(keys), eight = Spec(keys + "context_parallel: 8\n");
  const MemoryForecast whole = ForecastMemory(c, one, /*gpu=*/true, "full"),
                       shard = ForecastMemory(c, eight, /*gpu=*/true, "full");
  EXPECT_EQ(shard.weights, whole.weights);
  EXPECT_EQ(shard.trainables, whole.trainables);
  // K and V of half the heads of half a group (S/8 tokens) at least, in bf16.
  const int64_t received = 32768 / 8 * c.num_key_value_heads / 2 * c.head_dim * 2 * 2;
  EXPECT_EQ(shard.activations, whole.activations / 8);
  EXPECT_EQ(shard.communication, received + EmbeddingSum(c, 3844));  // of one layer at a time
  EXPECT_EQ(whole.communication, EmbeddingSum(c, 20507));
  // Rotations are of the whole row: cos and sin of D / 2, fp32.
  const int64_t rope = int64_t{32768} * c.head_dim * 4;
  // Of a tile: norms, the MLP's wide tensors, what the adapters of q, k, v and o need.
  const auto tile = [&](int64_t tokens) {
    return tokens * (2 * c.hidden_size + 4 * c.intermediate_size + 2 * 3 * 8) * 2;
  };
  // Of attention's backward pass, half the heads at once: four groups, or as much as is here of
  // one.
  const auto scratch = [&](int64_t groups, int64_t group) {
    return GpuAttentionScratchBytes({.batch = groups,
                                     .heads = c.num_attention_heads / 2,
                                     .kv_heads = c.num_key_value_heads / 2,
                                     .queries = group,
                                     .keys = group,
                                     .head_dim = c.head_dim,
                                     .deterministic = true});
  };
  EXPECT_EQ(shard.workspace - rope - tile(32768 / 8) - scratch(1, 4096),
            (whole.workspace - rope - tile(kTileTokens) - scratch(4, 8192)) / 8);
  // As many rows in as much time: eight ranks take one row after the other instead of one each.
  // But for attention: ranks wait for the one whose tokens see most.
  const DeviceRates h200 = RatesOf("H200");
  const StepForecast shared = ForecastTime(c, eight, "full", h200).step;
  const StepForecast alone = ForecastTime(c, one, "full", h200).step;
  EXPECT_GT(shared.communication, alone.communication);  // what S²-Attn sends to the next rank
  EXPECT_NEAR(shared.attention / alone.attention, 2 / 1.875, 1e-3);
  EXPECT_DOUBLE_EQ(shared.gemm, alone.gemm);
  EXPECT_DOUBLE_EQ(shared.memory_traffic, alone.memory_traffic);
  EXPECT_DOUBLE_EQ(shared.optimizer, alone.optimizer);
}

TEST(ShardingTest, RanksDivideOptimizerStateAndBase) {
  const LlamaConfig c = *BuiltInModel("llama-3.1-8b");
  const std::string keys = "ctx: 8192\ngpus: 8\n";
  const auto forecast = [&](const std::string& more, int rows = 8) {
    const std::string batch = "global_batch_size: " + std::to_string(rows) + "\n";
    return ForecastMemory(c, Spec(keys + batch + more), /*gpu=*/true, "full");
  };
  const int64_t trained = TrainableParameterCount(c, Spec(keys));
  const int64_t lora = 2 * LoraParameterCount(c, Spec(keys));
  // Norms are their own masters.
  EXPECT_NEAR(forecast("").trainables, 16 * trained + lora, 1e-3 * 16 * trained);
  EXPECT_NEAR(forecast("zero_stage: 1\n").trainables, (4 + 12 / 8.0) * trained + lora,
              1e-3 * 16 * trained);
  // The rest of the gradients is small beside the embedding's.
  const MemoryForecast two = forecast("zero_stage: 2\n");
  EXPECT_LE(two.trainables, forecast("zero_stage: 1\n").trainables);
  EXPECT_GE(two.trainables, 4 * c.vocab_size * c.hidden_size + 12 * trained / 8);
  const MemoryForecast full1 = forecast("method: full\nzero_stage: 1\n"),
                       full2 = forecast("method: full\nzero_stage: 2\n");
  EXPECT_LT(full2.trainables, full1.trainables / 2);
  // Several rows a rank: gradients add up whole until the last one's.
  EXPECT_EQ(forecast("method: full\nzero_stage: 2\n", 16).trainables, full1.trainables);
  const int64_t whole = forecast("").weights, divided = forecast("shard_base: true\n").weights;
  const int64_t embeddings = 2 * 2 * c.vocab_size * c.hidden_size;  // and a head of its own
  EXPECT_NEAR(divided - embeddings, (whole - embeddings) / 8.0, 0.01 * whole);
  EXPECT_EQ(forecast("shard_base: true\n").activations, forecast("").activations);
  EXPECT_EQ(forecast("activation_offload: true\n").activations,
            forecast("").activations * 3 / c.num_hidden_layers);
}

// Of normally distributed times the expected maximum of 2 is 0.5642 standard deviations above the
// mean, of 8 it is 1.4236 (Harter 1961).
TEST(StepTest, RanksWaitForTheSlowest) {
  const LlamaConfig config = *BuiltInModel("7b");
  const auto step = [&](int gpus, double rank_wait) {
    DeviceRates rates = RatesOf("H200");
    rates.rank_wait = rank_wait;
    const JobSpec spec =
        Spec("ctx: 8192\nglobal_batch_size: 8\ngpus: " + std::to_string(gpus) + "\n");
    return ForecastTime(config, spec, "full", rates).step;
  };
  for (const auto& [gpus, of_two] : {std::pair{1, 0.0}, {2, 1.0}, {8, 1.4236 / 0.5642}}) {
    const StepForecast even = step(gpus, 0), uneven = step(gpus, 0.02);
    const double computing = even.gemm + even.attention + even.recompute + even.memory_traffic;
    EXPECT_NEAR(uneven.communication - even.communication, computing * 0.02 * of_two,
                1e-4 * computing * 0.02);
    EXPECT_EQ(uneven.gemm, even.gemm);
  }
}

// Rank 0 of a job with ZeRO makes the adapter of the ranks' parts, in memory: beside the last
// step's gradients, and beside a whole step where a checkpoint is written in the background.
TEST(ShardingTest, TheAdapterOfPartsIsMadeInMemory) {
  const LlamaConfig c = *BuiltInModel("llama-3.2-1b");
  const auto snapshot = [&](const std::string& more) {
    return ForecastMemory(c,
                          Spec("ctx: 8192\ngpus: 2\nglobal_batch_size: 2\nmax_steps: 3\n" + more),
                          /*gpu=*/false, "full")
        .snapshot;
  };
  const int64_t trained = TrainableParameterCount(c, Spec("ctx: 8192\n")), masters = 4 * trained,
                bucket = 4 * (4 << 20);
  const std::string once = "save_steps: 3\n", often = "save_steps: 2\n";
  EXPECT_EQ(snapshot(once), 0);
  EXPECT_EQ(snapshot(once + "zero_stage: 1\n"), 2 * masters - bucket / 2);
  EXPECT_EQ(snapshot(often), 3 * masters);
  EXPECT_EQ(snapshot(often + "zero_stage: 1\n"), 3 * masters / 2 + 2 * masters);
  EXPECT_EQ(snapshot(once + "method: full\nzero_stage: 1\n"), 0);  // no adapter
  // The last step's gradients are a part by then.
  EXPECT_EQ(snapshot(once + "zero_stage: 2\n"),
            snapshot(once + "zero_stage: 1\n") - masters + masters / 2);
}

// An embedding that is the head too has a gradient for every row, which is summed by the bucket.
TEST(ContextParallelTest, TiedEmbeddingsAreSummedByTheBucket) {
  const LlamaConfig c = *BuiltInModel("llama-3.2-1b");
  const JobSpec spec = Spec("ctx: 8192\ngpus: 8\nglobal_batch_size: 8\n");
  EXPECT_EQ(ForecastMemory(c, spec, /*gpu=*/true, "full").communication, 4 * (4 << 20));
}

TEST(FlopsTest, ReproducesLongLorasTable) {  // claim 10, TFLOPs
  LlamaConfig c = *BuiltInModel("7b");
  FlopCount f = ForwardFlops(c, 8192, 8192);
  EXPECT_NEAR(f.attention / 1e12, 35.2, 0.05);
  EXPECT_NEAR(f.projections / 1e12, 35.2, 0.05);
  EXPECT_NEAR(f.feed_forward / 1e12, 70.9, 0.05);
  EXPECT_NEAR(f.others / 1e12, 2.2, 0.05);
  const double full[] = {24.5, 39.4, 56.5, 72.2}, s2[] = {7.5, 14.0, 24.5, 39.4};
  for (int i = 0; i < 4; ++i) {
    const int64_t n = int64_t{8192} << i;
    FlopCount a = ForwardFlops(c, n, n), b = ForwardFlops(c, n, n / 4);
    EXPECT_NEAR(100 * a.attention / a.total(), full[i], 0.1) << n;
    EXPECT_NEAR(100 * b.attention / b.total(), s2[i], 0.1) << n;
  }
}

TEST(FlopsTest, TheTableIsThePapers) {  // claim 10
  LL_ASSERT_OK_AND_ASSIGN(
      const std::vector<FlopsRow> rows,
      FlopsTable(*BuiltInModel("llama-2-7b"), {8192, 16384, 32768, 65536}, 0.25));
  const double attention[] = {35.2, 140.7, 562.9, 2251.8}, others[] = {2.2, 4.3, 8.7, 17.3},
               total[] = {143.5, 357.2, 996.0, 3118}, s2_total[] = {117.1, 251.7, 573.8, 1429.1};
  ASSERT_EQ(rows.size(), 4u);
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_NEAR(rows[i].full.attention / 1e12, attention[i], 0.051) << i;
    EXPECT_NEAR(rows[i].s2.attention / 1e12, attention[i] / 4, 0.051) << i;
    EXPECT_NEAR(rows[i].full.others / 1e12, others[i], 0.051) << i;
    EXPECT_NEAR(rows[i].full.total() / 1e12, total[i], 0.51) << i;
    EXPECT_NEAR(rows[i].s2.total() / 1e12, s2_total[i], 0.16) << i;
  }
  const std::string text = FlopsTableText(rows);
  EXPECT_THAT(text, HasSubstr("    8192  full           35.2      35.2      70.9       2.2"));
  for (const char* share : {"24.5 %", "39.4 %", "56.5 %", "72.2 %", " 7.5 %", "14.0 %"})
    EXPECT_THAT(text, HasSubstr(share));
  const nlohmann::ordered_json json = FlopsTableJson(rows);
  EXPECT_EQ(json[3]["group_tokens"], 16384);
  EXPECT_NEAR(json[3]["s2"]["attention_share"].get<double>(), 0.394, 0.001);
  EXPECT_THAT(FlopsTable(*BuiltInModel("7b"), {3}, 0.25),
              StatusIs(absl::StatusCode::kInvalidArgument, "context_length"));
}

TEST(FlopsTest, CausalS2EqualsAnEnumerationOfPairs) {
  LlamaConfig c = *BuiltInModel("7b");
  c.num_attention_heads = 3;
  c.num_hidden_layers = 1;
  for (int64_t n : {16, 17, 29}) {
    const int64_t g = 5, half = 2;
    double pairs = 0;
    for (int64_t t = 0; t < n; ++t) {
      for (int64_t u = 0; u <= t; ++u) {
        pairs += (u / g == t / g);  // one unshifted head of three
        auto segment = [&](int64_t x) { return x < half ? 0 : 1 + (x - half) / g; };
        pairs += 2 * (segment(u) == segment(t));
      }
    }
    EXPECT_DOUBLE_EQ(CausalAttentionFlops(c, n, "s2", g), 4.0 * c.head_dim * pairs) << n;
  }
  // "exact (no wrap) x0.2344" of full attention for long sequences.
  EXPECT_NEAR(CausalAttentionFlops(*BuiltInModel("7b"), 32768, "s2", 8192) /
                  CausalAttentionFlops(*BuiltInModel("7b"), 32768, "full", 0),
              0.2344, 0.001);
}

TEST(FlopsTest, SlidingWindowEqualsAnEnumerationOfPairs) {
  LlamaConfig c = *BuiltInModel("mistral-7b");
  c.num_attention_heads = 1;
  c.num_hidden_layers = 3;
  c.sliding_window = 5;
  c.windowed_layers = {true, false, true};
  for (int64_t n : {3, 5, 6, 29}) {
    double pairs = 0;
    for (int64_t t = 0; t < n; ++t) {
      for (int64_t u = 0; u <= t; ++u) pairs += 1 + 2 * (t - u < 5);
    }
    EXPECT_DOUBLE_EQ(CausalAttentionFlops(c, n, "full", 0), 4.0 * c.head_dim * pairs) << n;
  }
}

TEST(ParameterTest, NormsOfHeadsTrainWithTheNorms) {
  const LlamaConfig c = *BuiltInModel("qwen3-8b");
  const JobSpec with = Spec("ctx: 65536\ntrainable: [norm]\n"),
                without = Spec("ctx: 65536\ntrainable: [none]\n");
  EXPECT_EQ(TrainableParameterCount(c, with) - TrainableParameterCount(c, without),
            (2 * 36 + 1) * 4096 + 36 * 2 * 128);
  // Their backward needs q and k as they were before: 2 bytes for 32 + 8 heads of 128, a token and
  // layer.
  LlamaConfig plain = c;
  plain.model_type = "llama";
  EXPECT_EQ(ForecastMemory(c, with, true, "none").activations -
                ForecastMemory(plain, with, true, "none").activations,
            int64_t{65536} * 36 * (40 * 128 * 2 + 40 * 4));
}

TEST(TimeTest, GoodStepTimesOf7bOnH200) {
  // One 32k sequence: 2.39 s of products and attention with full recompute, 1.66 s without, and
  // 0.12 to 0.16 s of elementwise traffic (reference figures). Less here: down_proj, 0.13 s, is not
  // computed again, residual sums are part of products, and what no trained weight needs is not
  // made anew.
  JobSpec s = Spec("ctx: 32768\nglobal_batch_size: 1\nmax_steps: 10\n");
  const auto computing = [](const StepForecast& f) { return f.gemm + f.attention + f.recompute; };
  const TimeForecast full = ForecastTime(*BuiltInModel("7b"), s, "full", RatesOf("H200"));
  EXPECT_NEAR(computing(full.step), 2.39 - 0.13, 0.1);
  EXPECT_NEAR(full.step.memory_traffic, 0.093, 0.005);
  TimeForecast none = ForecastTime(*BuiltInModel("7b"), s, "none", RatesOf("H200"));
  EXPECT_NEAR(computing(none.step), 1.66, 0.1);
  EXPECT_NEAR(none.step.memory_traffic, 0.079, 0.005);
  EXPECT_EQ(none.step.recompute, 0);
  EXPECT_NEAR(none.step_seconds, none.step.total(), 1e-12);
  EXPECT_NEAR(none.duration_seconds, 10 * none.step_seconds, 1e-9);
  EXPECT_EQ(ForecastTime(*BuiltInModel("7b"), s, "full", RatesOf("no such")).step_seconds, 0);
}

TEST(MemoryTest, ActivationBytesOf7b) {
  // 93 KB, 49 KB and 8 KB a token and layer.
  JobSpec s = Spec("ctx: 32768\n");
  LlamaConfig c = *BuiltInModel("7b");
  // And what the norms divided by, and what the adapters of rank 8 of q, k, v and o keep.
  const int64_t tokens_layers = 32768 * 32, rest = 4 * (32 + 2) + 2 * 4 * 8;
  EXPECT_EQ(ForecastMemory(c, s, true, "none").activations, tokens_layers * (93184 + rest));
  EXPECT_EQ(ForecastMemory(c, s, true, "selective").activations, tokens_layers * (49152 + rest));
  EXPECT_EQ(ForecastMemory(c, s, true, "full").activations, tokens_layers * 8192);
  const int64_t norms = (2 * 32 + 1) * 4096;  // in fp32
  EXPECT_EQ(ForecastMemory(c, s, true, "full").weights, 2 * c.ParameterCount() + 2 * norms);
}

TEST(FitsTest, ChoosesTheLeastRecomputationThatFits) {
  LlamaConfig c = *BuiltInModel("7b");
  const Device a100{"A100-80", 80'000'000'000};
  FitResult small = Fits(c, Spec("ctx: 8192\n"), a100);
  EXPECT_TRUE(small.fits) << small.explanation;
  EXPECT_EQ(small.recompute, "none");
  FitResult large = Fits(c, Spec("ctx: 65536\n"), a100);
  EXPECT_TRUE(large.fits) << large.explanation;
  EXPECT_EQ(large.recompute, "full");
}

TEST(MemoryTest, EvaluationKeepsNothing) {
  LlamaConfig c = *BuiltInModel("7b");
  JobSpec s = Spec("kind: eval\ndata: d\neval_seq_len: 8192\n");
  MemoryForecast gpu = ForecastMemory(c, s, true, "none"),
                 cpu = ForecastMemory(c, s, false, "none");
  EXPECT_EQ(gpu.activations + gpu.trainables, 0);
  const int64_t norms = (2 * 32 + 1) * 4096;  // in fp32
  EXPECT_EQ(gpu.weights, 2 * c.ParameterCount() + 2 * norms);
  EXPECT_EQ(cpu.weights, 4 * c.ParameterCount());  // fp32 by default
  EXPECT_EQ(gpu.workspace, 8192 * 93184);
  FitResult r = Fits(c, s, {"A100-80", 8'000'000'000});
  EXPECT_FALSE(r.fits);
  EXPECT_EQ(ForecastTime(c, s, "none", RatesOf("H200")).step_seconds, 0);
}

TEST(MemoryTest, MethodsThatTrainLessNeedLess) {
  const LlamaConfig c = *BuiltInModel("7b");
  const auto trained = [&](const std::string& yaml) {
    return ForecastMemory(c, Spec("ctx: 8192\ngpus: 8\n" + yaml), true, "full").trainables;
  };
  // Master, gradient and two moments in fp32.
  const int64_t norms = (2 * 32 + 1) * 4096;
  EXPECT_EQ(trained("method: full\n"), 16 * c.ParameterCount() - 4 * norms);
  const int64_t lora = 8388608;
  EXPECT_EQ(trained("method: lora\n"), 18 * lora);  // and a bf16 copy
  EXPECT_EQ(trained("method: lora\nzero_stage: 1\n"), 4 * lora + 2 * lora + 12 * lora / 8);
  const MemoryForecast whole = ForecastMemory(c, Spec("ctx: 8192\ngpus: 8\n"), true, "full"),
                       shared = ForecastMemory(c, Spec("ctx: 8192\ngpus: 8\nshard_base: true\n"),
                                               true, "full");
  EXPECT_EQ(whole.weights - shared.weights, LinearParameterCount(c) * 2 * 7 / 8);
  EXPECT_EQ(shared.communication - whole.communication,
            2 * 2 * LinearParameterCount(c) / 32);  // two layers, gathered
}

TEST(MemoryTest, OffloadLeavesThreeLayersInputs) {
  const LlamaConfig c = *BuiltInModel("7b");
  const auto kept = [&](const std::string& yaml, bool gpu) {
    return ForecastMemory(c, Spec("ctx: 32768\n" + yaml), gpu, "full").activations;
  };
  EXPECT_EQ(kept("activation_offload: true\n", true), kept("", true) / 32 * 3);
  EXPECT_EQ(kept("activation_offload: true\n", false),
            kept("", false));  // its memory is the host's
}

}  // namespace
}  // namespace ll
