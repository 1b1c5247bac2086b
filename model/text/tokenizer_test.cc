#include "model/text/tokenizer.h"

#include <random>

#include "base/field_error.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "model/text/json_tokenizer.h"
#include "model/text/sentencepiece_tokenizer.h"
#include "model/text/unicode.h"

namespace ll {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// Characters a b c and space; merges "a b" then "ab c"; <s> and </s> special, [X] takes white space
// beside it.
json Sample() {
  return json::parse(R"({
    "added_tokens": [
      {"id": 0, "content": "<s>", "special": true, "normalized": false},
      {"id": 1, "content": "</s>", "special": true, "normalized": false},
      {"id": 9, "content": "[X]", "special": false, "normalized": false, "lstrip": true, "rstrip": true},
      {"id": 10, "content": "w", "special": false, "normalized": false, "single_word": true}],
    "normalizer": null, "pre_tokenizer": null,
    "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "unk_token": "?", "fuse_unk": true,
              "vocab": {"<s>": 0, "</s>": 1, "?": 2, " ": 3, "a": 4, "b": 5, "c": 6, "ab": 7, "abc": 8, "bc": 11},
              "merges": [["b", "c"], "a b", ["ab", "c"]]}})");
}

std::vector<int32_t> Ids(const json& file, const std::string& text) {
  auto tokenizer = JsonTokenizer::Parse(file.dump());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  if (!tokenizer.ok()) return {-1};
  auto ids = (*tokenizer)->Encode(text);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : std::vector<int32_t>{-1};
}

TEST(JsonTokenizerTest, MergesByRankThenFromTheLeft) {
  EXPECT_THAT(Ids(Sample(), "abc"), ElementsAre(4, 11));  // "b c" has the lower rank
  EXPECT_THAT(Ids(Sample(), "abab"), ElementsAre(7, 7));
  json file = Sample();
  file["model"]["merges"] = {"a b", "ab c"};
  EXPECT_THAT(Ids(file, "abc"), ElementsAre(8));
  EXPECT_THAT(Ids(file, ""), IsEmpty());
}

TEST(JsonTokenizerTest, UnknownCharactersFuseOrFallBackToBytes) {
  EXPECT_THAT(Ids(Sample(), "aéüa"), ElementsAre(4, 2, 4));
  json file = Sample();
  file["model"]["fuse_unk"] = false;
  EXPECT_THAT(Ids(file, "aéüa"), ElementsAre(4, 2, 2, 4));
  file["model"]["byte_fallback"] = true;
  file["model"]["vocab"]["<0xC3>"] = 20;
  file["model"]["vocab"]["<0xA9>"] = 21;
  EXPECT_THAT(Ids(file, "é"), ElementsAre(20, 21));
  EXPECT_THAT(Ids(file, "ü"), ElementsAre(2));  // not all of its bytes are tokens
}

TEST(JsonTokenizerTest, AddedTokensAreFoundBeforeAnythingElse) {
  EXPECT_THAT(Ids(Sample(), "<s>a</s>"), ElementsAre(0, 4, 1));
  EXPECT_THAT(Ids(Sample(), "a  [X]  b"), ElementsAre(4, 9, 5));
  EXPECT_THAT(Ids(Sample(), "w aw w"),
              ElementsAre(10, 3, 4, 2, 3, 10));  // "aw" is one word: a and the unknown w
}

TEST(JsonTokenizerTest, InvalidUtf8IsTheReplacementCharacter) {
  EXPECT_EQ(Ids(Sample(), "a\xFF\xE2\x82"), Ids(Sample(), "a\xEF\xBF\xBD\xEF\xBF\xBD"));
}

TEST(JsonTokenizerTest, DecodeLeavesSpecialAndUnknownIdsOut) {
  LL_ASSERT_OK_AND_ASSIGN(auto t, JsonTokenizer::Parse(Sample().dump()));
  EXPECT_EQ(t->Decode(std::vector<int32_t>{0, 8, 3, -5, 99, 5, 1}), "abc b");
  EXPECT_EQ(t->vocab_size(), 12);
}

