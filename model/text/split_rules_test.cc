// Cut texts give the ids of whole ones: for every kind of tokenizer, over random text.
#include "model/text/split_rules.h"

#include <random>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "model/text/json_tokenizer.h"
#include "model/text/line_parts.h"
#include "model/text/pre_tokenizer.h"
#include "model/text/sentencepiece_tokenizer.h"

namespace ll {
namespace {

using nlohmann::json;

constexpr char kSpaceMark[] = "\xE2\x96\x81";

class SplitTest : public testing::Test {
 protected:
  SplitTest()
      : seed_(std::random_device{}()),
        trace_(__FILE__, __LINE__, testing::Message() << "seed " << seed_) {
    random_.seed(seed_);
  }

  // What is dear to tokenizers: runs of spaces, newlines, marks, digits, letters of many scripts.
  std::string RandomText(size_t pieces) {
    static const char* const kPieces[] = {" ",
                                          "  ",
                                          "   ",
                                          "\n",
                                          "\n\n",
                                          "\t",
                                          "\r\n",
                                          "a",
                                          "b",
                                          "ab",
                                          "the",
                                          "The",
                                          "1",
                                          "23",
                                          ".",
                                          ",",
                                          "'s",
                                          "'",
                                          kSpaceMark,
                                          "\xC3\xA9",
                                          "e\xCC\x81",
                                          "\xE4\xB8\xAD",
                                          "\xC2\xA0",
                                          "\xE3\x80\x80",
                                          "\xF0\x9F\x98\x80",
                                          "</s>",
                                          "<s>",
                                          "!",
                                          "\x01",
                                          " The",
                                          ".\nThe",
                                          " a",
                                          "\xE1\x9A\x80",
                                          "\xD0\x96",
                                          ".\n1",
                                          "x\n y"};
    std::string out;
    for (size_t i = 0; i < pieces; ++i) out += kPieces[random_() % std::size(kPieces)];
    return out;
  }

  // Random merges; none makes a token for which `refuse` holds.
  json RandomModel(const std::vector<std::string>& alphabet, bool (*refuse)(const std::string&)) {
    json vocab, merges = json::array();
    std::vector<std::string> tokens = alphabet;
    for (const std::string& t : tokens) vocab[t] = vocab.size();
    while (tokens.size() < alphabet.size() + 400) {
      const std::string &a = tokens[random_() % tokens.size()],
                        &b = tokens[random_() % tokens.size()];
      const std::string ab = a + b;
      if (vocab.contains(ab) || refuse(ab) || ab.size() > 24 || a[0] == '<' || b[0] == '<')
        continue;
      vocab[ab] = vocab.size();
      merges.push_back({a, b});
      tokens.push_back(ab);
    }
    return {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}};
  }

  static std::unique_ptr<JsonTokenizer> Parse(const json& root) {
    auto tokenizer = JsonTokenizer::Parse(root.dump());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
  }

  static std::vector<int32_t> Ids(const Tokenizer& tokenizer, const std::string& text) {
    auto ids = tokenizer.Encode(text);
    EXPECT_TRUE(ids.ok()) << ids.status();
    return ids.ok() ? *ids : std::vector<int32_t>();
  }

  // The ids of `text` given in parts, cut at its last safe place and then at theirs.
  static void EncodeInParts(const LinePartEncoder& encoder, absl::string_view text, bool first,
                            std::vector<int32_t>& out) {
    const size_t cut = LastSafeCut(text);
    if (cut > 0) EncodeInParts(encoder, text.substr(0, cut), first, out);
    LL_EXPECT_OK(encoder.Encode(text.substr(cut), first && cut == 0, out));
  }

