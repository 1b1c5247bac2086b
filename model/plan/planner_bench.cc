// How long a plan takes: `build/bench/planner_bench`. The target is 50 ms for 70B on 1,000 GPUs.
#include <benchmark/benchmark.h>

#include "base/check.h"
#include "model/plan/models.h"
#include "model/plan/nearest.h"

namespace ll {
namespace {

void BM_Plan70b(benchmark::State& state) {
  const LlamaConfig config = *BuiltInModel("70b");
  const auto given =
      ParseJobSpec("model: 70b\nctx: 32768\ngpus: " + std::to_string(state.range(0)));
  LL_CHECK(given.ok());
  const auto resolved = Resolve(*given, {config.ParameterCount(), 4096});
  LL_CHECK(resolved.ok());
  const DeviceKind& h100 = *FindDevice("H100");
  const Cluster cluster{h100.device, h100.rates, state.range(0), 8};
  const PlanProblem problem{config, *given, *resolved, cluster};
  for (auto _ : state) {
    const std::vector<PlannedRun> plans = Enumerate(problem);
    state.counters["plans"] = static_cast<double>(plans.size());
    if (!Choose(problem, plans)) benchmark::DoNotOptimize(Refuse(problem, plans));
  }
}
BENCHMARK(BM_Plan70b)->Arg(1)->Arg(8)->Arg(1000)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace ll

BENCHMARK_MAIN();
