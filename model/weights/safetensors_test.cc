#include "model/weights/safetensors.h"

#include <unistd.h>

#include <cstring>
#include <fstream>
#include <random>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "model/weights/sharded.h"

namespace ll {
namespace {

using ::testing::HasSubstr;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class SafetensorsTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) { return folder_.path() + "/" + name; }
  // a: F32 [2, 3] = 0 … 5; b: BF16 [4] of 0x3f80 (1.0); empty: F32 [0].
  void WriteSample(const std::string& path) {
    auto writer =
        SafetensorsWriter::Create(path, {{.name = "a", .dtype = Dtype::kF32, .shape = {2, 3}},
                                         {.name = "b", .dtype = Dtype::kBF16, .shape = {4}},
                                         {.name = "empty", .dtype = Dtype::kF32, .shape = {0}}});
    LL_ASSERT_OK(writer);
    const float a[] = {0, 1, 2, 3, 4, 5};
    const uint16_t b[] = {0x3f80, 0x3f80, 0x3f80, 0x3f80};
    LL_ASSERT_OK(writer->Append(a, 8));  // in pieces
    LL_ASSERT_OK(writer->Append(a + 2, sizeof(a) - 8));
    LL_ASSERT_OK(writer->Append(b, sizeof(b)));
    LL_ASSERT_OK(writer->Finish());
  }
  // A file with this header text and `data_bytes` zero bytes.
  void WriteRaw(const std::string& path, const std::string& header, size_t data_bytes) {
    uint64_t n = header.size();
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<char*>(&n), 8);
    out << header << std::string(data_bytes, '\0');
  }
  const TempDir folder_;
};

TEST_F(SafetensorsTest, RoundTrip) {
  WriteSample(Path("x.safetensors"));
  LL_ASSERT_OK_AND_ASSIGN(auto file, SafetensorsFile::Open(Path("x.safetensors")));
  EXPECT_EQ(file->tensors().size(), 3u);
  EXPECT_EQ(file->metadata().at("format"), "pt");
  const TensorInfo* a = file->Find("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file->Data(*a)) % 8, 0u);
  float value;
  std::memcpy(&value, file->Data(*a) + 5 * sizeof(float), sizeof(value));
  EXPECT_EQ(value, 5.0f);
  EXPECT_EQ(file->Find("c"), nullptr);
  EXPECT_EQ(file->Find("empty")->size_bytes, 0);
}

TEST_F(SafetensorsTest, UnfinishedWriteLeavesNothing) {
  {
    auto writer =
        SafetensorsWriter::Create(Path("x"), {{.name = "a", .dtype = Dtype::kF32, .shape = {4}}});
    LL_ASSERT_OK(writer);
    const float a[] = {1, 2};
    LL_ASSERT_OK(writer->Append(a, sizeof(a)));
    EXPECT_THAT(writer->Finish(), StatusIs(kInvalid, "expected 16 bytes, found 8"));
    const float more[] = {1, 2, 3};
    EXPECT_THAT(writer->Append(more, sizeof(more)),
                StatusIs(kInvalid, "expected 16 bytes in all, found more"));
  }
  LL_ASSERT_OK_AND_ASSIGN(auto names, ListDir(folder_.path()));
  EXPECT_TRUE(names.empty());
}

TEST_F(SafetensorsTest, EveryTruncationIsAnError) {
  WriteSample(Path("x"));
  LL_ASSERT_OK_AND_ASSIGN(std::string whole, ReadFile(Path("x")));
  for (size_t n = 0; n < whole.size(); ++n) {
    std::ofstream(Path("cut"), std::ios::binary) << whole.substr(0, n);
    auto file = SafetensorsFile::Open(Path("cut"));
    ASSERT_FALSE(file.ok()) << n;
    EXPECT_THAT(std::string(file.status().message()), HasSubstr(Path("cut")));
    EXPECT_THAT(std::string(file.status().message()), HasSubstr("expected"));
    EXPECT_EQ(file.status().message().find('\n'), absl::string_view::npos);
  }
  std::ofstream(Path("cut"), std::ios::binary) << whole << "x";
  EXPECT_THAT(SafetensorsFile::Open(Path("cut")),
              StatusIs(kInvalid, "tensor data: expected 32 bytes, found 33"));
}

TEST_F(SafetensorsTest, EveryHeaderByteCorruptedNeverReadsOutside) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  WriteSample(Path("x"));
  LL_ASSERT_OK_AND_ASSIGN(const std::string whole, ReadFile(Path("x")));
  const size_t header_end = whole.size() - 32;
  int opened = 0;
  for (size_t at = 0; at < header_end; ++at) {
    for (int repeat = 0; repeat < 6; ++repeat) {
      std::string bad = whole;
      bad[at] = repeat < 3 ? static_cast<char>(random()) : "0123456789-[]{},:\""[random() % 18];
      std::ofstream(Path("bad"), std::ios::binary) << bad;
      auto file = SafetensorsFile::Open(Path("bad"));
      if (!file.ok()) {
        EXPECT_EQ(file.status().message().find('\n'), absl::string_view::npos) << file.status();
        continue;
      }
      ++opened;
      for (const TensorInfo& t :
           (*file)->tensors()) {  // what opens must be readable to its last byte
        ASSERT_LE(t.begin + t.size_bytes, 32);
        volatile std::byte sum{};
        for (int64_t i = 0; i < t.size_bytes; ++i) sum = (*file)->Data(t)[i];
        (void)sum;
      }
    }
  }
  EXPECT_GT(opened, 0);
}

