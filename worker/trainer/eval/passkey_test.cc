#include "worker/trainer/eval/passkey.h"

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "base/status_matchers.h"

namespace ll {
namespace {

using ::testing::ElementsAre;
using Ids = std::vector<int32_t>;

// A tokenizer of characters: BOS, then a character an id.
absl::StatusOr<Ids> Characters(absl::string_view text) {
  Ids ids = {1};
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c) + 2);
  return ids;
}

std::string TextOf(absl::Span<const int32_t> ids) {
  std::string text;
  for (const int32_t id : ids.subspan(1)) text += static_cast<char>(id - 2);
  return text;
}

// Reads the key where the prompt states it, if it lies within the last `reach` ids.
struct Reader {
  int64_t reach = 1 << 30;
  absl::StatusOr<Ids> operator()(absl::Span<const int32_t> prompt, int64_t new_tokens) const {
    const std::string text = TextOf(prompt);
    const std::string before = "The pass key is ";
    const size_t at = text.find(before);
    EXPECT_NE(at, text.npos);
    if (static_cast<int64_t>(text.size() - at) > reach) return Ids(new_tokens, 0);
    const std::string key =
        text.substr(at + before.size(), text.find('.', at) - at - before.size());
    LL_ASSIGN_OR_RETURN(Ids ids, Characters(absl::StrCat(" ", key)));
    ids.erase(ids.begin());
    return ids;
  }
};

// A gang's view of one rank, with what the others would have answered added at once.
class OneOf : public Comm {
 public:
  OneOf(int rank, int world, std::vector<at::Tensor>& sums)
      : rank_(rank), world_(world), sums_(sums) {}
  int rank() const override { return rank_; }
  int world_size() const override { return world_; }
  absl::Status AllReduceSum(const std::vector<at::Tensor>& tensors) override {
    sums_.push_back(tensors[0].clone());
    at::Tensor total = at::zeros_like(tensors[0]);
    for (const at::Tensor& sum : sums_) total += sum;
    tensors[0].copy_(total);
    return absl::OkStatus();
  }
  absl::Status Broadcast(at::Tensor) override { return absl::OkStatus(); }
  void EnterPhase(const char*) override {}
  absl::Status StartExchangeAs(const char*, std::vector<PeerMessage>,
                               std::vector<PeerMessage>) override {
    return absl::UnimplementedError("one view only");
  }
  absl::Status FinishExchange() override { return absl::OkStatus(); }
  absl::StatusOr<std::unique_ptr<Comm>> Split(const std::string&,
                                              const std::vector<int>&) override {
    return absl::UnimplementedError("one view only");
  }
  CommCounters counters() const override { return {}; }

 private:
  const int rank_, world_;
  std::vector<at::Tensor>& sums_;
};

TEST(Passkey, ThePromptIsLongLoras) {
  const PasskeyPrompt prompt = MakePasskeyPrompt(100, 95, "123");
  const std::vector<std::string> lines = absl::StrSplit(prompt.text, '\n');
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_TRUE(absl::StartsWith(lines[0], "There is an important info hidden inside"));
  EXPECT_EQ(lines[1],
            "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back "
            "again. The g");
  EXPECT_EQ(lines[2], "The pass key is 123. Remember it. 123 is the pass key.");
  EXPECT_EQ(lines[3], "The g");
  EXPECT_EQ(lines[4], "What is the pass key? The pass key is");
}

TEST(Passkey, GarbageOfTheDefaultIntervalIsThatOfLongLora) {
  EXPECT_EQ(LongLoraGarbageChars(1000), 3072);
  EXPECT_EQ(LongLoraGarbageChars(2000), 7168);
  EXPECT_EQ(LongLoraGarbageChars(3000), 10240);
  EXPECT_EQ(LongLoraGarbageChars(4000), 14336);
}

TEST(Passkey, TheDrawFollowsFromGarbageAndSeed) {
  std::set<std::string> keys;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const PasskeyDraw draw = DrawPasskey(7168, seed);
    EXPECT_EQ(draw.key, DrawPasskey(7168, seed).key);
    EXPECT_GE(draw.prefix_chars, 0);
    EXPECT_LT(draw.prefix_chars, 7168);
    int key = 0;
    ASSERT_TRUE(absl::SimpleAtoi(draw.key, &key));
    EXPECT_GE(key, 1);
    EXPECT_LE(key, 49999);
    keys.insert(draw.key);
  }
  EXPECT_GT(keys.size(), 190u);
  EXPECT_NE(DrawPasskey(7168, 1).key, DrawPasskey(10240, 1).key);
  EXPECT_EQ(DrawPasskey(0, 1).prefix_chars, 0);
}

TEST(Passkey, AModelThatReadsTheKeyPassesEveryTestOfLongLorasProtocol) {
  PasskeyOptions options;
  options.max_tokens = 1000;
  options.interval = 300;
  options.num_tests = 4;
  Reader reader;
  LL_ASSERT_OK_AND_ASSIGN(const PasskeyResult result,
                          RunPasskey(options, Characters, reader, *MakeSingleComm()));
  EXPECT_FALSE(result.grid);
  EXPECT_EQ(result.all.tests, 12);
  EXPECT_EQ(result.all.accuracy(), 1);
  ASSERT_EQ(result.by_length.size(), 3u);
  EXPECT_EQ(result.effective_context_length, result.by_length.back().length);
  EXPECT_GT(result.by_length[1].length, result.by_length[0].length + 1000);  // in characters here
}

