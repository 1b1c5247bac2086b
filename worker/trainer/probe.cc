#include "worker/trainer/probe.h"

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include "base/gpu_kind.h"
#include "base/status_macros.h"
#include "kernels/common/torch_op_trace.h"
#include "model/llama.h"
#include "model/plan/time_plan.h"
#include "model/torch_edge.h"
#include "model/weight_source.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/device.h"
#include "worker/trainer/median.h"
#include "worker/trainer/optim/adamw.h"
#include "worker/trainer/optim/sharded_parameters.h"
#include "worker/trainer/probe_link.h"

namespace ll {
namespace {

// Shares of the budget: four trainings, memory, evenness, and the link.
constexpr int kMeasurements = 7;

// `work` is repeated for `budget`; the median of `amount` over the seconds of one time.
double Rate(double amount, absl::Duration budget, Clock& clock, const std::function<void()>& work) {
  work();  // fresh pages, code and workspaces
  std::vector<double> rates;
  const absl::Duration begin = clock.Steady();
  while (rates.size() < static_cast<size_t>(kLeastRepeats) || clock.Steady() - begin < budget) {
    const absl::Duration start = clock.Steady();
    work();
    rates.push_back(amount / std::max(1e-9, absl::ToDoubleSeconds(clock.Steady() - start)));
  }
  return MedianOf(std::move(rates));
}

// Of times that are alike but for chance: by what share of their mean the larger of two of them
// exceeds it, half of their mean difference (Gini).
double ShareOfWaiting(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  const auto n = static_cast<double>(seconds.size());
  double sum = 0, weighted = 0;
  for (size_t i = 0; i < seconds.size(); ++i) {
    sum += seconds[i];
    weighted += (2 * static_cast<double>(i) + 1 - n) * seconds[i];
  }
  return n < 2 || sum <= 0 ? 0 : weighted / (n - 1) / sum;
}

struct Shapes {
  int64_t tokens, hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, copy_bytes;
};

// Enough layers, and so large ones, that a tensor has left a CPU's caches when it is used again.
Shapes ShapesFor(bool gpu, bool small) {
  if (small) return {256, 128, 256, 1, 4, 2, 32, 512, 1 << 20};
  // A CPU trains models of the size of SmolLM2-135M (with heads that its threads share evenly), a
  // GPU those of Llama-2-7B.
  if (!gpu) return {4096, 576, 1536, 3, 8, 4, 64, 8192, 256 << 20};
  return {16384, 4096, 11008, 4, 32, 32, 128, 32000, int64_t{1} << 30};
}

// fp32's rates hardly depend on the row's length, and its steps are slow: half a row.
Shapes ForFp32(Shapes s) {
  s.tokens /= 2;
  return s;
}

LlamaConfig ConfigOf(const Shapes& s) {
  LlamaConfig config;
  config.hidden_size = s.hidden;
  config.intermediate_size = s.intermediate;
  config.num_hidden_layers = s.layers;
  config.num_attention_heads = s.heads;
  config.num_key_value_heads = s.kv_heads;
  config.head_dim = s.head_dim;
  config.vocab_size = s.vocab;
  config.max_position_embeddings = s.tokens;
  config.tie_word_embeddings = true;
  return config;
}

at::TensorOptions Bf16() { return at::TensorOptions(ProcessDevice()).dtype(at::kBFloat16); }

// ---- a training of a few layers with random weights

// What of its time and work each operation had in a step, over all phases.
struct StepTimes {
  struct Sum {
    double seconds = 0, flops = 0, bytes = 0;
  };
  std::map<std::string, Sum> operations;
  double parameters = 0;  // trained