TEST_F(SafetensorsTest, HostileHeaders) {
  struct Case {
    const char* header;
    size_t data;
    const char* message;
  };
  for (
      const Case& c : std::vector<Case>{
          {"[]", 0, "header: expected a JSON object"},
          {R"({"a":1})", 0, "a: expected an object, found 1"},
          {R"({"a":{"dtype":"F8","shape":[1],"data_offsets":[0,1]}})", 1,
           "a: expected a known dtype"},
          {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4,
           "a: expected sizes >= 0"},
          {R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4,
           "a: expected sizes >= 0"},
          {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}})", 4,
           "a: expected"},
          {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}})", 4,
           "data_offsets"},
          {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4,
           "data_offsets that rise"},
          {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", 4, "two offsets"},
          {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
           "expected 8 bytes for shape [2] of F32, found 4"},
          {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
           6, "no gap, no overlap"},
          {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, "no gap, no overlap"},
          {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 3,
           "tensor data: expected 4 bytes, found 3"},
          {R"({"a":{"dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0]}})", 0,
           "a: expected a shape of less than 2^63 bytes"},
          {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
           1, "header: a: given twice"},
          {R"({"a":{"dtype":"U8","shape":[[[[[[[[1]]]]]]]],"data_offsets":[0,1]}})", 1,
           "header: expected at most 8 levels"},
          {"{\"a\xff\":{}}", 0, "header: expected a JSON object, found a syntax error"},
          {R"({"__metadata__":{"a":1}})", 0, "__metadata__: expected texts"}}) {
    WriteRaw(Path("h"), c.header, c.data);
    EXPECT_THAT(SafetensorsFile::Open(Path("h")), StatusIs(kInvalid, c.message)) << c.header;
  }
  // Once printed in the error message, which took the stack.
  WriteRaw(Path("deep"), "{\"a\":" + std::string(200000, '[') + std::string(200000, ']') + "}", 0);
  EXPECT_THAT(SafetensorsFile::Open(Path("deep")), StatusIs(kInvalid, "at most 8 levels"));
  std::string many = "{\"a\":[0";
  for (int i = 0; i < 3'000'000; ++i) many += ",0";
  WriteRaw(Path("many"), many + "]}", 0);
  EXPECT_THAT(SafetensorsFile::Open(Path("many")),
              StatusIs(kInvalid, "at most 3000000 JSON values"));
  std::string dimensions = R"({"a":{"dtype":"U8","shape":[1)";
  for (int i = 0; i < 64; ++i) dimensions += ",1";
  WriteRaw(Path("dimensions"), dimensions + R"(],"data_offsets":[0,1]}})", 1);
  EXPECT_THAT(SafetensorsFile::Open(Path("dimensions")), StatusIs(kInvalid, "at most 64 sizes"));
  EXPECT_THAT(SafetensorsFile::Open(Path("none")), StatusIs(absl::StatusCode::kNotFound, "none"));
  EXPECT_FALSE(SafetensorsFile::Open(folder_.path()).ok());
}

TEST_F(SafetensorsTest, APointerOfGitLfsIsNamed) {
  LL_ASSERT_OK(WriteFileAtomic(
      Path("model.safetensors"),
      "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 269060552\n"));
  EXPECT_THAT(ShardedSafetensors::Open(folder_.path()),
              StatusIs(kInvalid, "a pointer of git-lfs to it"));
}

TEST_F(SafetensorsTest, ShardsAndTheirIndex) {
  EXPECT_THAT(ShardedSafetensors::Open(folder_.path()),
              StatusIs(absl::StatusCode::kNotFound, "no safetensors weights"));
  LL_ASSERT_OK(WriteFileAtomic(Path("pytorch_model.bin"), "x"));
  EXPECT_THAT(ShardedSafetensors::Open(folder_.path()),
              StatusIs(absl::StatusCode::kNotFound, "convert it to safetensors"));

  WriteSample(Path("model-00001-of-00002.safetensors"));
  WriteRaw(Path("model-00002-of-00002.safetensors"),
           R"({"c":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4);
  EXPECT_THAT(ErrorHint(ShardedSafetensors::Open(folder_.path()).status()),
              HasSubstr("but not the index of its shards"));
  auto write_index = [&](const std::string& map) {
    LL_ASSERT_OK(
        WriteFileAtomic(Path("model.safetensors.index.json"), "{\"weight_map\":{" + map + "}}"));
  };
  const std::string first = R"("a":"model-00001-of-00002.safetensors")";
  write_index(first + R"(,"c":"model-00002-of-00002.safetensors")");
  LL_ASSERT_OK_AND_ASSIGN(auto files, ShardedSafetensors::Open(folder_.path()));
  EXPECT_NE(files.Find("b"), nullptr);
  EXPECT_NE(files.Find("c"), nullptr);
  write_index(first + R"(,"d":"model-00002-of-00002.safetensors")");
  EXPECT_THAT(ShardedSafetensors::Open(folder_.path()),
              StatusIs(kInvalid, "expected d in model-00002"));
  write_index(first + R"(,"c":"model-00003-of-00003.safetensors")");
  EXPECT_THAT(
      ShardedSafetensors::Open(folder_.path()),
      StatusIs(absl::StatusCode::kNotFound,
               "model-00003-of-00003.safetensors: is missing; model.safetensors.index.json"));
  for (const char* name : {"../../etc/passwd", "/etc/passwd", "..", ".", ""}) {
    write_index(absl::StrCat("\"a\":\"", name, "\""));
    EXPECT_THAT(ShardedSafetensors::Open(folder_.path()), StatusIs(kInvalid, "a file name for a"))
        << name;
  }
  write_index(first + "," + first);
  EXPECT_THAT(ShardedSafetensors::Open(folder_.path()), StatusIs(kInvalid, "a: given twice"));
}

}  // namespace
}  // namespace ll
