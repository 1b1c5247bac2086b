#include "model/weights/sharded.h"

#include <set>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/file_name.h"
#include "base/json.h"
#include "base/status_macros.h"

namespace ll {
namespace {

// tensor name → shard file name.
absl::StatusOr<std::map<std::string, std::string>> ReadIndex(const std::string& path) {
  LL_ASSIGN_OR_RETURN(std::string text, ReadFile(path));
  auto parsed = ParseWeightIndex(text);
  if (!parsed.ok()) return Annotate(parsed.status(), path);
  return parsed;
}
absl::Status NoWeights(const std::string& folder) {
  std::string hint =
      "give a Hugging Face folder with model.safetensors or model.safetensors.index.json";
  if (auto names = ListDir(folder); names.ok()) {
    for (const std::string& name : *names) {
      if (absl::EndsWith(name, ".safetensors")) {
        hint = absl::StrCat("the folder holds ", name,
                            ", but not the index of its shards, model.safetensors.index.json");
        break;
      }
      if (absl::EndsWith(name, ".bin") || absl::EndsWith(name, ".pth")) {
        hint = absl::StrCat("the folder holds ", name, ": convert it to safetensors first");
      }
    }
  }
  return FieldStatus(absl::StatusCode::kNotFound, "model",
                     absl::StrCat("no safetensors weights in ", folder), hint);
}

}  // namespace

absl::StatusOr<std::map<std::string, std::string>> ParseWeightIndex(absl::string_view text) {
  LL_ASSIGN_OR_RETURN(const nlohmann::json root, ParseJsonObject(text));
  const nlohmann::json weights = root.value("weight_map", nlohmann::json());
  if (!weights.is_object())
    return MakeFieldError({"weight_map", "an object", JsonExcerpt(weights)});
  std::map<std::string, std::string> out;
  for (const auto& [name, file] : weights.items()) {
    // A shard is a plain name in the same folder: an index must not reach elsewhere.
    if (!file.is_string() || !IsPlainFileName(file.get<std::string>())) {
      return MakeFieldError({"weight_map",
                             absl::StrCat("a file name for ", absl::CHexEscape(name.substr(0, 80))),
                             JsonExcerpt(file)});
    }
    out[name] = file.get<std::string>();
  }
  return out;
}

absl::StatusOr<ShardedSafetensors> ShardedSafetensors::Open(const std::string& folder) {
  std::set<std::string> files;
  std::map<std::string, std::string> promised;
  const std::string index = folder + "/model.safetensors.index.json";
  if (FileExists(folder + "/model.safetensors")) {
    files.insert("model.safetensors");
  } else if (FileExists(index)) {
    LL_ASSIGN_OR_RETURN(promised, ReadIndex(index));
    for (const auto& [name, file] : promised) files.insert(file);
  } else {
    return NoWeights(folder);
  }
  ShardedSafetensors out;
  for (const std::string& name : files) {
    if (!FileExists(folder + "/" + name)) {
      return FieldStatus(absl::StatusCode::kNotFound, folder + "/" + name,
                         "is missing; model.safetensors.index.json names it",
                         "download the whole folder");
    }
    LL_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(folder + "/" + name));
    for (const TensorInfo& tensor : file->tensors()) {
      if (!out.entries_.emplace(tensor.name, Entry{file, &tensor}).second) {
        return MakeFieldError(
            {file->path(), absl::StrCat(tensor.name, " in one shard"), "it in two"});
      }
    }
  }
  for (const auto& [name, file] : promised) {
    const Entry* entry = out.Find(name);
    if (entry == nullptr || entry->file->path() != folder + "/" + file) {
      return MakeFieldError({index, absl::StrCat(name, " in ", file), "no such tensor there"});
    }
  }
  return out;
}

const ShardedSafetensors::Entry* ShardedSafetensors::Find(absl::string_view name) const {
  auto it = entries_.find(name);
  return it == entries_.end() ? nullptr : &it->second;
}

}  // namespace ll
