#include "base/status_matchers.h"
#include "model/plan/flops_table.h"
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
  EXPECT_GE(shard.activations, whole.activations / 8 + received);
  EXPECT_LT(shard.activations, whole.activations / 4);
  EXPECT_EQ(shard.workspace, whole.workspace / 8);
  // As many rows in as much time: eight ranks take one row after the other instead of one each.
  const Throughput h200 = ThroughputOf("H200");
  EXPECT_NEAR(ForecastTime(c, eight, "full", h200).step_seconds,
              ForecastTime(c, one, "full", h200).step_seconds, 1e-9);
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
            int64_t{65536} * 36 * 40 * 128 * 2);
}

TEST(TimeTest, GoodStepTimesOf7bOnH200) {
  // One 32k sequence: 2.39 s with full recompute, 1.66 s without (bench reference figures).
  JobSpec s = Spec("ctx: 32768\nglobal_batch_size: 1\nmax_steps: 10\n");
  EXPECT_NEAR(ForecastTime(*BuiltInModel("7b"), s, "full", ThroughputOf("H200")).step_seconds, 2.39,
              0.12);
  TimeForecast none = ForecastTime(*BuiltInModel("7b"), s, "none", ThroughputOf("H200"));
  EXPECT_NEAR(none.step_seconds, 1.66, 0.1);
  EXPECT_NEAR(none.duration_seconds, 10 * none.step_seconds, 1e-9);
  EXPECT_EQ(ForecastTime(*BuiltInModel("7b"), s, "full", ThroughputOf("cpu")).step_seconds, 0);
}

TEST(MemoryTest, ActivationBytesOf7b) {
  // 93 KB, 49 KB and 8 KB a token and layer.
  JobSpec s = Spec("ctx: 32768\n");
  LlamaConfig c = *BuiltInModel("7b");
  const int64_t tokens_layers = 32768 * 32, lse = 4 * 32;
  EXPECT_EQ(ForecastMemory(c, s, true, "none").activations, tokens_layers * (93184 + lse));
  EXPECT_EQ(ForecastMemory(c, s, true, "selective").activations, tokens_layers * (49152 + lse));
  EXPECT_EQ(ForecastMemory(c, s, true, "full").activations, tokens_layers * 8192);
  EXPECT_EQ(ForecastMemory(c, s, true, "full").weights, 2 * c.ParameterCount());
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
  EXPECT_EQ(gpu.weights, 2 * c.ParameterCount());
  EXPECT_EQ(cpu.weights, 4 * c.ParameterCount());  // fp32 by default
  EXPECT_EQ(gpu.workspace, 8192 * 93184);
  FitResult r = Fits(c, s, {"A100-80", 8'000'000'000});
  EXPECT_FALSE(r.fits);
  EXPECT_THAT(r.nearest, HasSubstr("a device with at least"));
  EXPECT_EQ(ForecastTime(c, s, "none", ThroughputOf("H200")).step_seconds, 0);
}

TEST(FitsTest, RefusalSaysWhatIsMissingAndWhatWouldFit) {
  const Device a100{"A100-80", 80'000'000'000};
  FitResult r = Fits(*BuiltInModel("70b"), Spec("ctx: 32768\n"), a100);
  EXPECT_FALSE(r.fits);
  EXPECT_GT(r.needed_bytes, r.available_bytes);
  EXPECT_THAT(r.explanation, HasSubstr("weights 138 GB"));
  EXPECT_THAT(r.nearest, HasSubstr("a device with at least"));
  FitResult long_row = Fits(*BuiltInModel("7b"), Spec("ctx: 1000000\n"), a100);
  EXPECT_FALSE(long_row.fits);
  ASSERT_THAT(long_row.nearest, HasSubstr("--ctx "));
  const int64_t context = std::stoll(long_row.nearest.substr(6));
  EXPECT_TRUE(Fits(*BuiltInModel("7b"), Spec("ctx: " + std::to_string(context)), a100).fits);
  EXPECT_FALSE(
      Fits(*BuiltInModel("7b"), Spec("ctx: " + std::to_string(context + 1024)), a100).fits);
}

}  // namespace
}  // namespace ll