TEST(JsonTokenizerTest, UnknownStepsAreErrorsNotDifferences) {
  struct Case {
    const char* section;
    const char* value;
    const char* message;
  };
  for (const Case& c : std::vector<Case>{
           {"normalizer", R"({"type": "BertNormalizer"})",
            "normalizer: the type BertNormalizer is not known"},
           {"pre_tokenizer", R"({"type": "BertPreTokenizer"})",
            "pre_tokenizer: the type BertPreTokenizer"},
           {"pre_tokenizer",
            R"({"type": "Split", "behavior": "Isolated", "pattern": {"Regex": "("}})",
            "does not compile"},
           {"pre_tokenizer",
            R"({"type": "Split", "behavior": "Isolated", "pattern": {"Regex": "(a\nb"}})",
            "(a?b"},  // a message is one line
           {"decoder", R"({"type": "WordPiece"})", "decoder: the type WordPiece"},
           {"model", R"({"type": "Unigram", "vocab": []})", "expected the type BPE"},
           {"model", R"({"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]})",
            "merge 0 is of tokens that are not"},
           {"model", R"({"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.1})",
            "dropout"},
           {"model", R"({"type": "BPE", "vocab": {"a": -1}, "merges": []})", "bad id"}}) {
    json file = Sample();
    file[c.section] = json::parse(c.value);
    EXPECT_THAT(JsonTokenizer::Parse(file.dump()), StatusIs(kInvalid, c.message)) << c.value;
  }
  EXPECT_THAT(JsonTokenizer::Parse("[1]"), StatusIs(kInvalid, "expected a JSON object"));
}

TEST(JsonTokenizerTest, FilesThatWouldGrowTheirInputAreRefused) {
  const json twice = json::parse(
      R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaa"})");
  json file = Sample();
  file["normalizer"] = {{"type", "Sequence"}, {"normalizers", {twice, twice}}};
  LL_EXPECT_OK(JsonTokenizer::Parse(file.dump()));
  file["normalizer"]["normalizers"] = json(12, twice);  // a text 2^48 times as long
  EXPECT_THAT(JsonTokenizer::Parse(file.dump()), StatusIs(kInvalid, "256 times as long, found"));
  file = Sample();
  file["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers", json(60, json{{"type", "ByteLevel"}})}};
  EXPECT_THAT(JsonTokenizer::Parse(file.dump()), StatusIs(kInvalid, "256 times as long"));
  file = Sample();
  file["decoder"] = {{"type", "Sequence"}, {"decoders", json(12, twice)}};
  EXPECT_THAT(JsonTokenizer::Parse(file.dump()), StatusIs(kInvalid, "256 times as long"));
  file["decoder"]["decoders"] = json(65, json{{"type", "Fuse"}});
  EXPECT_THAT(JsonTokenizer::Parse(file.dump()), StatusIs(kInvalid, "at most 64 steps"));
}

TEST(JsonTokenizerTest, HostileNumbersAreRefused) {
  json file = Sample();
  file["added_tokens"] = {{{"id", (uint64_t{1} << 32) + 1}, {"content", "x"}}};  // wraps to 1
  EXPECT_THAT(JsonTokenizer::Parse(file.dump()), StatusIs(kInvalid, "an id is too large"));
  file["added_tokens"] = {{{"id", 1 << 30}, {"content", "x"}}};  // a table of 40 GB
  EXPECT_THAT(JsonTokenizer::Parse(file.dump()), StatusIs(kInvalid, "is too large"));
  file = Sample();
  file["decoder"] = {{"type", "Strip"}, {"content", " "}, {"start", 1e300}};
  EXPECT_THAT(JsonTokenizer::Parse(file.dump()),
              StatusIs(kInvalid, "start: expected a small count"));
}