  Sum Of(std::initializer_list<const char*> names) const {
    Sum all;
    for (const char* name : names) {
      const auto found = operations.find(name);
      if (found == operations.end()) continue;
      all.seconds += found->second.seconds;
      all.flops += found->second.flops;
      all.bytes += found->second.bytes;
    }
    return all;
  }
};

struct ProbedTraining {
  at::ScalarType dtype = at::kBFloat16;
  AttentionKind attention = AttentionKind::kS2;
  BaseFormat base = BaseFormat::kCompute;
};

// One step of a training on one row.
absl::Status TakeStep(const AttentionSpec& attention, const Row& row, int64_t step, Llama& model,
                      ShardedParameters& parameters, AdamWOptimizer& optimizer) {
  parameters.StartStep();
  parameters.Touch(row.tokens);
  parameters.LastRow();
  const double scale = 1.0 / static_cast<double>(row.tokens.numel());
  LL_RETURN_IF_ERROR(
      model.ForwardBackward(row, attention, scale, nullptr, nullptr, &parameters).status());
  LL_RETURN_IF_ERROR(parameters.FinishReduction());
  LL_RETURN_IF_ERROR(parameters.GradNorm().status());
  optimizer.Step(step, /*learning_rate=*/1e-5, /*grad_scale=*/1);
  return parameters.GatherParameters();
}

// Medians over the steps that fit into `budget`, at least kLeastRepeats where two budgets hold
// them.
absl::StatusOr<StepTimes> TimeTraining(const Shapes& shapes, const ProbedTraining& training,
                                       absl::Duration budget, Clock& clock) {
  const LlamaConfig config = ConfigOf(shapes);
  ModelOptions options;
  options.dtype = training.dtype;
  options.device = ProcessDevice();
  options.base = training.base;
  options.lora.rank = 8;
  options.lora.alpha = 16;
  options.lora.target_modules = {"q_proj", "k_proj", "v_proj", "o_proj"};
  options.train_embedding = true;
  options.train_norm = true;
  RandomWeights weights(/*seed=*/0, config);
  LL_ASSIGN_OR_RETURN(const std::unique_ptr<Llama> model, Llama::Create(config, weights, options));
  const std::unique_ptr<Comm> comm = MakeSingleComm();
  ShardedParameters parameters(model->parameters(), 0, /*sparse_embedding=*/false, *comm);
  AdamWOptimizer optimizer(parameters.slices(), AdamWOptions{0.9, 0.95, 1e-8, 0.0});
  const AttentionSpec attention{training.attention, WrapKind::kSplit, shapes.tokens / 4};
  Row row;
  // Tokens of all kinds, in no order that caches like.
  row.tokens = (at::arange(shapes.tokens, at::kLong) * 7919) % shapes.vocab;
  row.labels = (row.tokens + 1) % shapes.vocab;

  StepTimes times;
  for (const Parameter& p : model->parameters())
    times.parameters += static_cast<double>(p.master.numel());
  int64_t step = 1;
  LL_RETURN_IF_ERROR(TakeStep(attention, row, step, *model, parameters, optimizer));  // fresh pages
  std::map<std::string, std::vector<double>> seconds;
  const absl::Duration begin = clock.Steady();
  // On a slow host or in a bad minute fewer times, so that the whole takes little longer there.
  const auto enough = [&](int taken) {
    const absl::Duration spent = clock.Steady() - begin;
    return taken >= kLeastRepeats ? spent >= budget : taken > 0 && spent >= 2 * budget;
  };
  for (int taken = 0; !enough(taken); ++taken) {
    OpTrace trace(clock, WaitForDevice);
    {
      const OpTracing on(trace);
      LL_RETURN_IF_ERROR(TakeStep(attention, row, ++step, *model, parameters, optimizer));
    }
    std::map<std::string, StepTimes::Sum> operations;
    for (const auto& [key, sum] : trace.sums()) {
      StepTimes::Sum& mine = operations[key.second];
      mine.seconds += sum.seconds;
      mine.flops += sum.work.flops;
      mine.bytes += sum.work.bytes;
    }
    for (const auto& [name, sum] : operations) seconds[name].push_back(sum.seconds);
    times.operations = std::move(operations);
  }
  for (auto& [name, sum] : times.operations) sum.seconds = MedianOf(std::move(seconds[name]));
  return times;
}

struct AttentionRate {
  double flops = 0;       // a second
  double extra_keys = 0;  // that a query costs beyond those it sees
};

// From short segments and long ones: seconds = (pairs + extra_keys * queries) / rate.
AttentionRate AttentionOf(const Shapes& shapes, const StepTimes& s2, const StepTimes& full) {
  const StepTimes::Sum few = s2.Of({"attention"}), many = full.Of({"attention"});
  AttentionRate out;
  // Both have as many queries; the longer one has more pairs for each.
  const double per_flop = (many.seconds - few.seconds) / (many.flops - few.flops);
  const double queries =
      3.5 * AttentionQueryFlops(ConfigOf(shapes)) * static_cast<double>(shapes.tokens);
  const double overhead = many.seconds - per_flop * many.flops;
  if (per_flop <= 0 || overhead <= 0) {
    out.flops = (few.flops + many.flops) / (few.seconds + many.seconds);
    return out;
  }
  out.flops = 1 / per_flop;
  out.extra_keys = overhead / per_flop / queries;
  return out;
}

double RateOf(double amount, double seconds) { return seconds > 0 ? amount / seconds : 0; }

double MemoryBandwidth(const Shapes& s, absl::Duration budget, Clock& clock) {
  const at::Tensor from = at::zeros({s.copy_bytes / 2}, Bf16());
  at::Tensor to = at::empty_like(from);
  return Rate(2.0 * static_cast<double>(s.copy_bytes), budget, clock, [&] {
    to.copy_(from);
    WaitForDevice();
  });
}

// How uneven the time of a layer's widest product is.
double RankWait(const Shapes& s, absl::Duration budget, Clock& clock) {
  const at::Tensor x = at::ones({s.tokens, s.hidden}, Bf16()),
                   w = at::ones({s.intermediate, s.hidden}, Bf16());
  at::Tensor y = at::empty({s.tokens, s.intermediate}, Bf16());
  std::vector<double> seconds;
  const absl::Duration begin = clock.Steady();
  for (int taken = -1; taken < kLeastRepeats || clock.Steady() - begin < budget; ++taken) {
    const absl::Duration start = clock.Steady();
    at::mm_out(y, x, w.t());
    WaitForDevice();
    if (taken >= 0) seconds.push_back(absl::ToDoubleSeconds(clock.Steady() - start));
  }
  return ShareOfWaiting(std::move(seconds));
}

std::string HostName() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return name;
}

}  // namespace

