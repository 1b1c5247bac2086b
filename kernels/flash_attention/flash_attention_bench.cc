// GFLOP/s per core (process CPU time) of these kernels, also where torch's would be used
// (FlashAttentionUsable), and of torch's CPU flash attention on the same input, bf16 and fp32,
// causal. A causal call counts half of the full rectangle: 2 B H N^2 D forward, 2.5 times that
// backward.
//   flash_attention_bench --benchmark_filter=64
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include <cmath>

#include "kernels/flash_attention/flash_attention_torch.h"

namespace ll {
namespace {

struct Case {
  explicit Case(const benchmark::State& state, at::ScalarType type = at::kBFloat16) {
    const int64_t b = state.range(0), h = state.range(1), kv = state.range(2), n = state.range(3),
                  d = state.range(4);
    at::set_num_threads(1);
    const auto make = [&](int64_t heads) {
      return at::randn({b, n, heads, d}).to(type).transpose(1, 2);
    };
    q = make(h);
    k = make(kv);
    v = make(kv);
    dout = make(h);
    out = at::empty_like(q);
    dq = at::empty_like(q);
    dk = at::empty_like(k);
    dv = at::empty_like(v);
    lse = at::empty({b, h, n}, at::kFloat);
    scale = 1 / std::sqrt(double(d));
    flops = 2.0 * b * h * n * n * d;
  }
  at::Tensor q, k, v, dout, out, lse, dq, dk, dv;
  double scale = 0, flops = 0;
};

void Report(benchmark::State& state, double flops) {
  state.counters["GFLOP/s"] =
      benchmark::Counter(flops * state.iterations() / 1e9, benchmark::Counter::kIsRate);
}

template <at::ScalarType kType>
void Forward(benchmark::State& state) {
  Case c(state, kType);
  for (auto _ : state) FlashAttentionForward({{c.q, c.k, c.v, c.out, c.lse}}, c.scale, true);
  Report(state, c.flops);
}
template <at::ScalarType kType>
void Backward(benchmark::State& state) {
  Case c(state, kType);
  FlashAttentionForward({{c.q, c.k, c.v, c.out, c.lse}}, c.scale, true);
  for (auto _ : state) {
    FlashAttentionBackward({{c.q, c.k, c.v, c.out, c.lse, c.dout, c.dq, c.dk, c.dv}}, c.scale,
                           true);
  }
  Report(state, 2.5 * c.flops);
}
template <at::ScalarType kType>
void TorchForward(benchmark::State& state) {
  Case c(state, kType);
  for (auto _ : state) at::_scaled_dot_product_flash_attention_for_cpu(c.q, c.k, c.v, 0.0, true);
  Report(state, c.flops);
}
template <at::ScalarType kType>
void TorchBackward(benchmark::State& state) {
  Case c(state, kType);
  const auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(c.q, c.k, c.v, 0.0, true);
  for (auto _ : state) {
    at::_scaled_dot_product_flash_attention_for_cpu_backward(c.dout, c.q, c.k, c.v, out, lse, 0.0,
                                                             true);
  }
  Report(state, 2.5 * c.flops);
}

void Shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"B", "H", "K", "N", "D"})->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime();
  b->Args({4, 9, 3, 1024, 64})
      ->Args({2, 9, 3, 512, 64})
      ->Args({4, 9, 3, 2048, 64})
      ->Args({1, 9, 3, 4096, 64});
  b->Args({2, 8, 8, 1024, 128})->Args({8, 4, 4, 256, 64});
}
BENCHMARK(Forward<at::kBFloat16>)->Apply(Shapes);
BENCHMARK(TorchForward<at::kBFloat16>)->Apply(Shapes);
BENCHMARK(Forward<at::kFloat>)->Apply(Shapes);
BENCHMARK(TorchForward<at::kFloat>)->Apply(Shapes);
BENCHMARK(Backward<at::kBFloat16>)->Apply(Shapes);
BENCHMARK(TorchBackward<at::kBFloat16>)->Apply(Shapes);
BENCHMARK(Backward<at::kFloat>)->Apply(Shapes);
BENCHMARK(TorchBackward<at::kFloat>)->Apply(Shapes);

}  // namespace
}  // namespace ll

BENCHMARK_MAIN();
