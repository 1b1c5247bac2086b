#include "coordinator/api/audit.h"

#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/fake_clock.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

class AuditTest : public ::testing::Test {
 protected:
  AuditTest() { options_.dir = dir_.path(); }

  std::unique_ptr<AuditLog> Open() {
    auto log = AuditLog::Open(options_, clock_);
    EXPECT_TRUE(log.ok()) << log.status();
    return log.ok() ? *std::move(log) : nullptr;
  }
  static AuditEntry Entry(const std::string& object) {
    return {.user = "ann", .method = "/ll.v1.Jobs/Cancel", .object = object, .result = "OK"};
  }
  std::string path() const { return options_.dir + "/audit.jsonl"; }
  absl::StatusOr<AuditSummary> Verify() const {
    auto files = AuditFiles(options_.dir);
    return files.ok() ? VerifyAudit(*files) : files.status();
  }

  const TempDir dir_;
  AuditLog::Options options_;
  FakeClock clock_;
};

TEST_F(AuditTest, TheChainGoesOnOverRestartsAndFiles) {
  options_.max_file_bytes = 1000;
  for (int run = 0; run < 3; ++run) {
    auto log = Open();
    for (int i = 0; i < 10; ++i) log->Change(Entry(absl::StrCat("job-", run, "-", i)));
  }
  LL_ASSERT_OK_AND_ASSIGN(const std::vector<std::string> files, AuditFiles(options_.dir));
  EXPECT_GT(files.size(), 3u);
  LL_ASSERT_OK_AND_ASSIGN(const AuditSummary summary, Verify());
  EXPECT_EQ(summary.lines, 30);
  EXPECT_EQ(summary.first, 1);
  EXPECT_EQ(summary.last, 30);
  // Old files may be put elsewhere; what is left still follows.
  LL_ASSERT_OK(RemoveTree(files[0]));
  LL_ASSERT_OK_AND_ASSIGN(const AuditSummary rest, Verify());
  EXPECT_GT(rest.first, 1);
  EXPECT_EQ(rest.last_sha256, summary.last_sha256);
  // But not one from between.
  LL_ASSERT_OK(RemoveTree(files[2]));
  EXPECT_THAT(Verify(), StatusIs(absl::StatusCode::kDataLoss, "is missing"));
}

TEST_F(AuditTest, EveryTamperingShowsAtItsLine) {
  {
    auto log = Open();
    for (int i = 0; i < 5; ++i) log->Change(Entry(absl::StrCat("job-", i)));
  }
  LL_ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(path()));
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  lines.pop_back();
  const auto tampered = [&](const std::vector<std::string>& with) {
    std::string all;
    for (const std::string& line : with) absl::StrAppend(&all, line, "\n");
    EXPECT_TRUE(WriteFileAtomic(path(), all).ok());
    return Verify().status();
  };
  std::vector<std::string> changed = lines;
  changed[2] = absl::StrReplaceAll(changed[2], {{"ann", "bob"}});
  EXPECT_THAT(tampered(changed), StatusIs(absl::StatusCode::kDataLoss, "audit.jsonl:4: "));
  std::vector<std::string> removed = lines;
  removed.erase(removed.begin() + 1);
  EXPECT_THAT(tampered(removed), StatusIs(absl::StatusCode::kDataLoss, "audit.jsonl:2: line 2"));
  std::vector<std::string> swapped = lines;
  std::swap(swapped[1], swapped[2]);
  EXPECT_THAT(tampered(swapped), StatusIs(absl::StatusCode::kDataLoss, "audit.jsonl:2: "));
  std::vector<std::string> added = lines;
  added.insert(added.begin() + 3, lines[3]);
  EXPECT_THAT(tampered(added), StatusIs(absl::StatusCode::kDataLoss, "audit.jsonl:5: "));
  EXPECT_THAT(tampered({lines[0], "rubbish"}),
              StatusIs(absl::StatusCode::kDataLoss, "audit.jsonl:2: "));
  LL_EXPECT_OK(tampered(lines));
}

TEST_F(AuditTest, ALineThatWasCutByACrashIsRemovedAndTold) {
  { Open()->Change(Entry("job-1")); }
  LL_ASSERT_OK(AppendFile(path(), "{\"n\":2,\"us", false));
  EXPECT_THAT(Verify(), StatusIs(absl::StatusCode::kDataLoss, "audit.jsonl:2"));
  { Open()->Change(Entry("job-2")); }
  LL_ASSERT_OK_AND_ASSIGN(const AuditSummary summary, Verify());
  EXPECT_EQ(summary.lines, 2);
  LL_ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(path()));
  EXPECT_TRUE(absl::StrContains(text, "\"bytes_cut\":10")) << text;
  LL_ASSERT_OK(AppendFile(path(), "rubbish\n", false));
  EXPECT_THAT(AuditLog::Open(options_, clock_), StatusIs(absl::StatusCode::kDataLoss, "last line"));
}

TEST_F(AuditTest, StrangersCannotFillTheDisk) {
  options_.refusals_per_second = 1;
  auto log = Open();
  for (int i = 0; i < 1000; ++i) log->Refusal(Entry(""));
  LL_ASSERT_OK_AND_ASSIGN(AuditSummary summary, Verify());
  EXPECT_EQ(summary.lines, 10);
  log->Change(Entry("job-1"));  // changes are never left out
  clock_.Advance(absl::Seconds(5));
  log->Refusal(Entry(""));
  LL_ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(path()));
  EXPECT_TRUE(absl::StrContains(text, "\"refusals_not_shown\":990")) << text;
  LL_ASSERT_OK_AND_ASSIGN(summary, Verify());
  EXPECT_EQ(summary.lines, 12);
}

TEST_F(AuditTest, WhileItCannotBeWrittenChangesAreRefused) {
  ASSERT_EQ(symlink("/dev/full", path().c_str()), 0);
  auto log = Open();
  LL_EXPECT_OK(log->Writable());
  log->Change(Entry("job-1"));
  EXPECT_THAT(log->Writable(),
              StatusIs(absl::StatusCode::kResourceExhausted, "changes are refused"));
  for (int i = 0; i < 5000; ++i) log->Change(Entry("job-2"));  // keeps a bounded number of lines
}

// So it stands when the second of a rotation's two renames failed, and when an operator has moved
// the file away.
TEST_F(AuditTest, ARotationThatCameHalfWayIsFinished) {
  options_.max_file_bytes = 1000;
  auto log = Open();
  for (int i = 0; i < 3; ++i) log->Change(Entry(absl::StrCat("job-", i)));
  ASSERT_EQ(rename(path().c_str(), (options_.dir + "/audit-000000000001.jsonl").c_str()), 0);
  for (int i = 3; i < 30; ++i) {
    LL_ASSERT_OK(log->Writable());
    log->Change(Entry(absl::StrCat("job-", i)));
  }
  LL_ASSERT_OK_AND_ASSIGN(const AuditSummary summary, Verify());
  EXPECT_EQ(summary.first, 1);
  EXPECT_EQ(summary.last, 30);
}

TEST_F(AuditTest, NothingInAnEntryBreaksTheLine) {
  auto log = Open();
  log->Change({.user = "a\"b\n{}\xff\x1b[31m",
               .method = std::string(10'000, 'm'),
               .object = std::string("\0x", 2),
               .result = "OK"});
  log->Change(Entry("job-1"));
  LL_ASSERT_OK_AND_ASSIGN(const AuditSummary summary, Verify());
  EXPECT_EQ(summary.lines, 2);
  LL_ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(path()));
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_LT(text.size(), 2000u);
}

}  // namespace
}  // namespace ll