absl::StatusOr<nlohmann::ordered_json> ProbeDevice(const ProbeOptions& options, Clock& clock) {
  const bool gpu = ProcessDevice().is_cuda();
  const Shapes shapes = ShapesFor(gpu, options.small);
  const absl::Duration start = clock.Steady(), share = options.budget / kMeasurements;
  StepTimes s2, full, nf4, fp32;
  double memory = 0, link = 0, rank_wait = 0;
  LL_RETURN_IF_ERROR(TorchTry([&]() -> absl::Status {
    c10::NoGradGuard no_grad;
    LL_ASSIGN_OR_RETURN(s2, TimeTraining(shapes, {}, share, clock));
    LL_ASSIGN_OR_RETURN(full,
                        TimeTraining(shapes, {.attention = AttentionKind::kFull}, share, clock));
    LL_ASSIGN_OR_RETURN(nf4, TimeTraining(shapes, {.base = BaseFormat::kNf4}, share, clock));
    LL_ASSIGN_OR_RETURN(fp32, TimeTraining(ForFp32(shapes), {.dtype = at::kFloat}, share, clock));
    memory = MemoryBandwidth(shapes, share, clock);
    rank_wait = RankWait(shapes, share, clock);
    return absl::OkStatus();
  }));
  if (!gpu) {
    // As long as the keys and values of a row are.
    const int64_t bytes = 4 * shapes.tokens * shapes.kv_heads * shapes.head_dim;
    LL_ASSIGN_OR_RETURN(link, LinkBandwidth(bytes, share, clock));
  }
  const auto rate = [](const StepTimes& times, std::initializer_list<const char*> operations) {
    const StepTimes::Sum sum = times.Of(operations);
    return RateOf(sum.flops > 0 ? sum.flops : sum.bytes, sum.seconds);
  };
  const double gemm = rate(s2, {"product"});
  const AttentionRate attention = AttentionOf(shapes, s2, full);
  // In fp32 the same tiles: its rate is by what is computed, the extra keys included.
  const StepTimes::Sum attention_fp32 = fp32.Of({"attention"});
  const double extra_flops = 3.5 * attention.extra_keys * AttentionQueryFlops(ConfigOf(shapes)) *
                             static_cast<double>(ForFp32(shapes).tokens);
  // As long as a product of (1 + extra / rank) times as many ranks.
  const StepTimes::Sum lora = s2.Of({"LoRA"});
  const double extra_ranks = 8 * std::max(0.0, lora.seconds * gemm / lora.flops - 1);
  const StepTimes::Sum update = s2.Of({"fill with zeros", "norm of gradients", "AdamW"});
  return nlohmann::ordered_json{
      {"device", gpu ? GpuKind(ProcessDeviceName(), GpuMemoryBytes()) : "cpu"},
      {"host", HostName()},
      {"time", absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", clock.Now(), absl::UTCTimeZone())},
      {"build", LL_VERSION},
      {"threads", at::get_num_threads()},
      {"gemm_flops", gemm},
      {"attention_flops", attention.flops},
      {"attention_extra_keys", attention.extra_keys},
      {"lora_extra_ranks", extra_ranks},
      {"gemm_fp32_flops", rate(fp32, {"product"})},
      {"attention_fp32_flops", RateOf(attention_fp32.flops + extra_flops, attention_fp32.seconds)},
      {"memory_bandwidth", memory},
      {"elementwise_bandwidth", rate(s2, {"RMSNorm", "SwiGLU", "RoPE", "transpose", "embedding"})},
      {"loss_bandwidth", rate(s2, {"cross-entropy"})},
      {"expansion_bandwidth", rate(nf4, {"NF4 to bf16"})},
      {"optimizer_bandwidth", RateOf(kOptimizerBytes * s2.parameters, update.seconds)},
      {"link_bandwidth", link},
      {"rank_wait", rank_wait},
      {"seconds", absl::ToDoubleSeconds(clock.Steady() - start)}};
}

}  // namespace ll
