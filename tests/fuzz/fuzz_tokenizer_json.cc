// A tokenizer.json, and encoding and decoding with what it makes.
#include "base/check.h"
#include "model/text/json_tokenizer.h"
#include "tests/fuzz/fuzz.h"

namespace ll {

void FuzzOne(absl::string_view input) {
  const auto tokenizer = JsonTokenizer::Parse(std::string(input));
  if (!tokenizer.ok()) return CheckRefusal(tokenizer.status());
  for (const char* text : {"", " Hello world, 123 \n\n",
                           "a\xC3\xA9\xE2\x96\x81 \xF0\x9F\x98\x80<s>ab", "\xff\xfe x"}) {
    const auto ids = (*tokenizer)->Encode(text);
    if (!ids.ok()) {
      CheckRefusal(ids.status());
      continue;
    }
    LL_CHECK(ids->size() < 100'000);
    for (const int32_t id : *ids) LL_CHECK(id >= 0 && id < (*tokenizer)->vocab_size());
    LL_CHECK((*tokenizer)->Decode(*ids).size() < 10'000'000);
  }
}

}  // namespace ll
