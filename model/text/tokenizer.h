// Text <-> token ids.
//
// Two kinds are read: SentencePiece models (`tokenizer.model`, through the library) and the BPE
// models of `tokenizer.json` (byte-level as GPT-2, SmolLM2 and Llama-3; byte fallback as Llama-2).
// Reading order: tokenizer.h, json_tokenizer.h (the pipeline), bpe.h, pre_tokenizer.h,
// sentencepiece_tokenizer.h, word_cache.h; then line_parts.h, token_file.h and token_file_writer.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace ll {

// Immutable after construction and thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // The ids of `text`, without a leading BOS or a closing EOS. Text that spells a special token
  // becomes that token (tokenizer.json only). Bytes that are not UTF-8 are read as U+FFFD.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text) const = 0;
  // The text of the ids, special tokens left out; ids outside the vocabulary are skipped. Always
  // valid UTF-8.
  virtual std::string Decode(absl::Span<const int32_t> ids) const = 0;

  // The ids of a text are those of its parts, wherever it is cut as LastSafeCut (line_parts.h)
  // does. Known when the tokenizer is opened, from its steps and its vocabulary; false where in
  // doubt.
  virtual bool SplitsAtLines() const { return false; }

  // Largest id + 1.
  virtual int64_t vocab_size() const = 0;
  // SHA-256 (hex) of the tokenizer's file: two token files go together when these are equal.
  virtual const std::string& hash() const = 0;

  // As the model's folder states them; absent where it does not.
  std::optional<int32_t> bos_id, eos_id;
};

// Opens the tokenizer of a model folder (tokenizer.json, else tokenizer.model), or the given file.
// Errors name the path: NotFound; InvalidArgument for a broken file or for a step of the pipeline
// this project does not know.
absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const std::string& path);

}  // namespace ll
