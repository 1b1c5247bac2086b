#include "worker/agent/path_check.h"

#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {
using ::testing::HasSubstr;

class PathCheckTest : public testing::Test {
 protected:
  void Write(const std::string& name, const std::string& text) {
    LL_ASSERT_OK(WriteFileAtomic(dir_.path() + "/" + name, text));
  }
  v1::PathChecked Check(v1::CheckPath::Kind kind, const std::string& path,
                        const Roots& roots = {}) {
    v1::CheckPath check;
    check.set_id(7);
    check.set_kind(kind);
    check.set_path(path);
    v1::PathChecked checked = CheckRegisteredPath(roots, check);
    EXPECT_EQ(checked.id(), 7);
    return checked;
  }
  const TempDir dir_;
};

TEST_F(PathCheckTest, AModelHasItsConfigAndEveryWeightFile) {
  EXPECT_THAT(Check(v1::CheckPath::MODEL, dir_.path() + "/none").refused(), HasSubstr("no folder"));
  EXPECT_THAT(Check(v1::CheckPath::MODEL, dir_.path()).refused(), HasSubstr("config.json"));
  Write("config.json", "[]");
  EXPECT_THAT(Check(v1::CheckPath::MODEL, dir_.path()).refused(), HasSubstr("JSON object"));
  Write("config.json", R"({"hidden_size": 8})");
  EXPECT_THAT(Check(v1::CheckPath::MODEL, dir_.path()).refused(), HasSubstr("model.safetensors"));
  Write("model.safetensors.index.json",
        R"({"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}})");
  Write("part-1.safetensors", "weights");
  EXPECT_THAT(Check(v1::CheckPath::MODEL, dir_.path()).refused(), HasSubstr("part-2.safetensors"));
  Write("part-2.safetensors", "");
  EXPECT_THAT(Check(v1::CheckPath::MODEL, dir_.path()).refused(), HasSubstr("with content"));
  Write("part-2.safetensors", "weights");
  const v1::PathChecked good = Check(v1::CheckPath::MODEL, dir_.path());
  EXPECT_EQ(good.refused(), "");
  EXPECT_EQ(good.config_json(), R"({"hidden_size":8})");
  Write("model.safetensors.index.json", R"({"weight_map": {"a": "../../etc/passwd"}})");
  EXPECT_THAT(Check(v1::CheckPath::MODEL, dir_.path()).refused(), HasSubstr("same folder"));
}

// A folder that somebody downloaded: what it holds must not end the agent, nor its session.
TEST_F(PathCheckTest, HostileJsonIsRefused) {
  const std::string deep(300'000, '['), end(deep.size(), ']');
  Write("model.safetensors", "weights");
  Write("config.json", "{\"x\":" + deep + end + "}");
  EXPECT_THAT(Check(v1::CheckPath::MODEL, dir_.path()).refused(), HasSubstr("64 levels"));
  Write("config.json", "{\"x\":\"" + std::string(3 << 20, 'x') + "\"}");
  EXPECT_THAT(Check(v1::CheckPath::MODEL, dir_.path()).refused(),
              HasSubstr("at most 1048576 bytes"));
  Write("config.json", "{}");
  Write("model.safetensors.index.json", "{\"weight_map\":{\"a\":" + deep + end + "}}");
  EXPECT_THAT(Check(v1::CheckPath::MODEL, dir_.path()).refused(), HasSubstr("64 levels"));
}

TEST_F(PathCheckTest, ATokenFileHoldsWholeTokens) {
  Write("tokens.bin", "0123");
  EXPECT_EQ(Check(v1::CheckPath::DATA, dir_.path() + "/tokens.bin").refused(), "");
  Write("tokens.bin", "012");
  EXPECT_THAT(Check(v1::CheckPath::DATA, dir_.path() + "/tokens.bin").refused(),
              HasSubstr("3 bytes"));
  EXPECT_THAT(Check(v1::CheckPath::DATA, dir_.path() + "/none").refused(), HasSubstr("none"));
}

TEST_F(PathCheckTest, TextIsDataToo) {
  Write("pairs.jsonl", "{}\n");
  EXPECT_EQ(Check(v1::CheckPath::DATA, dir_.path() + "/pairs.jsonl").refused(), "");
  EXPECT_EQ(Check(v1::CheckPath::DATA, dir_.path()).refused(), "");  // a folder of text files
  Write("empty.jsonl", "");
  EXPECT_THAT(Check(v1::CheckPath::DATA, dir_.path() + "/empty.jsonl").refused(),
              HasSubstr("content"));
}

TEST_F(PathCheckTest, NothingOutsideTheRootsIsTold) {
  Write("tokens.bin", "0123");
  LL_ASSERT_OK(MakeDirs(dir_.path() + "/root"));
  Roots roots;
  LL_ASSERT_OK(AddRoot("data=" + dir_.path() + "/root", roots));
  EXPECT_THAT(Check(v1::CheckPath::DATA, dir_.path() + "/tokens.bin", roots).refused(),
              HasSubstr("roots"));
  EXPECT_THAT(Check(v1::CheckPath::DATA, "data/../tokens.bin", roots).refused(),
              HasSubstr("roots"));
}

}  // namespace
}  // namespace ll
