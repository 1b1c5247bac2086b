#include "worker/agent/trainer_sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/subprocess.h"
#include "base/temp_dir.h"
#include "worker/agent/path_check.h"

namespace ll {
namespace {

TEST(TrainerEnvironment, HoldsWhatLibrariesNeedAndNoSecretOfTheAgent) {
  for (const char* name : {"PATH", "HOME", "LD_LIBRARY_PATH", "NCCL_DEBUG", "CUDA_HOME",
                           "OMP_NUM_THREADS", "AWS_ACCESS_KEY_ID", "LC_ALL", "LL_ATTENTION_TABLE"})
    EXPECT_TRUE(IsTrainerVariable(name)) << name;
  for (const char* name :
       {"LLCTL_TOKEN", "LD_PRELOAD", "LD_AUDIT", "PYTHONPATH", "BASH_ENV", "NOTIFY_SOCKET",
        "SSH_AUTH_SOCK", "KUBERNETES_SERVICE_HOST", "MY_PASSWORD", "LL_DATA_DIR", ""})
    EXPECT_FALSE(IsTrainerVariable(name)) << name;
  setenv("LLCTL_TOKEN", "secret", 1);
  EXPECT_EQ(TrainerEnvironment().count("LLCTL_TOKEN"), 0u);
  unsetenv("LLCTL_TOKEN");
}

class SandboxTest : public ::testing::Test {
 protected:
  SandboxTest() {
    for (const char* name : {"models", "jobs", "jobs/job-1", "jobs/job-2", "elsewhere"})
      EXPECT_TRUE(MakeDirs(dir_.path() + "/" + name).ok());
    EXPECT_TRUE(WriteFileAtomic(dir_.path() + "/models/data", "data").ok());
    EXPECT_TRUE(WriteFileAtomic(dir_.path() + "/elsewhere/secret", "secret").ok());
    EXPECT_EQ(chmod(dir_.path().c_str(), 0755), 0);
  }

