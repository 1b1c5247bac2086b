#include "rpc/config_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;

struct Parsed {
  std::string listen = "default";
  int lease_seconds = 30;
  bool shared_job_store = false;
  std::vector<std::string> roots;
  std::string error;
};

Parsed Parse(const std::string& yaml, std::vector<std::string> arguments = {}) {
  const TempDir dir;
  const std::string path = dir.path() + "/config.yaml";
  std::ofstream(path) << yaml;
  Parsed out;
  CLI::App app;
  app.add_option("--listen", out.listen);
  app.add_option("--lease-seconds", out.lease_seconds);
  app.add_flag("--shared-job-store", out.shared_job_store);
  app.add_option("--root", out.roots);
  AddConfigFile(app);
  arguments.insert(arguments.end(), {"--config", path});
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    app.parse(reversed);
  } catch (const CLI::ParseError& error) {
    out.error = error.what();
  }
  return out;
}

TEST(ConfigFile, SetsFlagsByName) {
  const Parsed got = Parse(
      "# a remark\nlisten: 127.0.0.1:1\nlease_seconds: 7\nshared-job-store: true\n"
      "root: [a=/a, b=/b]\n");
  EXPECT_EQ(got.error, "");
  EXPECT_EQ(got.listen, "127.0.0.1:1");
  EXPECT_EQ(got.lease_seconds, 7);
  EXPECT_TRUE(got.shared_job_store);
  EXPECT_THAT(got.roots, ElementsAre("a=/a", "b=/b"));
}

TEST(ConfigFile, MayBeEmptyAndFlagsWin) {
  EXPECT_EQ(Parse("# nothing\n").error, "");
  EXPECT_EQ(Parse("listen: file\n", {"--listen", "flag"}).listen, "flag");
}

TEST(ConfigFile, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT(Parse("lisen: x\n").error,
              HasSubstr("yaml: unknown key lisen; did you mean listen?"));
  EXPECT_THAT(Parse("lease_second: 1\n").error,
              HasSubstr("unknown key lease_second; did you mean lease-seconds?"));
  EXPECT_THAT(Parse("colour: x\n").error, EndsWith("unknown key colour"));
  EXPECT_THAT(Parse("listen: {a: b}\n").error, HasSubstr("listen: expected a value or a list"));
  EXPECT_THAT(Parse("root: [[a], b]\n").error, HasSubstr("root: expected a list of values"));
  EXPECT_THAT(Parse("- a\n").error, HasSubstr("expected a mapping"));
  EXPECT_THAT(Parse("a: [\n").error, HasSubstr("not YAML, line"));
  EXPECT_THAT(Parse("lease-seconds: soon\n").error, HasSubstr("lease-seconds"));
  EXPECT_THAT(Parse("listen: a\nlisten: b\n").error, HasSubstr("listen: given twice"));
  EXPECT_THAT(Parse("lease-seconds: 1\nlease_seconds: 2\n").error, HasSubstr("given twice"));
  EXPECT_THAT(Parse("listen: ~/x\n").error, HasSubstr("listen: expected a whole path, found ~/x"));
}

}  // namespace
}  // namespace ll
