#include "worker/trainer/merge/model_card.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/format.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "worker/trainer/checkpoint/format.h"

namespace ll {
namespace {

// The last part of a path; a name as it is. What would break a table's row is left out.
std::string Name(const std::string& path) {
  std::string name = path;
  if (absl::StartsWith(path, "/") || absl::StartsWith(path, ".")) {
    while (name.size() > 1 && name.back() == '/') name.pop_back();
    name = std::filesystem::path(name).lexically_normal().filename().string();
  }
  name.erase(std::remove_if(name.begin(), name.end(),
                            [](unsigned char c) { return c < ' ' || c == '|' || c == '`'; }),
             name.end());
  return name;
}

std::string Quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// The licence lines of the base's own card: they hold for what is made of it.
std::string LicenceLines(const std::string& model) {
  const auto card = ReadFile(model + "/README.md");
  if (!card.ok() || !absl::StartsWith(*card, "---\n")) return "";
  std::string lines;
  for (const absl::string_view line : absl::StrSplit(card->substr(4), '\n')) {
    if (line == "---") return lines;
    if (absl::StartsWith(line, "license") && line.size() < 200 &&
        line.find(": ") != absl::string_view::npos)
      absl::StrAppend(&lines, line, "\n");
  }
  return "";  // no end: not front matter
}

std::string FrontMatter(const MergeInputs& in, const std::string& base_name) {
  std::vector<std::string> tags = {"long-context", "longlora"};
  if (in.state) {
    const std::string method = in.state->spec.method.value_or("");
    if (!method.empty() && method != "longlora") tags.push_back(method);
  }
  std::string text = "---\n";
  if (!in.adapter.empty()) absl::StrAppend(&text, "base_model: ", Quoted(base_name), "\n");
  absl::StrAppend(&text, "library_name: transformers\npipeline_tag: text-generation\n",
                  LicenceLines(in.model), "tags:\n");
  for (const std::string& tag : tags) absl::StrAppend(&text, "- ", tag, "\n");
  return text + "---\n";
}

std::string RopeText(const LlamaConfig& config) {
  if (config.rope.type == RopeScaling::Type::kNone) return "not scaled";
  const nlohmann::json written = LlamaConfigToJson(config);
  const std::string type = config.rope.type == RopeScaling::Type::kNtk
                               ? "ntk (a larger rope_theta)"
                               : written["rope_scaling"].value("rope_type", "");
  return absl::StrCat(type, ", factor ", config.rope.factor, ", from ", config.OriginalContext(),
                      " tokens");
}

std::string Facts(const MergeRequest& request, const MergeInputs& in,
                  const nlohmann::ordered_json& result, const std::string& base_name) {
  std::string text = "| | |\n|---|---|\n";
  const auto row = [&text](absl::string_view name, absl::string_view value) {
    absl::StrAppend(&text, "| ", name, " | ", value, " |\n");
  };
  if (!in.adapter.empty()) row("base", base_name);
  if (in.state) row("method", in.state->spec.method.value_or(""));
  if (in.adapter_config) {
    row("LoRA", absl::StrCat("rank ", in.adapter_config->rank, ", alpha ", in.adapter_config->alpha,
                             ", on ", absl::StrJoin(in.adapter_config->target_modules, ", ")));
  }
  if (!in.adapter.empty())
    row("merged onto", in.onto == "nf4" ? "the base's values in NF4" : "the base's 16-bit weights");
  row("context", absl::StrCat(in.config.Reach(), " tokens"));
  row("positions", RopeText(in.config));
  row("weights",
      absl::StrCat(in.config.dtype, request.quantization == "nf4" ? ", linear layers in NF4" : "",
                   ", ", HumanCount(in.config.ParameterCount()), " parameters"));
  if (in.state && in.state->spec.data) row("data", Name(*in.state->spec.data));
  if (in.state) {
    row("trained",
        absl::StrCat(in.state->step, " steps, ", HumanCount(in.state->tokens_consumed), " tokens"));
  }
  return text;
}

// Without the keys that name places and people of one cluster, or say how its queue went.
std::string TrainingArguments(const JobSpec& spec) {
  static const auto& kPrivate = *new std::set<std::string>{
      "kind",         "plan",   "max_retries", "max_runtime", "ttl_after_finished",
      "max_headless", "name",   "model",       "adapter",     "model_config",
      "tokenizer",    "data",   "eval_data",   "queue",       "job",
      "after",        "labels", "notify",      "priority"};
  std::string text;
  const nlohmann::ordered_json json = ToJson(spec);
  for (const auto& [key, value] : json.items()) {
    if (kPrivate.count(key) == 0) absl::StrAppend(&text, key, ": ", value.dump(), "\n");
  }
  return text;
}

// The last evaluation that training reported up to this checkpoint's step; null where there is
// none. OUT/checkpoints/step-N lies two levels below OUT/events.jsonl.
nlohmann::json LastEvaluation(const MergeInputs& in) {
  nlohmann::json last;
  if (!in.state) return last;
  std::ifstream events(in.checkpoint + "/../../events.jsonl");
  for (std::string line; std::getline(events, line);) {
    if (line.find("\"eval\"") == std::string::npos) continue;
    const auto event = ParseJsonObject(line);
    if (event.ok() && event->value("event", nlohmann::json()) == "eval" &&
        event->value("step", nlohmann::json()).is_number_integer() &&
        (*event)["step"].get<int64_t>() <= in.state->step)
      last = *event;
  }
  return last;
}

std::string Evaluation(const MergeInputs& in, const nlohmann::ordered_json& result) {
  std::string text;
  if (in.state)
    absl::StrAppend(&text, "Training loss of the last step: ",
                    absl::StrFormat("%.4f", in.state->last_loss), ".\n");
  const nlohmann::json eval = LastEvaluation(in);
  if (eval.is_object() && eval.value("perplexity", nlohmann::json()).is_number()) {
    absl::StrAppend(&text, "\nPerplexity while training, step ", eval["step"].dump(), ": ",
                    absl::StrFormat("%.4f", eval["perplexity"].get<double>()), " (",
                    eval.value("tokens", nlohmann::json()).dump(), " tokens).\n");
  }
  if (eval.is_object() && eval.value("effective_context_length", nlohmann::json()).is_number()) {
    absl::StrAppend(&text, "\nEffective context then (longest prompt with pass keys found): ",
                    eval["effective_context_length"].dump(), " tokens.\n");
  }
  if (!result.contains("verify")) return text.empty() ? "Not measured.\n" : text;
  const nlohmann::ordered_json& verify = result["verify"];
  absl::StrAppend(&text, "\nAfter merging, on ", verify["windows"].dump(), " windows of ",
                  verify["seq_len"].dump(), " tokens of ", Name(verify["data"].get<std::string>()),
                  ", in fp32 with full attention:\n\n| weights | perplexity | mean KL from the "
                  "adapter, nats a token |\n|---|---|---|\n| adapter beside the base | ",
                  absl::StrFormat("%.6f", verify["adapter_on"]["perplexity"].get<double>()),
                  " | 0 |\n");
  for (const auto& variant : verify["merged"]) {
    absl::StrAppendFormat(&text, "| merged onto %s%s | %.6f | %.3g |\n",
                          variant["onto"].get<std::string>(),
                          variant["written"] == true ? " (this folder)" : "",
                          variant["perplexity"].get<double>(), variant["kl"].get<double>());
  }
  return text;
}

std::string Usage(const std::string& name, const MergeRequest& request, const MergeInputs& in) {
  std::string text = absl::StrCat(
      "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n"
      "model = AutoModelForCausalLM.from_pretrained(\"",
      name, "\", dtype=\"auto\")\ntokenizer = AutoTokenizer.from_pretrained(\"", name,
      "\")\n```\nNothing else is needed: `config.json` carries context and position scaling, and "
      "attention is the plain causal one.\n\n");
  if (request.quantization == "nf4") {
    return absl::StrCat(text,
                        "The linear layers are in bitsandbytes' NF4: install bitsandbytes.\n");
  }
  absl::StrAppend(&text, "```\nvllm serve ", name, " --max-model-len ", in.config.Reach(),
                  "\npython convert_hf_to_gguf.py ", name, " --outfile ", name,
                  ".gguf      # llama.cpp\n```\n");
  return text;
}

}  // namespace

absl::StatusOr<Lineage> LineageOf(const MergeInputs& in) {
  Lineage lineage;
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(in.model));
  for (const std::string& name : names) {
    const bool weights = absl::StartsWith(name, "model") && absl::EndsWith(name, ".safetensors");
    if (!weights && name != "config.json") continue;
    LL_ASSIGN_OR_RETURN(std::string sha256, Sha256HexOfFile(in.model + "/" + name));
    lineage.emplace_back(absl::StrCat(in.adapter.empty() ? "model: " : "base: ", name),
                         std::move(sha256));
  }
  if (!in.adapter.empty()) {
    for (const char* name : {kManifestFile, kAdapterFile}) {
      if (!FileExists(in.adapter + "/" + name)) continue;
      LL_ASSIGN_OR_RETURN(std::string sha256, Sha256HexOfFile(in.adapter + "/" + name));
      lineage.emplace_back(absl::StrCat("adapter: ", name), std::move(sha256));
      break;
    }
  }
  if (in.state) lineage.emplace_back("data (fingerprint)", in.state->data_fingerprint);
  return lineage;
}

