// Times ForwardBackward and an AdamW step on SmolLM2-135M's shape with random weights (speed does
// not depend on their values) and prints one JSON object. `ll-trainer` on a real folder runs the
// same code with data and checkpoints.
//
//   model_bench [--tokens N] [--steps N] [--attention s2|full] [--recompute none|selective|full]
//   [--dtype bf16|fp32]
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <string>

#include "kernels/ops.h"
#include "model/llama.h"

namespace ll {
namespace {

LlamaConfig SmolLm2() {
  LlamaConfig c;
  c.vocab_size = 49152;
  c.hidden_size = 576;
  c.intermediate_size = 1536;
  c.num_hidden_layers = 30;
  c.num_attention_heads = 9;
  c.num_key_value_heads = 3;
  c.head_dim = 64;
  c.max_position_embeddings = 8192;
  c.rope_theta = 100000;
  c.tie_word_embeddings = true;
  return c;
}

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double UserSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_utime.tv_usec * 1e-6;
}

int Run(const std::map<std::string, std::string>& flags) {
  const auto flag = [&](const std::string& name, const std::string& value) {
    const auto it = flags.find(name);
    return it == flags.end() ? value : it->second;
  };
  const int64_t tokens = std::stoll(flag("tokens", "4096")), steps = std::stoll(flag("steps", "3"));
  ModelOptions options;
  options.dtype = flag("dtype", "bf16") == "fp32" ? at::kFloat : at::kBFloat16;
  options.lora = {8, 16, 0, {"q_proj", "k_proj", "v_proj", "o_proj"}, false};
  options.train_embedding = options.train_norm = true;
  const std::string recompute = flag("recompute", "selective");
  options.recompute = recompute == "none"   ? Recompute::kNone
                      : recompute == "full" ? Recompute::kFull
                                            : Recompute::kSelective;
  const bool s2 = flag("attention", "s2") == "s2";
  const AttentionSpec attention{s2 ? AttentionKind::kS2 : AttentionKind::kFull, WrapKind::kSplit,
                                tokens / 4};
  const LlamaConfig config = SmolLm2();
  RandomWeights weights(1, config);
  auto model = Llama::Create(config, weights, options);
  if (!model.ok()) {
    std::fprintf(stderr, "%s\n", std::string(model.status().message()).c_str());
    return 1;
  }
  std::vector<std::pair<at::Tensor, at::Tensor>> moments;
  for (const Parameter& p : (*model)->parameters())
    moments.push_back({at::zeros_like(p.master), at::zeros_like(p.master)});
  at::manual_seed(0);
  const Row row{at::randint(0, config.vocab_size, {tokens}, at::kLong),
                at::randint(0, config.vocab_size, {tokens}, at::kLong),
                {},
                0};
  for (int64_t step = 1; step <= steps; ++step) {
    const double start = Seconds(), user = UserSeconds();
    PhaseSeconds phases;
    (*model)->ZeroGrad();
    const auto loss = (*model)->ForwardBackward(row, attention, 1.0 / tokens, &phases);
    if (!loss.ok()) {
      std::fprintf(stderr, "%s\n", std::string(loss.status().message()).c_str());
      return 1;
    }
    const double computed = Seconds();
    double squares = 0;
    for (const Parameter& p : (*model)->parameters()) squares += SumSquares(p.grad);
    AdamWSettings adamw{
        .lr = 2e-5, .step = step, .grad_scale = std::min(1.0, 1.0 / std::sqrt(squares))};
    for (size_t i = 0; i < moments.size(); ++i) {
      Parameter& p = (*model)->parameters()[i];
      AdamWStep(adamw, p.master, moments[i].first, moments[i].second, p.grad, p.compute);
    }
    const double end = Seconds();
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    std::printf(
        "{\"step\": %lld, \"loss\": %.5f, \"seconds\": %.3f, \"tokens_per_second\": %.1f, "
        "\"user_seconds\": %.3f, "
        "\"forward\": %.3f, \"head\": %.3f, \"backward\": %.3f, \"optimizer\": %.3f, "
        "\"peak_rss_bytes\": %lld}\n",
        static_cast<long long>(step), *loss / tokens, end - start, tokens / (end - start),
        UserSeconds() - user, phases.forward, phases.head, phases.backward, end - computed,
        usage.ru_maxrss * 1024LL);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace ll

int main(int argc, char** argv) {
  std::map<std::string, std::string> flags;
  for (int i = 1; i + 1 < argc; i += 2) flags[std::string(argv[i]).substr(2)] = argv[i + 1];
  return ll::Run(flags);
}
