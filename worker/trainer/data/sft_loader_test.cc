#include "worker/trainer/data/sft_loader.h"
#include "model/text/token_file_writer.h"

#include <numeric>

#include "base/ids.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

struct Document {
  int64_t length;
  TokenSpans loss_spans;
};

// A file of tokens 0, 1, 2, … cut into samples.
std::shared_ptr<const TokenFile> MakeFile(const std::vector<Document>& documents) {
  const TempDir dir;  // the file is mapped
  const std::string path = dir.path() + "/tokens.bin";
  auto writer = TokenFileWriter::Create(path, 1000, "hash");
  EXPECT_TRUE(writer.ok()) << writer.status();
  int32_t next = 0;
  for (const Document& document : documents) {
    std::vector<int32_t> ids(document.length);
    std::iota(ids.begin(), ids.end(), next);
    next += static_cast<int32_t>(document.length);
    EXPECT_TRUE(writer->AppendDocument(ids, document.loss_spans).ok());
  }
  EXPECT_TRUE(writer->Finish().ok());
  auto file = TokenFile::Open(path, 1000);
  EXPECT_TRUE(file.ok()) << file.status();
  return *file;
}

std::vector<int64_t> Values(const at::Tensor& t) {
  return {t.const_data_ptr<int64_t>(), t.const_data_ptr<int64_t>() + t.numel()};
}

SftLoaderOptions Plain(int64_t row_tokens) {
  SftLoaderOptions options;
  options.row_tokens = row_tokens;
  options.shuffle = false;
  return options;
}

TEST(SftLoader, ARowIsASampleWithLabelsOnItsTargetsOnly) {
  std::vector<std::string> warnings;
  LL_ASSERT_OK_AND_ASSIGN(
      auto loader,
      SftLoader::Create(MakeFile({{5, {{3, 5}}}, {6, {{1, 2}, {4, 6}}}}), Plain(8), &warnings));
  EXPECT_EQ(loader->rows(), 2);
  const Row first = loader->Load(0), second = loader->Load(1);
  EXPECT_THAT(Values(first.tokens), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(Values(first.labels), ElementsAre(-100, -100, 3, 4, -100));
  EXPECT_THAT(first.documents, IsEmpty());
  EXPECT_THAT(Values(second.labels), ElementsAre(6, -100, -100, 9, 10, -100));
  EXPECT_EQ(loader->TokensOf(1), 6);
  EXPECT_EQ(loader->TargetsOf(1), 3);
  EXPECT_THAT(Values(loader->Load(2).tokens), ElementsAre(0, 1, 2, 3, 4));  // the next pass
  EXPECT_THAT(warnings, IsEmpty());
}

TEST(SftLoader, PackedSamplesAreDocumentsOfARow) {
  std::vector<std::string> warnings;
  SftLoaderOptions options = Plain(8);
  options.packing = true;
  LL_ASSERT_OK_AND_ASSIGN(auto loader,
                          SftLoader::Create(MakeFile({{5, {{3, 5}}}, {6, {{4, 6}}}, {3, {{0, 3}}}}),
                                            options, &warnings));
  ASSERT_EQ(loader->rows(), 2);  // the third fits behind the first
  const Row row = loader->Load(0);
  EXPECT_THAT(Values(row.tokens), ElementsAre(0, 1, 2, 3, 4, 11, 12, 13));
  // A target at a sample's first token is none: the token before belongs to another sample.
  EXPECT_THAT(Values(row.labels), ElementsAre(-100, -100, 3, 4, -100, 12, 13, -100));
  EXPECT_THAT(row.documents, ElementsAre(Pair(0, 5), Pair(5, 8)));
  EXPECT_EQ(loader->TargetsOf(0), 4);
}

TEST(SftLoader, TargetsOfIsWhatLoadLabels) {
  const uint64_t seed = SystemRandom().Next();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  SeededRandom random(seed);
  std::vector<Document> documents;
  int64_t all = 0;
  for (int i = 0; i < 60; ++i) {
    const int64_t length = 4 + static_cast<int64_t>(random.Below(9));
    const int64_t a = static_cast<int64_t>(random.Below(length - 3));
    documents.push_back({length, {{a, a + 1}, {length - 2, length}}});
    all += length;
  }
  for (const bool packing : {false, true}) {
    SftLoaderOptions options = Plain(16);
    options.packing = packing;
    options.shuffle = true;
    options.seed = seed;
    std::vector<std::string> warnings;
    LL_ASSERT_OK_AND_ASSIGN(auto loader,
                            SftLoader::Create(MakeFile(documents), options, &warnings));
    int64_t seen = 0;
    for (int64_t i = 0; i < loader->rows(); ++i) {
      const Row row = loader->Load(i);
      EXPECT_EQ(loader->TokensOf(i), row.tokens.numel());
      EXPECT_LE(row.tokens.numel(), 16);
      EXPECT_EQ(loader->TargetsOf(i), row.labels.ne(-100).sum().item<int64_t>());
      seen += row.tokens.numel();
    }
    EXPECT_EQ(seen, all);
  }
}

TEST(SftLoader, TooLongASampleIsCutLeftOutOrRefused) {
  const auto file = MakeFile({{9, {{2, 4}, {6, 9}}}, {4, {{2, 4}}}});
  std::vector<std::string> warnings;
  SftLoaderOptions options = Plain(7);
  LL_ASSERT_OK_AND_ASSIGN(auto cut, SftLoader::Create(file, options, &warnings));
  EXPECT_THAT(Values(cut->Load(0).labels), ElementsAre(-100, 2, 3, -100, -100, 6, -100));
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("1 of 2 samples were cut to max_seq_length (7)")));
  options.truncation = "drop";
  LL_ASSERT_OK_AND_ASSIGN(auto dropped, SftLoader::Create(file, options, &warnings));
  EXPECT_EQ(dropped->rows(), 1);
  options.truncation = "error";
  EXPECT_THAT(SftLoader::Create(file, options, &warnings),
              StatusIs(absl::StatusCode::kInvalidArgument, "sample 1"));
}

