// Durable submits a second: eight clients over loopback gRPC, each waiting for its answer before
// the next, SQLite with synchronous=FULL. Run by hand: build/bench/submit_bench
#include <benchmark/benchmark.h>

#include "base/check.h"
#include "base/log.h"
#include "coordinator/testing.h"

namespace ll {
namespace {

constexpr char kConfig[] =
    R"({"model_type":"llama","architectures":["LlamaForCausalLM"],"vocab_size":512,"hidden_size":64,
        "intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
        "max_position_embeddings":256,"rms_norm_eps":1e-5,"hidden_act":"silu"})";

struct Service {
  Service() {
    SetLogLevel(LogLevel::kWarning);
    LL_CHECK(WriteFileAtomic(under_test.dir() + "/config.json", kConfig).ok());
    LL_CHECK(under_test.Start().ok());
  }
  CoordinatorUnderTest under_test;
};

void BM_Submit(benchmark::State& state) {
  static Service* service = new Service;
  auto jobs = v1::Jobs::NewStub(service->under_test.Channel());
  v1::SubmitRequest request;
  request.mutable_spec()->set_kind("train");
  request.mutable_spec()->set_model(service->under_test.dir());
  request.mutable_spec()->set_data(service->under_test.dir());
  request.mutable_spec()->set_context_length(8192);
  int64_t number = 0;
  for (auto _ : state) {
    request.set_request_id(absl::StrCat(state.thread_index(), "-", state.range(0), "-", ++number));
    const auto got = CallOnce<v1::SubmitResponse>(*jobs, &v1::Jobs::Stub::Submit, request);
    if (!got.ok()) state.SkipWithError(std::string(got.status().message()).c_str());
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_Submit)->Arg(1)->Threads(8)->UseRealTime()->MinTime(5);

}  // namespace
}  // namespace ll

BENCHMARK_MAIN();
