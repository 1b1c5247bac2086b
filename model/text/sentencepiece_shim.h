// The SentencePiece library behind standard types only.
//
// Its headers declare a string_view in namespace absl of their own, which clashes with Abseil's:
// only sentencepiece_shim.cc includes them, and that file includes no Abseil. Errors are texts;
// empty means success.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace ll {

// A loaded model. Immutable after Load, thread-safe.
class SentencePieceModel {
 public:
  SentencePieceModel();
  ~SentencePieceModel();
  std::string Load(std::string_view serialized);
  std::string Encode(std::string_view text, std::vector<int>& ids) const;
  // Control pieces give no text; ids outside the vocabulary must not be given.
  std::string Decode(const std::vector<int>& ids, std::string& text) const;
  int size() const;
  std::string piece(int id) const;
  int bos_id() const;  // -1: the model has none
  int eos_id() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Trains with the library's own flags ("input", "model_prefix", "vocab_size", …).
std::string TrainSentencePieceModel(const std::map<std::string, std::string>& flags);

}  // namespace ll
