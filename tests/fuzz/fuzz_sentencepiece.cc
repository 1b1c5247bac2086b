// A SentencePiece model, and encoding and decoding with it.
#include "base/check.h"
#include "model/text/sentencepiece_tokenizer.h"
#include "tests/fuzz/fuzz.h"

namespace ll {

void FuzzOne(absl::string_view input) {
  const auto tokenizer = SentencePieceTokenizer::Parse(std::string(input));
  if (!tokenizer.ok()) return CheckRefusal(tokenizer.status());
  for (const char* text : {"", " Hello world, 123 \n\n",
                           "a\xC3\xA9\xE2\x96\x81 \xF0\x9F\x98\x80<s>ab", "\xff\xfe x"}) {
    const auto ids = (*tokenizer)->Encode(text);
    if (!ids.ok()) continue;
    for (const int32_t id : *ids) LL_CHECK(id >= 0 && id < (*tokenizer)->vocab_size());
    LL_CHECK((*tokenizer)->Decode(*ids).size() < 10'000'000);
  }
}

}  // namespace ll