TEST(SftLoader, ASampleWithoutATargetIsRefusedOrSkipped) {
  const auto file = MakeFile({{4, {{2, 4}}}, {4, {}}, {4, {{0, 1}}}});
  std::vector<std::string> warnings;
  SftLoaderOptions options = Plain(8);
  EXPECT_THAT(SftLoader::Create(file, options, &warnings),
              StatusIs(absl::StatusCode::kInvalidArgument, "sample 2"));
  options.skip_bad_samples = true;
  LL_ASSERT_OK_AND_ASSIGN(auto loader, SftLoader::Create(file, options, &warnings));
  EXPECT_EQ(loader->rows(), 1);
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("2 of 3 samples have no token with a loss")));
  EXPECT_THAT(SftLoader::Create(MakeFile({{4, {}}}), options, &warnings),
              StatusIs(absl::StatusCode::kInvalidArgument, "data"));
}

TEST(PackFirstFit, IsWhatTheSimpleLoopFinds) {
  const uint64_t seed = SystemRandom().Next();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  SeededRandom random(seed);
  for (int round = 0; round < 50; ++round) {
    const int64_t capacity = 1 + static_cast<int64_t>(random.Below(40));
    std::vector<int64_t> lengths(random.Below(200));
    for (int64_t& length : lengths) length = static_cast<int64_t>(random.Below(capacity + 1));
    std::vector<std::vector<int32_t>> expected;
    std::vector<int64_t> room;
    for (size_t i = 0; i < lengths.size(); ++i) {
      size_t bin = 0;
      while (bin < room.size() && room[bin] < lengths[i]) ++bin;
      if (bin == room.size()) {
        room.push_back(capacity);
        expected.emplace_back();
      }
      room[bin] -= lengths[i];
      expected[bin].push_back(static_cast<int32_t>(i));
    }
    EXPECT_EQ(PackFirstFit(lengths, capacity), expected);
  }
}

TEST(LongLoraSftGroup, FollowsTheRule) {
  EXPECT_EQ(LongLoraSftGroupTokens(9243), 8192);
  EXPECT_EQ(LongLoraSftGroupTokens(32768), 8192);
  EXPECT_EQ(LongLoraSftGroupTokens(4096), 1024);
  EXPECT_EQ(LongLoraSftGroupTokens(4000), 8192);
}

}  // namespace
}  // namespace ll
