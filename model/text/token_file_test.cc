#include "model/text/token_file.h"

#include <random>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "model/text/token_file_writer.h"

namespace ll {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class TokenFileTest : public testing::Test {
 protected:
  void Write(int64_t vocab_size, const std::vector<std::vector<int32_t>>& documents) {
    LL_ASSERT_OK_AND_ASSIGN(auto writer, TokenFileWriter::Create(path_, vocab_size, "hash"));
    for (const auto& d : documents) LL_ASSERT_OK(writer.AppendDocument(d));
    LL_ASSERT_OK(writer.Finish());
  }
  std::vector<int32_t> ReadAll(int64_t vocab_size) {
    auto file = TokenFile::Open(path_, vocab_size);
    EXPECT_TRUE(file.ok()) << file.status();
    if (!file.ok()) return {};
    std::vector<int32_t> out(static_cast<size_t>((*file)->size()));
    (*file)->Read(0, absl::MakeSpan(out));
    return out;
  }
  const TempDir folder_;
  const std::string path_ = folder_.path() + "/f.bin";
};

TEST_F(TokenFileTest, RoundTripInBothWidths) {
  for (int64_t vocab : {100, 65536, 65537, 128256}) {
    const auto last = static_cast<int32_t>(vocab - 1);
    Write(vocab, {{1, 2, last}, {}, {0, 3}});
    EXPECT_THAT(ReadAll(vocab), ElementsAre(1, 2, last, 0, 3)) << vocab;
    LL_ASSERT_OK_AND_ASSIGN(int64_t bytes, FileSize(path_));
    EXPECT_EQ(bytes, vocab <= 65536 ? 10 : 20);
    LL_ASSERT_OK_AND_ASSIGN(auto file, TokenFile::Open(path_, vocab));
    EXPECT_THAT(file->documents(), ElementsAre(Pair(0, 3), Pair(3, 5)));
    EXPECT_EQ(file->tokenizer_hash(), "hash");
  }
}

TEST_F(TokenFileTest, LossSpansCountFromTheFile) {
  {
    LL_ASSERT_OK_AND_ASSIGN(auto writer, TokenFileWriter::Create(path_, 100, ""));
    LL_ASSERT_OK(writer.AppendDocument({1, 2, 3, 4}, {{2, 4}}));
    LL_ASSERT_OK(writer.AppendDocument({5, 6, 7}, {}));
    LL_ASSERT_OK(writer.AppendDocument({8, 9, 10}, {{0, 1}, {1, 1}, {2, 3}}));
    LL_ASSERT_OK(writer.Finish());
  }
  LL_ASSERT_OK_AND_ASSIGN(auto file, TokenFile::Open(path_, 100));
  ASSERT_TRUE(file->loss_spans().has_value());
  EXPECT_THAT(*file->loss_spans(), ElementsAre(Pair(2, 4), Pair(7, 8), Pair(9, 10)));
  Write(100, {{1, 2}});
  LL_ASSERT_OK_AND_ASSIGN(file, TokenFile::Open(path_, 100));
  EXPECT_FALSE(file->loss_spans().has_value()) << "absent: every token is a target";
}

TEST_F(TokenFileTest, BadLossSpansAreRefused) {
  Write(100, {{1, 2, 3, 4}});
  for (const char* spans :
       {"[[0, 9]]", "[[2, 1]]", "[[2, 3], [1, 2]]", "[1]", "7", R"([["a", 2]])", "[[-1, 2]]"}) {
    LL_ASSERT_OK(WriteFileAtomic(
        path_ + ".json", absl::StrCat(R"({"dtype": "uint16", "loss_spans": )", spans, "}")));
    EXPECT_THAT(TokenFile::Open(path_, 0), StatusIs(kInvalid, "loss_spans")) << spans;
  }
}

TEST_F(TokenFileTest, WithoutASidecarItIsUint16) {
  LL_ASSERT_OK(WriteFileAtomic(path_, absl::string_view("\x01\x00\x02\x01", 4)));
  EXPECT_THAT(ReadAll(1000), ElementsAre(1, 258));
}

TEST_F(TokenFileTest, ErrorsNameWhatWasExpectedAndFound) {
  EXPECT_THAT(TokenFile::Open(path_, 10),
              StatusIs(absl::StatusCode::kNotFound, "cannot open token file"));
  LL_ASSERT_OK(WriteFileAtomic(path_, "abc"));
  EXPECT_THAT(TokenFile::Open(path_, 0),
              StatusIs(kInvalid, "expected a multiple of 2 bytes (uint16 ids), found 3 bytes"));
  LL_ASSERT_OK(WriteFileAtomic(path_, ""));
  EXPECT_THAT(TokenFile::Open(path_, 0), StatusIs(kInvalid, "expected at least one token"));
  Write(100, {{1, 2, 50}});
  EXPECT_THAT(TokenFile::Open(path_, 50),
              StatusIs(kInvalid,
                       "expected ids below the model's vocabulary of 50, found id 50 at token 2"));
  LL_ASSERT_OK(WriteFileAtomic(path_, "ab"));
  EXPECT_THAT(TokenFile::Open(path_, 0),
              StatusIs(kInvalid, "expected 3 tokens (6 bytes) as its sidecar says, found 1"));
  for (const char* sidecar :
       {"[]", "{}", R"({"dtype": "int8"})", R"({"dtype": "uint16", "documents": 1})",
        R"({"dtype": "uint16", "documents": [[0, 9]]})",
        R"({"dtype": "uint16", "documents": [[1, 0]]})", "{",
        R"({"dtype": "uint16", "token_count": 18446744073709551615})",  // once taken for absent
        R"({"dtype": "uint16", "token_count": "1"})", R"({"dtype": "uint16", "token_count": 1.0})",
        R"({"dtype": "uint32", "token_count": 4611686018427387904})",
        R"({"dtype": "uint16", "dtype": "uint16"})",
        R"({"dtype": "uint16", "documents": [[0, 18446744073709551615]]})"}) {
    LL_ASSERT_OK(WriteFileAtomic(path_ + ".json", sidecar));
    EXPECT_EQ(TokenFile::Open(path_, 0).status().code(), kInvalid) << sidecar;
  }
  EXPECT_FALSE(TokenFile::Open(folder_.path(), 0).ok());
  // A document needs a token: a sidecar cannot make the reader hold more of them than the file has.
  std::string many = R"({"dtype": "uint16", "documents": [[0, 0])";
  for (int i = 0; i < 1000; ++i) many += ",[0,0]";
  LL_ASSERT_OK(WriteFileAtomic(path_ + ".json", many + "]}"));
  EXPECT_THAT(TokenFile::Open(path_, 0), StatusIs(kInvalid, "JSON values"));
}

TEST_F(TokenFileTest, BadIdsInTheMiddleOfALargeFileAreFound) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int64_t vocab : {1000, 100000}) {
    std::vector<int32_t> ids(20000, 5);
    const size_t at = random() % ids.size();
    ids[at] = 999;
    Write(vocab, {ids});
    EXPECT_THAT(TokenFile::Open(path_, 999),
                StatusIs(kInvalid, "id 999 at token " + std::to_string(at)));
    LL_EXPECT_OK(TokenFile::Open(path_, 1000));
  }
}

TEST_F(TokenFileTest, UnfinishedOrWrongWritesLeaveNothing) {
  {
    LL_ASSERT_OK_AND_ASSIGN(auto writer, TokenFileWriter::Create(path_, 10, ""));
    EXPECT_THAT(writer.AppendDocument({3, 10}),
                StatusIs(kInvalid, "expected ids below 10, found 10"));
    EXPECT_FALSE(writer.AppendDocument({-1}).ok());
  }
  LL_ASSERT_OK_AND_ASSIGN(auto names, ListDir(folder_.path()));
  EXPECT_THAT(names, IsEmpty());
}

}  // namespace
}  // namespace ll
