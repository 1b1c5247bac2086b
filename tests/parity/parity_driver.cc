// parity_driver train FOLDER...   for each folder of check_parity.py:
//   reads config.json, *.safetensors (the base in fp32), options.json and in.safetensors (initial
//   trained weights, tokens and labels [rows, N]); writes out.safetensors (row 0's logits, NLL,
//   loss and every gradient; the losses and trained weights of AdamW steps over rows 1, 2, …;
//   logits after them) and saved/, the folder a job would leave: config.json with the adapter, or
//   with the model for method full.
// parity_driver rope FOLDER...    reads config.json and options.json (tokens, perhaps extend);
//   writes out.safetensors (cos, sin) and saved/config.json.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>

#include "base/status_macros.h"
#include "model/llama.h"
#include "model/plan/config.h"
#include "model/rope.h"
#include "model/weights/hf_folder.h"
#include "model/weights/tensor_io.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/checkpoint/peft.h"
#include "worker/trainer/optim/adamw.h"
#include "worker/trainer/optim/sharded_parameters.h"

namespace ll {
namespace {

using Tensors = std::map<std::string, at::Tensor>;
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;
using nlohmann::json;

absl::StatusOr<Tensors> ReadAll(const std::string& path) {
  LL_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(path));
  Tensors tensors;
  for (const TensorInfo& info : file->tensors()) {
    LL_ASSIGN_OR_RETURN(at::Tensor tensor, TensorView(file, info));
    tensors[info.name] = tensor.clone();
  }
  return tensors;
}

json ReadJson(const std::string& path) {
  std::ifstream file(path);
  return json::parse(file);
}

void WriteJson(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

ModelOptions OptionsFrom(const json& j) {
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

AttentionSpec AttentionFrom(const json& j) {
  const std::string kind = j.at("attention");
  return {kind == "s2"      ? AttentionKind::kS2
          : kind == "short" ? AttentionKind::kShort
                            : AttentionKind::kFull,
          j.at("wrap") == "roll" ? WrapKind::kRoll : WrapKind::kSplit, j.at("group_tokens")};
}

// The folder's config, its context extended where the options say so, and the file a job writes.
absl::StatusOr<LlamaConfig> ConfigFrom(const std::string& folder, const json& j) {
  LL_ASSIGN_OR_RETURN(LlamaConfig config, ReadLlamaConfig(folder));
  for (const json& e : j.at("extend")) {
    LL_ASSIGN_OR_RETURN(
        config, ExtendContext(config, e.at(1), RopeTypeFromName(e.at(0).get<std::string>())));
  }
  std::filesystem::create_directory(folder + "/saved");
  WriteJson(folder + "/saved/config.json", LlamaConfigToJson(config).dump(2));
  return config;
}

absl::Status Rope(const std::string& folder) {
  const json j = ReadJson(folder + "/options.json");
  LL_ASSIGN_OR_RETURN(const LlamaConfig config, ConfigFrom(folder, j));
  const int64_t tokens = j.at("tokens");
  const auto [cos, sin] = CosSin(MakeRopeTable(config, tokens), tokens);
  return WriteSafetensors(folder + "/out.safetensors", NamedTensors{{"cos", cos}, {"sin", sin}});
}

// What a job leaves behind, under the names it uses.
absl::Status Save(const std::string& folder, Llama& model) {
  NamedTensors tensors;
  if (model.options().train_all) {
    for (const Parameter& p : model.parameters()) tensors.emplace_back(p.name, p.master);
    return WriteSafetensors(folder + "/saved/model.safetensors", tensors, {{"format", "pt"}});
  }
  const bool tied = model.config().tie_word_embeddings, whole = model.options().train_norm;
  WriteJson(folder + "/saved/adapter_config.json",
            PeftConfig(model.options().lora, whole, whole, tied, folder).dump(2));
  NamedTensors masters;
  for (const Parameter& p : model.parameters()) masters.emplace_back(p.name, p.master);
  return WriteSafetensors(folder + "/saved/adapter_model.safetensors", PeftTensors(masters, tied),
                          {{"format", "pt"}});
}

// AdamW over rows 1, 2, …; writes the losses and the weights it ends with.
absl::Status Train(Llama& model, Row row, const Tensors& input, const AttentionSpec& attention,
                   const json& j, NamedTensors& result) {
  const auto alone = MakeSingleComm();
  ShardedParameters parameters(model.parameters(), /*zero_stage=*/0, /*sparse_embedding=*/false,
                               *alone);
  AdamWOptimizer optimizer(parameters.slices(),
                           {j.at("beta1"), j.at("beta2"), j.at("eps"), j.at("weight_decay")});
  std::vector<double> losses;
  for (int64_t step = 1; step < input.at("tokens").size(0); ++step) {
    row.tokens = input.at("tokens")[step];
    row.labels = input.at("labels")[step];
    model.ZeroGrad();
    LL_ASSIGN_OR_RETURN(const double loss,
                        model.ForwardBackward(row, attention, j.at("grad_scale")));
    losses.push_back(loss);
    optimizer.Step(step, j.at("lr"), 1.0);
  }
  result.emplace_back("losses", at::tensor(losses, at::kDouble));
  for (const Parameter& p : model.parameters()) result.emplace_back("trained:" + p.name, p.master);
  return absl::OkStatus();
}

absl::Status Run(const std::string& folder) {
  const json j = ReadJson(folder + "/options.json");
  LL_ASSIGN_OR_RETURN(const LlamaConfig base, ReadLlamaConfig(folder));
  LL_ASSIGN_OR_RETURN(const LlamaConfig config, ConfigFrom(folder, j));
  LL_ASSIGN_OR_RETURN(auto source, HfFolder::Open(folder, base));
  LL_ASSIGN_OR_RETURN(auto model, Llama::Create(config, *source, OptionsFrom(j)));
  LL_ASSIGN_OR_RETURN(Tensors input, ReadAll(folder + "/in.safetensors"));
  for (Parameter& p : model->parameters()) {
    if (!input.contains(p.name))
      return absl::NotFoundError("the reference does not train " + p.name);
    p.master.copy_(input.at(p.name));
  }
  model->CastMastersToCompute();
  Row row{input.at("tokens")[0], input.at("labels")[0], {}, 0};
  for (const auto& d : j.at("documents")) row.documents.push_back({d.at(0), d.at(1)});
  const AttentionSpec attention = AttentionFrom(j);

  NamedTensors result;
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
  for (const Parameter& p : model->parameters())
    result.emplace_back("grad:" + p.name, p.grad.clone());
  LL_RETURN_IF_ERROR(Train(*model, row, input, attention, j, result));
  LL_ASSIGN_OR_RETURN(at::Tensor logits, model->Logits(row.tokens, AttentionSpec()));
  result.emplace_back("trained_logits", logits);
  LL_RETURN_IF_ERROR(Save(folder, *model));
  return WriteSafetensors(folder + "/out.safetensors", result);
}

}  // namespace
}  // namespace ll

int main(int argc, char** argv) {
  const std::string what = argc > 2 ? argv[1] : "";
  if (what != "train" && what != "rope") {
    std::cerr << "usage: parity_driver train|rope FOLDER...\n";
    return 2;
  }
  for (int i = 2; i < argc; ++i) {
    const absl::Status status = what == "train" ? ll::Run(argv[i]) : ll::Rope(argv[i]);
    if (status.ok()) continue;
    std::cerr << argv[i] << ": " << status << "\n";
    return 1;
  }
  return 0;
}
