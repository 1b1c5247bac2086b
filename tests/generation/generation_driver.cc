// Runs the sampler and the generator on what a test gives it, one JSON object a line:
//   {"logits":[…],"context":[…],"temperature":…,"top_k":…,"top_p":…,"repetition_penalty":…}
//       → {"logits":[…]}, null where a token may not be drawn
//   {"model":DIR,"prompts":[[…],…],"max_new_tokens":N}  → {"ids":[[…],…]}, greedy, fp32
#include <cmath>
#include <iostream>

#include "base/json.h"
#include "base/status_macros.h"
#include "model/generation/generator.h"
#include "worker/trainer/load_model.h"

namespace ll {
namespace {

using nlohmann::json;

absl::StatusOr<json> Process(const json& in) {
  const SamplingOptions options{.temperature = in["temperature"],
                                .top_k = in["top_k"],
                                .top_p = in["top_p"],
                                .repetition_penalty = in["repetition_penalty"]};
  LL_RETURN_IF_ERROR(CheckSampling(options));
  auto logits = in["logits"].get<std::vector<float>>();
  ProcessLogits(options, in["context"].get<std::vector<int32_t>>(), absl::MakeSpan(logits));
  json out = json::array();
  for (const float logit : logits) out.push_back(std::isinf(logit) ? json() : json(logit));
  return json{{"logits", out}};
}

absl::StatusOr<json> Generate(const json& in) {
  ModelRequest request;
  request.model = in["model"];
  LL_ASSIGN_OR_RETURN(const ModelFolders folders, ResolveModel(request));
  LL_ASSIGN_OR_RETURN(const auto model, LoadModel(folders));
  // One generator for all prompts: what they share is reused.
  Generator generator(*model);
  json out = json::array();
  for (const json& prompt : in["prompts"]) {
    LL_ASSIGN_OR_RETURN(const Completion done,
                        generator.Complete(prompt.get<std::vector<int32_t>>(),
                                           {.max_new_tokens = in["max_new_tokens"]}));
    out.push_back(done.ids);
  }
  return json{{"ids", out}};
}

int Run() {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto in = ParseJsonObject(line);
    const auto out = !in.ok()                ? absl::StatusOr<json>(in.status())
                     : in->contains("model") ? Generate(*in)
                                             : Process(*in);
    if (!out.ok()) {
      std::cerr << out.status() << "\n";
      return 1;
    }
    std::cout << out->dump() << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace ll

int main() { return ll::Run(); }
