#include "model/text/sentencepiece_shim.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <exception>
#include <unordered_map>

namespace ll {
namespace {
std::string ErrorText(const sentencepiece::util::Status& status) {
  return status.ok() ? "" : status.ToString();
}
}  // namespace

struct SentencePieceModel::State {
  sentencepiece::SentencePieceProcessor processor;
};

SentencePieceModel::SentencePieceModel() : state_(std::make_unique<State>()) {}
SentencePieceModel::~SentencePieceModel() = default;

std::string SentencePieceModel::Load(std::string_view serialized) {
  try {
    return ErrorText(state_->processor.LoadFromSerializedProto(serialized));
  } catch (const std::exception& error) {  // its trie builder throws on pieces it cannot take
    return error.what();
  }
}
std::string SentencePieceModel::Encode(std::string_view text, std::vector<int>& ids) const {
  return ErrorText(state_->processor.Encode(text, &ids));
}
std::string SentencePieceModel::Decode(const std::vector<int>& ids, std::string& text) const {
  return ErrorText(state_->processor.Decode(ids, &text));
}
int SentencePieceModel::size() const { return state_->processor.GetPieceSize(); }
std::string SentencePieceModel::piece(int id) const { return state_->processor.IdToPiece(id); }
int SentencePieceModel::bos_id() const { return state_->processor.bos_id(); }
int SentencePieceModel::eos_id() const { return state_->processor.eos_id(); }

std::string TrainSentencePieceModel(const std::map<std::string, std::string>& flags) {
  const std::unordered_map<std::string, std::string> copy(flags.begin(), flags.end());
  return ErrorText(sentencepiece::SentencePieceTrainer::Train(copy));
}

}  // namespace ll