TEST(Passkey, EveryIdMustMatch) {
  PasskeyOptions options;
  options.lengths = {600};
  Reader reader;
  const auto almost = [&](absl::Span<const int32_t> prompt, int64_t n) -> absl::StatusOr<Ids> {
    LL_ASSIGN_OR_RETURN(Ids ids, reader(prompt, n));
    ids.back() += 1;
    return ids;
  };
  LL_ASSERT_OK_AND_ASSIGN(const PasskeyResult result,
                          RunPasskey(options, Characters, almost, *MakeSingleComm()));
  EXPECT_EQ(result.all.passed, 0);
  EXPECT_EQ(result.effective_context_length, 0);
  const auto shorter = [&](absl::Span<const int32_t> prompt, int64_t n) -> absl::StatusOr<Ids> {
    LL_ASSIGN_OR_RETURN(Ids ids, reader(prompt, n));
    ids.pop_back();
    return ids;
  };
  LL_ASSERT_OK_AND_ASSIGN(const PasskeyResult cut,
                          RunPasskey(options, Characters, shorter, *MakeSingleComm()));
  EXPECT_EQ(cut.all.passed, 0);
}

TEST(Passkey, AGridShowsHowFarAModelReaches) {
  PasskeyOptions options;
  options.lengths = {600, 1200, 2400};
  options.depths = 3;
  options.num_tests = 2;
  Reader reader{.reach = 1500};
  LL_ASSERT_OK_AND_ASSIGN(const PasskeyResult result,
                          RunPasskey(options, Characters, reader, *MakeSingleComm()));
  ASSERT_EQ(result.cells.size(), 9u);
  std::vector<double> accuracy;
  for (const auto& cell : result.cells) {
    EXPECT_EQ(cell.score.tests, 2);
    accuracy.push_back(cell.score.accuracy());
  }
  // At 2400 the key at the start is out of reach, in the middle and at the end it is not.
  EXPECT_THAT(accuracy, ElementsAre(1, 1, 1, 1, 1, 1, 0, 1, 1));
  EXPECT_EQ(result.cells[7].length, 2400);
  EXPECT_EQ(result.cells[7].depth, 0.5);
  EXPECT_EQ(result.effective_context_length, 1200);
  EXPECT_EQ(ToJson(result)["grid"].size(), 9u);
}

TEST(Passkey, PromptsOfAGridFillTheirLength) {
  PasskeyOptions options;
  options.lengths = {500, 5000};
  options.depths = 4;
  LL_ASSERT_OK_AND_ASSIGN(const auto tests, MakePasskeyTests(options, Characters));
  for (const RetrievalTest& test : tests) {
    const int64_t length = options.lengths[test.length_index];
    const int64_t tokens = static_cast<int64_t>(test.prompt.size()) + test.new_tokens;
    EXPECT_LE(tokens, length);
    EXPECT_GT(tokens, length - 20 - length / 256);
  }
  options.lengths = {};
  options.max_tokens = 100;
  EXPECT_THAT(MakePasskeyTests(options, Characters),
              StatusIs(absl::StatusCode::kInvalidArgument, "passkey_interval: expected at most"));
  options.lengths = {20};
  EXPECT_THAT(MakePasskeyTests(options, Characters),
              StatusIs(absl::StatusCode::kInvalidArgument, "passkey_lengths: expected at least"));
}

TEST(Passkey, NeighboursShareTheirPrefix) {
  PasskeyOptions options;
  options.lengths = {1000, 2000};
  options.depths = 5;
  Reader reader;
  Ids cached;
  int64_t computed = 0, all = 0;
  const auto counting = [&](absl::Span<const int32_t> prompt, int64_t n) {
    const auto end = std::mismatch(cached.begin(), cached.end(), prompt.begin(), prompt.end());
    computed += prompt.end() - end.second;
    all += static_cast<int64_t>(prompt.size());
    cached.assign(prompt.begin(), prompt.end());
    return reader(prompt, n);
  };
  LL_ASSERT_OK(RunPasskey(options, Characters, counting, *MakeSingleComm()).status());
  EXPECT_LT(computed, all * 6 / 10);
}

TEST(Passkey, AnyNumberOfRanksGivesTheSameResult) {
  PasskeyOptions options;
  options.lengths = {600, 1200, 2400};
  options.depths = 3;
  Reader reader{.reach = 1500};
  LL_ASSERT_OK_AND_ASSIGN(const PasskeyResult alone,
                          RunPasskey(options, Characters, reader, *MakeSingleComm()));
  for (const int world : {2, 4}) {
    std::vector<at::Tensor> sums;
    nlohmann::ordered_json last;
    for (int rank = 0; rank < world; ++rank) {
      OneOf comm(rank, world, sums);
      LL_ASSERT_OK_AND_ASSIGN(PasskeyResult result, RunPasskey(options, Characters, reader, comm));
      result.seconds = alone.seconds;
      last = ToJson(result);
    }
    EXPECT_EQ(last, ToJson(alone)) << world;
  }
}

TEST(EffectiveContextLength, IsTheLastLengthBeforeTheFirstGap) {
  const auto at = [](int64_t length, int64_t passed) { return LengthScore{length, {10, passed}}; };
  EXPECT_EQ(EffectiveContextLength({at(100, 10), at(200, 9), at(300, 8), at(400, 10)}), 200);
  EXPECT_EQ(EffectiveContextLength({at(200, 9), at(100, 10)}), 200);  // in any order
  EXPECT_EQ(EffectiveContextLength({at(100, 8), at(200, 10)}), 0);
  EXPECT_EQ(EffectiveContextLength({}), 0);
}

}  // namespace
}  // namespace ll