  // `root` splits at spaces and lines, and gives the ids of the same tokenizer when it does not.
  void Check(const json& root) {
    json slow = root;
    // A step that does nothing, and that no rule knows.
    const json nothing = {
        {"type", "Split"}, {"pattern", {{"Regex", "\\x{10FFFE}"}}}, {"behavior", "Isolated"}};
    json steps = json::array({nothing});
    if (root.contains("pre_tokenizer")) steps.push_back(root["pre_tokenizer"]);
    slow["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", steps}};
    const auto fast_tokenizer = Parse(root), slow_tokenizer = Parse(slow);
    ASSERT_TRUE(fast_tokenizer && slow_tokenizer);
    ASSERT_TRUE(fast_tokenizer->SplitsAtLines());
    ASSERT_FALSE(slow_tokenizer->SplitsAtLines());
    LL_ASSERT_OK_AND_ASSIGN(const auto parts, LinePartEncoder::Create(*fast_tokenizer));
    for (int i = 0; i < 1500; ++i) {
      const std::string text = RandomText(1 + random_() % 40);
      const std::vector<int32_t> whole = Ids(*slow_tokenizer, text);
      ASSERT_EQ(Ids(*fast_tokenizer, text), whole) << text;
      std::vector<int32_t> joined;
      EncodeInParts(parts, text, true, joined);
      ASSERT_EQ(joined, whole) << text;
    }
  }

  static json Added() {
    return {{{"id", 5000}, {"content", "<s>"}, {"special", true}},
            {{"id", 5001}, {"content", "</s>"}, {"special", true}}};
  }
  std::vector<std::string> ByteAlphabet() {
    return {ByteLevelAlphabet().begin(), ByteLevelAlphabet().end()};
  }
  static bool Never(const std::string&) { return false; }

  const uint32_t seed_;
  testing::ScopedTrace trace_;
  std::mt19937 random_;
};

TEST_F(SplitTest, ByteLevel) {
  for (bool prefix : {false, true}) {
    Check({{"model", RandomModel(ByteAlphabet(), Never)},
           {"added_tokens", Added()},
           {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", prefix}}}});
  }
  const json digits = {{"type", "Digits"}, {"individual_digits", true}};
  Check({{"model", RandomModel(ByteAlphabet(), Never)},
         {"added_tokens", Added()},
         {"pre_tokenizer",
          {{"type", "Sequence"},
           {"pretokenizers", {digits, {{"type", "ByteLevel"}, {"add_prefix_space", false}}}}}}});
}

TEST_F(SplitTest, PatternsOfLlama3AndQwen2) {
  for (const char* digits : {"{1,3}", ""}) {
    const std::string pattern =
        absl::StrCat(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})", digits,
                     R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
    const json split = {
        {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}};
    json model = RandomModel(ByteAlphabet(), Never);
    model["ignore_merges"] = true;
    json root = {
        {"model", model},
        {"added_tokens", Added()},
        {"pre_tokenizer",
         {{"type", "Sequence"},
          {"pretokenizers",
           {split, {{"type", "ByteLevel"}, {"use_regex", false}, {"add_prefix_space", false}}}}}}};
    Check(root);
    root["normalizer"] = {{"type", "NFC"}};
    Check(root);
  }
}

// Of a token, in the spelling of SentencePiece: reaches over a space or a newline.
bool ReachesOver(const std::string& token) {
  VocabularyReach reach;
  reach.Add(token);
  return reach.over_spaces || reach.over_newlines;
}

std::vector<std::string> FallbackAlphabet() {
  std::vector<std::string> out = {"<unk>", kSpaceMark, "a", "b", "t", "h", "e", "T",
                                  ".",     ",",        "1", "2", "!", "'", "s", "\xC3\xA9"};
  for (int b = 0; b < 256; ++b)
    out.push_back(absl::StrCat("<0x", absl::Hex(b, absl::kZeroPad2), ">"));
  for (std::string& t : out) {
    if (t.size() == 6 && t[0] == '<')
      for (size_t i = 3; i < 5; ++i) t[i] = static_cast<char>(std::toupper(t[i]));
  }
  return out;
}

TEST_F(SplitTest, ByteFallbackAsLlama2) {
  const json prepend = {{"type", "Prepend"}, {"prepend", kSpaceMark}};
  const json replace = {
      {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpaceMark}};
  json model = RandomModel(FallbackAlphabet(), ReachesOver);
  model["byte_fallback"] = true;
  model["fuse_unk"] = true;
  model["unk_token"] = "<unk>";
  json root = {{"model", model},
               {"added_tokens", Added()},
               {"normalizer", {{"type", "Sequence"}, {"normalizers", {prepend, replace}}}}};
  Check(root);
  root.erase("normalizer");
  for (const char* scheme : {"always", "first", "never"}) {
    root["pre_tokenizer"] = {{"type", "Metaspace"}, {"prepend_scheme", scheme}, {"split", false}};
    Check(root);
    root["pre_tokenizer"]["split"] = true;
    Check(root);
  }
}

TEST_F(SplitTest, WhereInDoubtThereIsNoCut) {
  const auto rules = [](const json& root) {
    absl::flat_hash_map<std::string, int32_t> vocab;
    for (const auto& [token, id] : root["model"]["vocab"].items()) vocab[token] = id;
    auto added = ParseAddedTokens(root.value("added_tokens", json()));
    EXPECT_TRUE(added.ok());
    return FindSplitRules(root, vocab, *added);
  };
  const json model = {{"vocab", {{"a", 0}, {"\n", 1}}}};
  const json root = {{"model", model}};
  EXPECT_TRUE(rules(root).at_spaces && rules(root).at_lines && rules(root).at_marks);
  json r = root;
  r["model"]["vocab"][absl::StrCat("a", kSpaceMark)] = 2;
  EXPECT_FALSE(rules(r).at_spaces || rules(r).at_marks);
  EXPECT_TRUE(rules(r).at_lines);
  r = root;
  r["model"]["vocab"]["\na"] = 2;
  EXPECT_FALSE(rules(r).at_lines);
  r = root;
  r["model"]["fuse_unk"] = true;
  r["model"]["unk_token"] = "a";
  EXPECT_FALSE(rules(r).at_spaces || rules(r).at_lines);
  r = root;
  r["added_tokens"] = json::array({json{{"id", 7u}, {"content", "x"}, {"rstrip", true}}});
  EXPECT_TRUE(rules(r).at_spaces && !rules(r).at_lines);
  r = root;
  r["normalizer"] = {{"type", "Strip"}};
  EXPECT_TRUE(rules(r).at_spaces && !rules(r).at_lines);
  r = root;
  r["pre_tokenizer"] = {{"type", "ByteLevel"}, {"use_regex", false}};
  EXPECT_FALSE(rules(r).at_spaces || rules(r).at_lines);
  r["pre_tokenizer"] = {{"type", "ByteLevel"}};
  EXPECT_TRUE(rules(r).at_spaces && rules(r).at_lines && !rules(r).at_marks);
  r["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", "[^a]+"}}}, {"behavior", "Isolated"}};
  EXPECT_FALSE(rules(r).at_spaces || rules(r).at_lines);
}