TEST(SentencePieceTest, RulesThatLeadOutOfTheModelAreRefused) {
  LL_ASSERT_OK_AND_ASSIGN(const std::string good,
                          ReadFile("tests/fuzz/seeds/sentencepiece/unigram_with_rules.model"));
  LL_ASSERT_OK_AND_ASSIGN(const auto tokenizer, SentencePieceTokenizer::Parse(good));
  LL_ASSERT_OK_AND_ASSIGN(const auto a, tokenizer->Encode("AgAin"));
  LL_ASSERT_OK_AND_ASSIGN(const auto b, tokenizer->Encode("again"));
  EXPECT_EQ(a, b);  // its rules turn A into a
  // The trie's first unit is 4 bytes behind the rules' own length: a root whose children lie
  // gigabytes away.
  constexpr absl::string_view kName = "user_defined\x12\x88\x08";  // their field and its length
  ASSERT_NE(good.find(std::string(kName)), std::string::npos);
  const size_t rules = good.find(std::string(kName)) + kName.size();
  std::string bad = good;
  bad.replace(rules + 4, 4, "\xff\xff\xff\x7f");
  EXPECT_THAT(SentencePieceTokenizer::Parse(bad), StatusIs(kInvalid, "precompiled_charsmap"));
  bad = good;
  bad.replace(rules, 4, std::string("\x00\x00\x00\x7f", 4));  // a trie longer than the file
  EXPECT_THAT(SentencePieceTokenizer::Parse(bad), StatusIs(kInvalid, "precompiled_charsmap"));
  for (size_t n : {size_t{0}, size_t{1}, size_t{10}, good.size() / 2, good.size() - 1}) {
    EXPECT_FALSE(SentencePieceTokenizer::Parse(good.substr(0, n)).ok()) << n;
  }
}

TEST(JsonTokenizerTest, MutatedFilesNeverCrash) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  json file = Sample();
  file["pre_tokenizer"] = json::parse(R"({"type": "Sequence", "pretokenizers": [
      {"type": "Digits", "individual_digits": true}, {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}]})");
  const std::string base = file.dump();
  int parsed = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text = base;
    for (unsigned n = 1 + random() % 2; n-- > 0;) {
      text[random() % text.size()] =
          random() % 2 ? static_cast<char>(random()) : "0123456789{}[],:\"-"[random() % 18];
    }
    auto t = JsonTokenizer::Parse(text);
    if (!t.ok()) continue;
    ++parsed;
    auto ids = (*t)->Encode("ab c <s> [X] 12\xFF");
    if (ids.ok()) (*t)->Decode(*ids);
  }
  EXPECT_GT(parsed, 0);
}

TEST(UnicodeTest, InvalidPartsAreReplacedOneByOne) {
  const std::string bad = "\xEF\xBF\xBD";
  EXPECT_EQ(ReplaceInvalidUtf8("a\xC0\x80z"), "a" + bad + bad + "z");        // overlong
  EXPECT_EQ(ReplaceInvalidUtf8("\xED\xA0\x80"), bad + bad + bad);            // surrogate
  EXPECT_EQ(ReplaceInvalidUtf8("\xF0\x9F\x98"), bad);                        // cut
  EXPECT_EQ(ReplaceInvalidUtf8("\xF4\x90\x80\x80"), bad + bad + bad + bad);  // beyond U+10FFFF
  EXPECT_TRUE(IsValidUtf8("\xF0\x9F\x98\x80\xEF\xBF\xBF"));
}

TEST(UnicodeTest, NormalForms) {
  EXPECT_EQ(NormalizeUtf8("e\xCC\x81", NormalForm::kNfc), "\xC3\xA9");
  EXPECT_EQ(NormalizeUtf8("\xC3\xA9", NormalForm::kNfd), "e\xCC\x81");
  EXPECT_EQ(NormalizeUtf8("\xEF\xAC\x81", NormalForm::kNfkc), "fi");
}

class TokenizerFolderTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) { return folder_.path() + "/" + name; }
  const TempDir folder_;
};