absl::StatusOr<std::string> ModelCard(const MergeRequest& request, const MergeInputs& in,
                                      const nlohmann::ordered_json& result,
                                      const Lineage& lineage) {
  const std::string name =
      std::filesystem::path(request.out).lexically_normal().filename().string();
  const std::string base_name = Name(in.adapter_config && !in.adapter_config->base_model.empty()
                                         ? in.adapter_config->base_model
                                         : in.model);
  std::string text = absl::StrCat(
      FrontMatter(in, base_name), "\n# ", name, "\n\n",
      in.adapter.empty() ? "A model trained in full"
                         : absl::StrCat(base_name, " with a long-context adapter merged into it"),
      ", written by `ll-trainer merge` ", LL_VERSION, ".\n\n",
      Facts(request, in, result, base_name), "\n## How to load it\n", Usage(name, request, in),
      "\n## Evaluation\n", Evaluation(in, result));
  if (in.state) {
    absl::StrAppend(&text, "\n## Training arguments\n```yaml\n", TrainingArguments(in.state->spec),
                    "```\n");
  }
  absl::StrAppend(&text, "\n## Lineage\n| SHA-256 of | |\n|---|---|\n");
  for (const auto& [what, sha256] : lineage)
    absl::StrAppend(&text, "| ", what, " | `", sha256, "` |\n");
  absl::StrAppend(&text, "\nProgram: ll-trainer ", LL_VERSION);
  if (in.state && in.state->build.is_object() &&
      in.state->build.value("version", nlohmann::json()).is_string())
    absl::StrAppend(&text, "; trained by ll-trainer ",
                    in.state->build["version"].get<std::string>());
  return text + ".\n";
}

}  // namespace ll