TEST_F(SplitTest, SentencePieceModelsWordByWord) {
  LL_ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile("deploy/demo/base/tokenizer.model"));
  LL_ASSERT_OK_AND_ASSIGN(const auto tokenizer, SentencePieceTokenizer::Parse(bytes));
  ASSERT_TRUE(tokenizer->SplitsAtLines());
  SentencePieceModel model;
  ASSERT_EQ(model.Load(bytes), "");
  LL_ASSERT_OK_AND_ASSIGN(const auto parts, LinePartEncoder::Create(*tokenizer));
  for (int i = 0; i < 3000; ++i) {
    std::string text = RandomText(1 + random_() % 40);
    if (i % 10 == 0) text += "\xFF a\xE4\xB8 b\xF0 ";  // not UTF-8
    std::vector<int> whole;
    ASSERT_EQ(model.Encode(text, whole), "");
    ASSERT_EQ(Ids(*tokenizer, text), std::vector<int32_t>(whole.begin(), whole.end())) << text;
    std::vector<int32_t> joined;
    EncodeInParts(parts, text, true, joined);
    ASSERT_EQ(joined, std::vector<int32_t>(whole.begin(), whole.end())) << text;
  }
}

TEST(LastSafeCut, Places) {
  EXPECT_EQ(LastSafeCut("ab.\nCd.\nE"), 8u);
  EXPECT_EQ(LastSafeCut("ab.\nCd.\n"), 4u);
  for (const char* text :
       {"", "a", "a\n", "\na", "a\n\nb", "a \nb", "a\n b", "a\n1", "a\n\xC3\xA9", "\xC3\xA9\nb"}) {
    EXPECT_EQ(LastSafeCut(text), 0u) << text;
  }
}

}  // namespace
}  // namespace ll
