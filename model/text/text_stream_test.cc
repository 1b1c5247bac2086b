#include "model/text/text_stream.h"

#include <algorithm>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/text/unicode.h"

namespace ll {
namespace {

// Ids are bytes, or pieces of text from 256 on; the text of the first id loses a leading space, as
// SentencePiece has it.
class FakeTokenizer : public Tokenizer {
 public:
  explicit FakeTokenizer(std::vector<std::string> pieces = {}) : pieces_(std::move(pieces)) {}
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text) const override {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  std::string Decode(absl::Span<const int32_t> ids) const override {
    std::string text;
    for (const int32_t id : ids) {
      if (id >= 256) {
        text += pieces_[static_cast<size_t>(id - 256)];
      } else {
        text.push_back(static_cast<char>(id));
      }
    }
    if (!text.empty() && text[0] == ' ') text.erase(0, 1);
    return ReplaceInvalidUtf8(text);
  }
  int64_t vocab_size() const override { return 256 + static_cast<int64_t>(pieces_.size()); }
  const std::string& hash() const override { return hash_; }

 private:
  std::vector<std::string> pieces_;
  std::string hash_;
};

struct Shown {
  std::vector<std::string> pieces;
  std::string text;
  bool stopped = false;
  size_t pushed = 0;
};

Shown Stream(const FakeTokenizer& tokenizer, const std::vector<int32_t>& ids,
             std::vector<std::string> stop = {}, const std::vector<int32_t>& context = {}) {
  TextStream stream(tokenizer, context, std::move(stop));
  Shown shown;
  for (const int32_t id : ids) {
    ++shown.pushed;
    shown.pieces.push_back(stream.Push(id));
    shown.text += shown.pieces.back();
    if (stream.stopped()) break;
  }
  shown.text += stream.Finish();
  shown.stopped = stream.stopped();
  return shown;
}

TEST(TextStream, NeverShowsHalfACharacter) {
  const FakeTokenizer tokenizer;
  const std::string text = "aé€😀z";
  const Shown shown = Stream(tokenizer, *tokenizer.Encode(text));
  for (const std::string& piece : shown.pieces) {
    EXPECT_TRUE(IsValidUtf8(piece)) << piece;
    EXPECT_EQ(piece.find("\xEF\xBF\xBD"), std::string::npos);
  }
  EXPECT_EQ(shown.text, text);
}

TEST(TextStream, BytesThatNeverBecomeACharacterAreShownInTheEnd) {
  const FakeTokenizer tokenizer;
  EXPECT_EQ(Stream(tokenizer, {'a', 0xE2, 0x82}).text, tokenizer.Decode({'a', 0xE2, 0x82}));
  EXPECT_EQ(Stream(tokenizer, {'a', 0xE2, 'b'}).text,
            "a\xEF\xBF\xBD"
            "b");
}

TEST(TextStream, ASpaceInFrontIsShownBehindAPrompt) {
  const FakeTokenizer tokenizer({" world"});
  EXPECT_EQ(Stream(tokenizer, {256}).text, "world");
  EXPECT_EQ(Stream(tokenizer, {256}, {}, {'h', 'i'}).text, " world");
}

TEST(TextStream, StopStringsCrossTokens) {
  const FakeTokenizer tokenizer({"one <|", "end|> two", "ab"});
  const Shown shown = Stream(tokenizer, {256, 257, 258}, {"<|end|>"});
  EXPECT_THAT(shown.pieces, testing::ElementsAre("one ", ""));
  EXPECT_TRUE(shown.stopped);
  EXPECT_EQ(shown.text, "one ");
  EXPECT_EQ(shown.pushed, 2u);
}

TEST(TextStream, WhatOnlyBeganLikeAStopStringIsShown) {
  const FakeTokenizer tokenizer;
  const Shown shown = Stream(tokenizer, *tokenizer.Encode("aab aac"), {"aaac", "bb"});
  EXPECT_FALSE(shown.stopped);
  EXPECT_EQ(shown.text, "aab aac");
  EXPECT_EQ(shown.pieces[0], "");  // could begin "aaac"
}

TEST(TextStream, TheFirstOfSeveralStopStringsCounts) {
  const FakeTokenizer tokenizer({"x USER: y ###"});
  const Shown shown = Stream(tokenizer, {256}, {"###", "USER:"});
  EXPECT_TRUE(shown.stopped);
  EXPECT_EQ(shown.text, "x ");
}

TEST(TextStream, PiecesAddUpToTheTextWhateverTheStopStrings) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  const FakeTokenizer tokenizer({"ab", "ba", "é", " a"});
  for (int round = 0; round < 500; ++round) {
    std::vector<int32_t> ids;
    for (int i = 0; i < 20; ++i) {
      const int pick = static_cast<int>(random() % 7);
      ids.push_back(pick < 4 ? 256 + pick : pick == 4 ? 'a' : pick == 5 ? 0xC3 : 0xA9);
    }
    const std::vector<std::string> stops = {"aba", "béa"};
    const std::string whole = Stream(tokenizer, ids).text;
    EXPECT_EQ(whole, tokenizer.Decode(ids));
    size_t end = whole.size();
    for (const std::string& stop : stops) end = std::min(end, whole.find(stop));
    EXPECT_EQ(Stream(tokenizer, ids, stops).text, whole.substr(0, end));
  }
}

}  // namespace
}  // namespace ll
