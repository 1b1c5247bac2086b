#include "worker/agent/report_journal.h"

#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

v1::Report Step(int64_t step) {
  v1::Report report;
  report.set_job_id("job-a");
  report.set_epoch(1);
  report.mutable_checkpoint()->set_step(step);
  return report;
}

std::vector<int64_t> Sequences(const ReportJournal& journal) {
  std::vector<int64_t> out;
  for (const v1::Report& report : journal.unacknowledged()) out.push_back(report.sequence());
  return out;
}

TEST(ReportJournal, NumbersAndKeepsUntilAcknowledged) {
  const TempDir dir;
  LL_ASSERT_OK_AND_ASSIGN(ReportJournal journal, ReportJournal::Open(dir.path()));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(journal.Append(Step(i)));
  EXPECT_EQ(Sequences(journal), (std::vector<int64_t>{1, 2, 3}));
  journal.Acknowledge(2);
  EXPECT_EQ(Sequences(journal), (std::vector<int64_t>{3}));
}

TEST(ReportJournal, NextProcessReadsWhatTheLastWroteAndDropsAHalfLine) {
  const TempDir made;
  const std::string& dir = made.path();
  {
    LL_ASSERT_OK_AND_ASSIGN(ReportJournal journal, ReportJournal::Open(dir));
    for (int i = 10; i < 13; ++i) EXPECT_TRUE(journal.Append(Step(i)));
  }
  const std::string whole = *ReadFile(dir + "/reports.jsonl");
  const size_t third = whole.rfind('\n', whole.size() - 2) + 1;
  // Killed after any byte of the third line: the first two are there, and the number 3 is given
  // again.
  for (size_t cut = third; cut < whole.size() - 1; cut += 7) {
    LL_ASSERT_OK(WriteFileAtomic(dir + "/reports.jsonl", whole.substr(0, cut)));
    LL_ASSERT_OK_AND_ASSIGN(ReportJournal journal, ReportJournal::Open(dir));
    EXPECT_EQ(Sequences(journal), (std::vector<int64_t>{1, 2})) << cut;
    EXPECT_TRUE(journal.Append(Step(99)));
    LL_ASSERT_OK_AND_ASSIGN(ReportJournal again, ReportJournal::Open(dir));
    ASSERT_EQ(Sequences(again), (std::vector<int64_t>{1, 2, 3})) << cut;
    EXPECT_EQ(again.unacknowledged().back().checkpoint().step(), 99);
  }
}

TEST(ReportJournal, UnwritableJournalKeepsReportsInMemoryAndHealsLater) {
  const TempDir made;
  const std::string dir = made.path() + "/missing";
  LL_ASSERT_OK_AND_ASSIGN(ReportJournal journal, ReportJournal::Open(dir));
  EXPECT_FALSE(journal.Append(Step(1)));
  EXPECT_FALSE(journal.Append(Step(2)));
  journal.Acknowledge(1);
  LL_ASSERT_OK(MakeDirs(dir));
  EXPECT_TRUE(journal.Append(Step(3)));
  LL_ASSERT_OK_AND_ASSIGN(ReportJournal again, ReportJournal::Open(dir));
  EXPECT_EQ(Sequences(again), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(again.last_sequence(), 3);
}

TEST(ReportJournal, NeverGivesANumberTheCoordinatorHasSeen) {
  const TempDir dir;
  LL_ASSERT_OK_AND_ASSIGN(ReportJournal journal, ReportJournal::Open(dir.path()));
  journal.SkipTo(41);
  EXPECT_TRUE(journal.Append(Step(1)));
  EXPECT_EQ(Sequences(journal), (std::vector<int64_t>{42}));
}

}  // namespace
}  // namespace ll
