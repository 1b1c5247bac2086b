#include "worker/trainer/merge/verify.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/llama.h"
#include "model/torch_edge.h"
#include "model/weights/hf_writer.h"
#include "worker/trainer/checkpoint/load_adapter.h"
#include "worker/trainer/data/loader.h"
#include "worker/trainer/setup.h"

namespace ll {
namespace {

constexpr int64_t kDefaultWindow = 1024;
constexpr int64_t kChunkTokens = 64;  // rows of probabilities in fp64 held at a time

ModelOptions InferenceOptions() {
  ModelOptions options;
  options.trainable = false;
  options.dtype = at::kFloat;
  return options;
}

// The adapter as training had it: LoRA beside the base, which is in NF4 where it was. Adapters that
// training cannot go on from (a head of its own, more tokens) are added to the weights in fp32.
absl::StatusOr<std::unique_ptr<Llama>> AdapterOn(const MergeInputs& in) {
  const bool nf4 = in.trained_on_nf4 || in.onto == "nf4";
  const bool plain = in.adapter_config && in.adapter_config->obstacle.empty() &&
                     in.config.vocab_size == in.base_config.vocab_size &&
                     in.config.tie_word_embeddings == in.base_config.tie_word_embeddings;
  if (!plain) {
    LL_ASSIGN_OR_RETURN(const auto weights, in.WeightsOnto(nf4 ? "nf4" : "16bit"));
    return Llama::Create(in.config, *weights.exact, InferenceOptions());
  }
  ModelOptions options = InferenceOptions();
  if (nf4) options.base = BaseFormat::kNf4;
  options.lora = LoraSpecOf(*in.adapter_config);
  options.train_embedding = in.adapter_config->trains_embedding;
  options.train_norm = in.adapter_config->trains_norm;
  Nf4Values quantized(*in.base, in.TrainedIn());
  WeightSource& base = nf4 ? static_cast<WeightSource&>(quantized) : *in.base;
  LL_ASSIGN_OR_RETURN(auto model, Llama::Create(in.config, base, options));
  LL_RETURN_IF_ERROR(LoadAdapter(in.adapter, *model));
  return model;
}

struct Sums {
  double nll = 0, kl = 0, max_difference = 0;
  int64_t tokens = 0;
  void Add(const Sums& other) {
    nll += other.nll;
    kl += other.kl;
    max_difference = std::max(max_difference, other.max_difference);
    tokens += other.tokens;
  }
};

// Both models on one window; `reference_nll` gets the first one's sum.
absl::StatusOr<Sums> CompareWindow(const Row& row, Llama& reference, Llama& merged,
                                   double& reference_nll) {
  LL_ASSIGN_OR_RETURN(const at::Tensor p_logits, reference.Logits(row.tokens, {}));
  LL_ASSIGN_OR_RETURN(const at::Tensor q_logits, merged.Logits(row.tokens, {}));
  Sums sums;
  LL_RETURN_IF_ERROR(TorchTry([&] {
    const int64_t predictions = row.tokens.size(0) - 1;
    const at::Tensor targets = row.tokens.slice(0, 1).to(at::kLong);
    for (int64_t begin = 0; begin < predictions; begin += kChunkTokens) {
      const int64_t end = std::min(begin + kChunkTokens, predictions);
      const at::Tensor p = at::log_softmax(p_logits.slice(0, begin, end), -1, at::kDouble);
      const at::Tensor q = at::log_softmax(q_logits.slice(0, begin, end), -1, at::kDouble);
      const at::Tensor target = targets.slice(0, begin, end).unsqueeze(1);
      reference_nll -= p.gather(1, target).sum().item<double>();
      sums.nll -= q.gather(1, target).sum().item<double>();
      sums.kl += (p.exp() * (p - q)).sum().item<double>();
      sums.tokens += end - begin;
    }
    sums.max_difference = (p_logits - q_logits).abs().max().item<double>();
    return absl::OkStatus();
  }));
  return sums;
}

nlohmann::ordered_json Perplexity(double nll_sum, int64_t tokens) {
  const double nll = nll_sum / static_cast<double>(tokens);
  return {{"perplexity", std::exp(nll)}, {"nll", nll}};
}

absl::StatusOr<std::vector<Row>> Windows(const MergeRequest& request, const MergeInputs& in) {
  LL_ASSIGN_OR_RETURN(const auto data,
                      OpenTokenFile(request.verify, "--verify", in.config.vocab_size));
  const int64_t length = request.verify_seq_len > 0 ? request.verify_seq_len
                                                    : std::min(kDefaultWindow, in.config.Reach());
  const int64_t room = data->size() - length, count = request.verify_windows;
  if (room < 0) {
    return MakeFieldError({"--verify", absl::StrCat("a file of at least ", length, " tokens"),
                           absl::StrCat(data->size(), " tokens"), "give --verify-seq-len"});
  }
  std::vector<Row> rows;
  for (int64_t w = 0; w < count; ++w) {
    const int64_t start = count > 1 ? w * room / (count - 1) : 0;
    rows.push_back(ReadRow(*data, start, start + length));
  }
  return rows;
}

}  // namespace

absl::StatusOr<nlohmann::ordered_json> VerifyMerge(const MergeRequest& request,
                                                   const MergeInputs& in,
                                                   const std::string& written) {
  LL_ASSIGN_OR_RETURN(const std::vector<Row> rows, Windows(request, in));
  LL_ASSIGN_OR_RETURN(const auto reference, AdapterOn(in));
  std::vector<std::string> variants = {in.onto};
  if ((in.trained_on_nf4 || in.onto == "nf4") && !in.base_config.quantized)
    variants.push_back(in.onto == "nf4" ? "16bit" : "nf4");
  nlohmann::ordered_json measured = nlohmann::ordered_json::array(), adapter_on;
  int64_t tokens = 0;
  for (size_t v = 0; v < variants.size(); ++v) {
    std::unique_ptr<Llama> merged;
    if (v == 0) {  // what is on the disk
      LL_ASSIGN_OR_RETURN(const LlamaConfig config, ReadModelConfig(written));
      LL_ASSIGN_OR_RETURN(const auto folder, HfFolder::Open(written, config));
      LL_ASSIGN_OR_RETURN(merged, Llama::Create(config, *folder, InferenceOptions()));
    } else {
      LL_ASSIGN_OR_RETURN(const auto weights, in.WeightsOnto(variants[v]));
      RoundedWeights rounded(*weights.exact, TorchDtype(in.config.dtype));
      LL_ASSIGN_OR_RETURN(merged, Llama::Create(in.config, rounded, InferenceOptions()));
    }
    Sums total;
    double reference_nll = 0;
    for (const Row& row : rows) {
      LL_ASSIGN_OR_RETURN(const Sums sums, CompareWindow(row, *reference, *merged, reference_nll));
      total.Add(sums);
    }
    tokens = total.tokens;
    adapter_on = Perplexity(reference_nll, tokens);
    nlohmann::ordered_json entry = {{"onto", variants[v]}, {"written", v == 0}};
    entry.update(Perplexity(total.nll, tokens));
    entry["kl"] = total.kl / static_cast<double>(tokens);
    entry["max_logit_difference"] = total.max_difference;
    measured.push_back(std::move(entry));
  }
  return nlohmann::ordered_json{{"data", request.verify},
                                {"windows", rows.size()},
                                {"seq_len", rows.front().tokens.size(0)},
                                {"tokens", tokens},
                                {"adapter_on", adapter_on},
                                {"merged", measured}};
}

}  // namespace ll
