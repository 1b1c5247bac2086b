#include "model/text/tokenizer.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/lfs_pointer.h"
#include "base/status_macros.h"
#include "model/text/json_tokenizer.h"
#include "model/text/sentencepiece_tokenizer.h"

namespace ll {
namespace {

using nlohmann::json;

json ReadOptionalJson(const std::string& path) {
  if (!FileExists(path)) return json::object();
  const auto text = ReadFile(path);
  if (!text.ok()) return json::object();
  return ParseJsonObject(*text).value_or(json::object());
}

// BOS and EOS of a tokenizer.json: by text in tokenizer_config.json, else by id in config.json.
void ReadSpecialIds(const std::string& folder, JsonTokenizer& tokenizer) {
  const json names = ReadOptionalJson(folder + "/tokenizer_config.json"),
             ids = ReadOptionalJson(folder + "/config.json");
  const auto find = [&](const std::string& which) -> std::optional<int32_t> {
    json name = names.value(which + "_token", json());
    if (name.is_object()) name = name.value("content", json());
    if (name.is_string()) {
      if (auto id = tokenizer.IdOf(name.get<std::string>())) return id;
    }
    json id = ids.value(which + "_token_id", json());
    if (id.is_array() && !id.empty()) id = json(id[0]);
    if (id.is_number_unsigned() &&
        id.get<uint64_t>() < static_cast<uint64_t>(tokenizer.vocab_size())) {
      return id.get<int32_t>();
    }
    return std::nullopt;
  };
  tokenizer.bos_id = find("bos");
  tokenizer.eos_id = find("eos");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const std::string& path) {
  std::string file = path;
  if (IsDirectory(path)) {
    file = path + "/tokenizer.json";
    if (!FileExists(file)) file = path + "/tokenizer.model";
  }
  if (!FileExists(file)) {
    return FieldStatus(absl::StatusCode::kNotFound, "tokenizer",
                       absl::StrCat("no tokenizer.json and no tokenizer.model in ", path),
                       "give --tokenizer a folder or a file that holds one");
  }
  LL_RETURN_IF_ERROR(CheckNotLfsPointer(file));
  LL_ASSIGN_OR_RETURN(std::string bytes, ReadFile(file));
  if (absl::EndsWith(file, ".json")) {
    auto parsed = JsonTokenizer::Parse(bytes);
    if (!parsed.ok()) return Annotate(parsed.status(), file);
    const size_t slash = file.rfind('/');
    ReadSpecialIds(slash == std::string::npos ? "." : file.substr(0, slash), **parsed);
    return std::unique_ptr<Tokenizer>(*std::move(parsed));
  }
  auto parsed = SentencePieceTokenizer::Parse(bytes);
  if (!parsed.ok()) return Annotate(parsed.status(), file);
  return std::unique_ptr<Tokenizer>(*std::move(parsed));
}

}  // namespace ll