  std::shared_ptr<const TrainerSandbox> Make(bool roots, const std::string& user = "",
                                             const std::string& trainer = "/bin/sh") {
    TrainerSandboxOptions options{.trainer = trainer, .user = user};
    Roots named;
    if (roots) named["root"] = dir_.path() + "/models";
    auto made = TrainerSandbox::Make(options, named, dir_.path() + "/jobs");
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? *made : nullptr;
  }
  // What a shell says within the sandbox of job-1, without its last newline.
  std::string Say(const TrainerSandbox& sandbox, const std::string& script,
                  const v1::JobSpec& spec = {}) {
    int fds[2];
    EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
    auto rules = sandbox.RulesFor(spec, dir_.path() + "/jobs/job-1");
    EXPECT_TRUE(rules.ok()) << rules.status();
    SubprocessOptions options;
    options.argv = {"/bin/sh", "-c", "cd " + dir_.path() + "; " + script};
    options.environment = {{"PATH", "/usr/bin:/bin"}};
    options.inherit_environment = false;
    options.inherited_fds = {{1, fds[1]}};
    options.sandbox = rules->get();
    options.user = sandbox.user();
    auto process = Subprocess::Start(options);
    close(fds[1]);
    EXPECT_TRUE(process.ok()) << process.status();
    std::string text;
    char buffer[4096];
    ssize_t n;
    while ((n = read(fds[0], buffer, sizeof buffer)) > 0) text.append(buffer, n);
    close(fds[0]);
    if (process.ok()) process->Wait(absl::Seconds(20));
    return std::string(absl::StripSuffix(text, "\n"));
  }
  const TempDir dir_;
};

TEST_F(SandboxTest, ATrainerReadsTheRootsAndWritesItsAttempt) {
  if (LandlockVersion() == 0) GTEST_SKIP() << "this kernel has no Landlock";
  const auto sandbox = Make(/*roots=*/true);
  EXPECT_EQ(Say(*sandbox, "cat models/data"), "data");
  EXPECT_EQ(Say(*sandbox, "echo x > jobs/job-1/log && cat jobs/job-1/log"), "x");
  for (const char* denied :
       {"cat elsewhere/secret", "cat models/../elsewhere/secret",
        "cat /proc/self/root$PWD/elsewhere/secret", "ls elsewhere", "echo x > jobs/job-2/log",
        "echo x > models/data", "rm models/data", "echo x > elsewhere/new", "mkdir elsewhere/d",
        "ln -s /etc jobs/job-2/l", "mv jobs/job-1 elsewhere/j", "touch /tmp/ll_sandbox_escape"}) {
    EXPECT_EQ(Say(*sandbox, absl::StrCat("(", denied, ") 2>&- || echo denied")), "denied")
        << denied;
  }
  // A link that a job makes leads nowhere new.
  EXPECT_EQ(Say(*sandbox,
                "ln -s $PWD/elsewhere jobs/job-1/l; cat jobs/job-1/l/secret 2>&- || echo denied"),
            "denied");
  // What the job's spec says it writes.
  v1::JobSpec merge;
  merge.set_merge_out(dir_.path() + "/elsewhere/merged");
  EXPECT_EQ(Say(*sandbox, "mkdir elsewhere/merged && echo made", merge), "made");
  v1::JobSpec copies;
  copies.set_checkpoint_uri(dir_.path() + "/copies");
  EXPECT_EQ(Say(*sandbox, "echo x > copies/c && cat copies/c", copies), "x");
}

// A release unpacked anywhere, and a table of attention that the agent's environment names.
TEST_F(SandboxTest, ATrainerReadsWhatItsReleaseBringsForIt) {
  if (LandlockVersion() == 0) GTEST_SKIP() << "this kernel has no Landlock";
  for (const char* name : {"release", "release/bin", "release/share", "release/share/ll"})
    LL_ASSERT_OK(MakeDirs(dir_.path() + "/" + name));
  LL_ASSERT_OK(WriteFileAtomic(dir_.path() + "/release/share/ll/entrypoints.jsonl", "table"));
  LL_ASSERT_OK(WriteFileAtomic(dir_.path() + "/elsewhere/own.jsonl", "own"));
  setenv("LL_ATTENTION_TABLE", (dir_.path() + "/elsewhere/own.jsonl").c_str(), 1);
  const auto sandbox = Make(/*roots=*/true, /*user=*/"", dir_.path() + "/release/bin/ll-trainer");
  unsetenv("LL_ATTENTION_TABLE");
  EXPECT_EQ(Say(*sandbox, "cat release/bin/../share/ll/entrypoints.jsonl"), "table");
  EXPECT_EQ(Say(*sandbox, "cat elsewhere/own.jsonl"), "own");
  EXPECT_EQ(Say(*sandbox, "cat elsewhere/secret 2>&- || echo denied"), "denied");
}

TEST_F(SandboxTest, WithoutRootsReadingIsTheAgentsBusinessAndWritingIsNot) {
  if (LandlockVersion() == 0) GTEST_SKIP() << "this kernel has no Landlock";
  const auto sandbox = Make(/*roots=*/false);
  EXPECT_EQ(Say(*sandbox, "cat elsewhere/secret"), "secret");
  EXPECT_EQ(Say(*sandbox, "(echo x > elsewhere/new) 2>&- || echo denied"), "denied");
}

TEST_F(SandboxTest, TrainersMayRunAsAnotherAccount) {
  if (geteuid() != 0) {
    EXPECT_THAT(TrainerSandbox::Make({.trainer = "/bin/sh", .user = "nobody"}, {}, dir_.path()),
                StatusIs(absl::StatusCode::kFailedPrecondition, "trainer-user"));
    return;
  }
  EXPECT_THAT(
      TrainerSandbox::Make({.trainer = "/bin/sh", .user = "no-such-account"}, {}, dir_.path()),
      StatusIs(absl::StatusCode::kNotFound, "trainer-user"));
  const auto sandbox = Make(/*roots=*/true, "nobody");
  const std::string id =
      Say(*sandbox, "id -un; cat /proc/self/status | grep -E 'NoNewPrivs|CapEff'");
  EXPECT_THAT(id, ::testing::StartsWith("nobody\n"));
  EXPECT_THAT(id, ::testing::HasSubstr("CapEff:\t0000000000000000"));
}

TEST_F(SandboxTest, TheLoaderTellsWhereLibrariesAre) {
  EXPECT_THAT(LibraryFolders("/bin/sh"), ::testing::Not(::testing::IsEmpty()));
  EXPECT_THAT(LibraryFolders("/nonexistent"), ::testing::IsEmpty());
}

// ---- files that are looked at for an operator

TEST_F(SandboxTest, PipesDevicesAndLinksOutsideAreRefusedAtOnce) {
  const Roots roots = {{"root", dir_.path() + "/models"}};
  const auto refused = [&](v1::CheckPath::Kind kind, const std::string& path) {
    v1::CheckPath check;
    check.set_kind(kind);
    check.set_path(path);
    return CheckRegisteredPath(roots, check).refused();
  };
  const std::string root = dir_.path() + "/models/";
  ASSERT_EQ(mkfifo((root + "fifo").c_str(), 0600), 0);
  ASSERT_EQ(symlink((dir_.path() + "/elsewhere/secret").c_str(), (root + "out").c_str()), 0);
  ASSERT_EQ(symlink("/dev/zero", (root + "zero").c_str()), 0);
  LL_ASSERT_OK(MakeDirs(root + "m"));
  ASSERT_EQ(mkfifo((root + "m/config.json").c_str(), 0600), 0);
  EXPECT_THAT(refused(v1::CheckPath::DATA, root + "fifo"), ::testing::HasSubstr("a file"));
  EXPECT_THAT(refused(v1::CheckPath::DATA, root + "out"), ::testing::HasSubstr("beneath one of"));
  EXPECT_THAT(refused(v1::CheckPath::DATA, root + "zero"), ::testing::HasSubstr("beneath one of"));
  EXPECT_THAT(refused(v1::CheckPath::DATA, "/proc/self/root" + root + "../elsewhere/secret"),
              ::testing::HasSubstr("beneath one of"));
  EXPECT_THAT(refused(v1::CheckPath::MODEL, root + "m"), ::testing::HasSubstr("a file"));
  EXPECT_EQ(refused(v1::CheckPath::DATA, root + "data"), "");
  // A link inside the root to the inside is followed.
  ASSERT_EQ(symlink("data", (root + "alias").c_str()), 0);
  EXPECT_EQ(refused(v1::CheckPath::DATA, root + "alias"), "");
}

}  // namespace
}  // namespace ll
