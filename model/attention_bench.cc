// Times the attention of one layer alone, S²-Attn (ratio 1/4) beside full causal attention, bf16,
// on SmolLM2-135M's heads (9 query, 3 key/value, 64 wide) and Llama-2-7B's (32, 32, 128).
//   attention_bench --benchmark_filter=8192
#include <benchmark/benchmark.h>

#include "base/check.h"
#include "model/shifted_attention.h"

namespace ll {
namespace {

enum Heads { kSmolLm2, kLlama7B };

void Attention(benchmark::State& state, AttentionKind kind, Heads heads, bool backward) {
  const int64_t tokens = state.range(0);
  LlamaConfig config;
  config.num_attention_heads = heads == kSmolLm2 ? 9 : 32;
  config.num_key_value_heads = heads == kSmolLm2 ? 3 : 32;
  config.head_dim = heads == kSmolLm2 ? 64 : 128;
  const AttentionSpec spec{kind, WrapKind::kSplit, tokens / 4};
  const auto plan = MakeAttentionPlan(config, spec, tokens, {});
  LL_CHECK(plan.ok());
  const int64_t q = config.num_attention_heads * config.head_dim;
  const int64_t width = q + 2 * config.num_key_value_heads * config.head_dim;
  at::manual_seed(0);
  const at::Tensor qkv = at::randn({tokens, width}).to(at::kBFloat16);
  const at::Tensor dout = at::randn({tokens, q}).to(at::kBFloat16);
  at::Tensor out = at::empty_like(dout), dqkv = at::empty_like(qkv);
  at::Tensor lse = at::empty({config.num_attention_heads, tokens}, at::kFloat);
  AttentionForward(*plan, /*window=*/0, qkv, out, lse);
  for (auto _ : state) {
    if (backward) {
      AttentionBackward(*plan, /*window=*/0, qkv, out, lse, dout, dqkv);
    } else {
      AttentionForward(*plan, /*window=*/0, qkv, out, lse);
    }
  }
  state.counters["tokens_per_second"] = benchmark::Counter(
      static_cast<double>(state.iterations() * tokens), benchmark::Counter::kIsRate);
}

void Register(const char* name, Heads heads) {
  for (const bool backward : {false, true}) {
    for (const auto kind : {AttentionKind::kS2, AttentionKind::kFull}) {
      const std::string title = std::string(name) + (backward ? "/backward" : "/forward") +
                                (kind == AttentionKind::kS2 ? "/s2" : "/full");
      benchmark::RegisterBenchmark(
          title.c_str(), [=](benchmark::State& state) { Attention(state, kind, heads, backward); })
          ->Arg(4096)
          ->Arg(8192)
          ->Unit(benchmark::kMillisecond)
          ->UseRealTime();
    }
  }
}

}  // namespace
}  // namespace ll

int main(int argc, char** argv) {
  ll::Register("smollm2", ll::kSmolLm2);
  ll::Register("llama7b", ll::kLlama7B);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
