// parity_driver FOLDER IN.safetensors OPTIONS.json OUT.safetensors
//
// Loads a Hugging Face folder in fp32, sets the trained weights found in IN, and writes logits, the
// per-token NLL and every gradient for IN's `tokens` and `labels`. check_parity.py makes the input
// and compares.
#include <fstream>
#include <iostream>
#include <map>

#include "base/status_macros.h"
#include "model/llama.h"
#include "model/plan/config.h"
#include "model/weights/hf_folder.h"
#include "model/weights/tensor_io.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

absl::StatusOr<Tensors> ReadAll(const std::string& path) {
  LL_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(path));
  Tensors tensors;
  for (const TensorInfo& info : file->tensors()) {
    LL_ASSIGN_OR_RETURN(at::Tensor tensor, TensorView(file, info));
    tensors[info.name] = tensor.clone();
  }
  return tensors;
}

ModelOptions OptionsFrom(const nlohmann::json& j) {
  ModelOptions options;
  options.dtype = at::kFloat;
  options.train_all = j.at("method") == "full";
  options.train_embedding = options.train_norm = j.at("method") == "longlora";
  if (!options.train_all) {
    options.lora = {j.at("rank"), j.at("alpha"), 0, j.at("targets").get<std::vector<std::string>>(),
                    j.at("rslora")};
  }
  const std::string recompute = j.at("recompute");
  options.recompute = recompute == "full"        ? Recompute::kFull
                      : recompute == "selective" ? Recompute::kSelective
                                                 : Recompute::kNone;
  return options;
}

AttentionSpec AttentionFrom(const nlohmann::json& j) {
  const std::string kind = j.at("attention");
  return {kind == "s2"      ? AttentionKind::kS2
          : kind == "short" ? AttentionKind::kShort
                            : AttentionKind::kFull,
          j.at("wrap") == "roll" ? WrapKind::kRoll : WrapKind::kSplit, j.at("group_tokens")};
}

absl::Status Run(const std::string& folder, const std::string& in, const std::string& options_path,
                 const std::string& out) {
  std::ifstream options_file(options_path);
  const nlohmann::json j = nlohmann::json::parse(options_file);
  LL_ASSIGN_OR_RETURN(LlamaConfig config, ReadLlamaConfig(folder));
  LL_ASSIGN_OR_RETURN(auto source, HfFolder::Open(folder, config));
  LL_ASSIGN_OR_RETURN(auto model, Llama::Create(config, *source, OptionsFrom(j)));
  LL_ASSIGN_OR_RETURN(Tensors input, ReadAll(in));
  for (Parameter& p : model->parameters()) {
    if (!input.contains(p.name))
      return absl::NotFoundError("the reference does not train " + p.name);
    p.master.copy_(input.at(p.name));
  }
  model->CastMastersToCompute();
  Row row{input.at("tokens"), input.at("labels"), {}, 0};
  for (const auto& d : j.at("documents")) row.documents.push_back({d.at(0), d.at(1)});
  const AttentionSpec attention = AttentionFrom(j);

  std::vector<std::pair<std::string, at::Tensor>> result;
  if (row.documents.empty()) {
    LL_ASSIGN_OR_RETURN(at::Tensor logits, model->Logits(row.tokens, attention));
    result.emplace_back("logits", logits);
  }
  at::Tensor nll;
  LL_RETURN_IF_ERROR(model->Nll(row, attention, &nll).status());
  result.emplace_back("nll", nll);
  model->ZeroGrad();
  LL_ASSIGN_OR_RETURN(const double loss, model->ForwardBackward(row, attention, 1.0));
  result.emplace_back("loss", at::tensor({loss}, at::kDouble));
  for (const Parameter& p : model->parameters()) result.emplace_back("grad:" + p.name, p.grad);
  return WriteSafetensors(out, result);
}

}  // namespace
}  // namespace ll

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: parity_driver FOLDER IN.safetensors OPTIONS.json OUT.safetensors\n";
    return 2;
  }
  const absl::Status status = ll::Run(argv[1], argv[2], argv[3], argv[4]);
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