TEST_F(TokenizerFolderTest, FolderGivesSpecialIdsByNameThenByConfig) {
  EXPECT_THAT(OpenTokenizer(folder_.path()),
              StatusIs(absl::StatusCode::kNotFound, "no tokenizer.json"));
  LL_ASSERT_OK(WriteFileAtomic(Path("tokenizer.json"), Sample().dump()));
  LL_ASSERT_OK(
      WriteFileAtomic(Path("config.json"), R"({"bos_token_id": 1, "eos_token_id": [1, 2]})"));
  LL_ASSERT_OK_AND_ASSIGN(auto by_config, OpenTokenizer(folder_.path()));
  EXPECT_EQ(by_config->bos_id, 1);
  EXPECT_EQ(by_config->eos_id, 1);
  LL_ASSERT_OK(WriteFileAtomic(Path("tokenizer_config.json"),
                               R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>"})"));
  LL_ASSERT_OK_AND_ASSIGN(auto by_name, OpenTokenizer(folder_.path()));
  EXPECT_EQ(by_name->bos_id, 0);
  EXPECT_EQ(by_name->hash(), by_config->hash());
}

TEST_F(TokenizerFolderTest, TrainsAndReadsSentencePiece) {
  std::string text;
  for (int i = 0; i < 400; ++i)
    text += "in the beginning was the word number " + std::to_string(i) + "\n";
  LL_ASSERT_OK(WriteFileAtomic(Path("text"), text));
  SentencePieceTraining training{
      .inputs = {Path("text")}, .output = Path("tokenizer.model"), .vocab_size = 320};
  LL_ASSERT_OK(TrainSentencePiece(training));
  LL_ASSERT_OK_AND_ASSIGN(auto t, OpenTokenizer(folder_.path()));
  EXPECT_EQ(t->vocab_size(), 320);
  EXPECT_EQ(t->bos_id, 1);
  EXPECT_EQ(t->eos_id, 2);
  for (const char* s : {"in the beginning", "  two  spaces ", "ünknown 漢字 😀", "line\nline", ""}) {
    LL_ASSERT_OK_AND_ASSIGN(auto ids, t->Encode(s));
    EXPECT_EQ(t->Decode(ids), s);
  }
  LL_ASSERT_OK_AND_ASSIGN(std::string first, ReadFile(training.output));
  LL_ASSERT_OK(TrainSentencePiece(training));
  LL_ASSERT_OK_AND_ASSIGN(std::string second, ReadFile(training.output));
  EXPECT_EQ(first, second);
  LL_ASSERT_OK_AND_ASSIGN(auto names, ListDir(folder_.path()));
  EXPECT_THAT(names, ElementsAre("text", "tokenizer.model"));
}

TEST_F(TokenizerFolderTest, SentencePieceErrors) {
  LL_ASSERT_OK(WriteFileAtomic(Path("text"), "a b c\n"));
  EXPECT_THAT(
      TrainSentencePiece({.inputs = {Path("none")}, .output = Path("m"), .vocab_size = 400}),
      StatusIs(absl::StatusCode::kNotFound, "none"));
  EXPECT_THAT(
      TrainSentencePiece({.inputs = {Path("text")}, .output = Path("m"), .vocab_size = 4000}),
      StatusIs(kInvalid, "tokenizer: training failed"));
  EXPECT_THAT(TrainSentencePiece({.inputs = {Path("text")}, .output = Path("m"), .vocab_size = 10}),
              StatusIs(kInvalid, "vocab_size: expected at least 300"));
  LL_ASSERT_OK(WriteFileAtomic(Path("tokenizer.model"), "not a model"));
  EXPECT_THAT(OpenTokenizer(folder_.path()), StatusIs(kInvalid, "expected a SentencePiece model"));
  LL_ASSERT_OK_AND_ASSIGN(auto names, ListDir(folder_.path()));
  EXPECT_THAT(names, ElementsAre("text", "tokenizer.model"));
}

}  // namespace
}  // namespace ll
