#include "worker/trainer/data/loader.h"

#include <algorithm>
#include <numeric>

#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "model/text/token_file_writer.h"

namespace ll {
namespace {

using testing::ElementsAre;
using testing::Pair;

// A file of tokens 0, 1, 2, … cut into documents of the given lengths.
std::shared_ptr<const TokenFile> MakeFile(const std::vector<int64_t>& documents) {
  const TempDir dir;  // the file is mapped
  const std::string path = dir.path() + "/tokens.bin";
  auto writer = TokenFileWriter::Create(path, 1000, "hash");
  EXPECT_TRUE(writer.ok()) << writer.status();
  int32_t next = 0;
  for (const int64_t length : documents) {
    std::vector<int32_t> ids(length);
    std::iota(ids.begin(), ids.end(), next);
    next += static_cast<int32_t>(length);
    EXPECT_TRUE(writer->AppendDocument(ids).ok());
  }
  EXPECT_TRUE(writer->Finish().ok());
  auto file = TokenFile::Open(path, 1000);
  EXPECT_TRUE(file.ok()) << file.status();
  return *file;
}

std::vector<int64_t> Values(const at::Tensor& t) {
  return {t.const_data_ptr<int64_t>(), t.const_data_ptr<int64_t>() + t.numel()};
}

TEST(Loader, RowsHaveNTokensAndOneTargetLess) {
  LL_ASSERT_OK_AND_ASSIGN(auto loader, Loader::Create(MakeFile({10}), {4, 1, /*shuffle=*/false}));
  EXPECT_EQ(loader->rows(), 3);
  EXPECT_THAT(Values(loader->Load(1).tokens), ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(Values(loader->Load(1).labels), ElementsAre(5, 6, 7, -100));
  EXPECT_EQ(loader->TargetsOf(1), 3);
  // The tail is a shorter row, so no token is lost; the next pass begins after it.
  EXPECT_THAT(Values(loader->Load(2).tokens), ElementsAre(8, 9));
  EXPECT_EQ(loader->TokensOf(2), 2);
  EXPECT_THAT(Values(loader->Load(3).tokens), ElementsAre(0, 1, 2, 3));
}

TEST(Loader, ATailOfOneTokenHasNoTarget) {
  LL_ASSERT_OK_AND_ASSIGN(auto loader, Loader::Create(MakeFile({9}), {4, 1, false}));
  EXPECT_EQ(loader->rows(), 2);
}

TEST(Loader, DocumentBoundariesCutAttentionAndTargets) {
  LL_ASSERT_OK_AND_ASSIGN(auto loader, Loader::Create(MakeFile({3, 5, 4}), {6, 1, false, true}));
  const Row row = loader->Load(0);
  EXPECT_THAT(Values(row.labels), ElementsAre(1, 2, -100, 4, 5, -100));
  EXPECT_THAT(row.documents, ElementsAre(Pair(0, 3), Pair(3, 6)));
  EXPECT_EQ(loader->TargetsOf(0), 4);
  const Row second = loader->Load(1);  // tokens 6..11, the document boundary at 8
  EXPECT_THAT(second.documents, ElementsAre(Pair(0, 2), Pair(2, 6)));
  EXPECT_EQ(loader->TargetsOf(1), 4);
}

TEST(Loader, ADocumentThatBeginsWithTheRowIsNoCut) {
  LL_ASSERT_OK_AND_ASSIGN(auto loader, Loader::Create(MakeFile({4, 4}), {4, 1, false, true}));
  EXPECT_TRUE(loader->Load(1).documents.empty());
  EXPECT_EQ(loader->TargetsOf(1), 3);
}

TEST(Loader, ShufflingVisitsEveryTokenOnceAPass) {
  LL_ASSERT_OK_AND_ASSIGN(auto loader, Loader::Create(MakeFile({103}), {10, 3, true}));
  std::vector<int64_t> seen;
  for (int64_t i = 0; i < loader->rows(); ++i) {
    const std::vector<int64_t> values = Values(loader->Load(i).tokens);
    seen.insert(seen.end(), values.begin(), values.end());
  }
  EXPECT_FALSE(std::is_sorted(seen.begin(), seen.end()));
  std::sort(seen.begin(), seen.end());
  std::vector<int64_t> all(103);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(seen, all);
}

TEST(Loader, TooShortAFileIsRefused) {
  EXPECT_THAT(Loader::Create(MakeFile({1}), {4, 1, false}),
              StatusIs(absl::StatusCode::kInvalidArgument, "data"));
}

}  // namespace
}  // namespace ll
