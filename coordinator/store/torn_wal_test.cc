// A log that a power cut has shortened: recovery gives exactly the transactions that are whole, at
// whatever byte it was cut (target R11). Every run cuts around transactions' ends and at every
// 2,039th byte; LL_EVERY_BYTE=1 at each of the last 64 KiB (TEST_TMPDIR=/dev/shm spares the disk).
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "coordinator/store/sqlite_store.h"

namespace ll {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kLast = 64 << 10;

class TornWalTest : public testing::Test {
 protected:
  const TempDir dir_;
};

std::vector<Record> Submission(int number) {
  Job job;
  job.id = JobId(absl::StrCat("job-", number));
  job.sequence = number;
  job.transitions = 1;
  const auto payload =
      std::make_shared<JobPayload>(JobPayload{std::string(100, 'x'), std::string(300, 'y'), ""});
  return {
      PutSubmission{job.id, job.sequence, payload},
      PutTransition{
          job.id, job.sequence, 0, {absl::FromUnixSeconds(1), JobState::kQueued, "submitted", 0}},
      PutJob{job}};
}

TEST_F(TornWalTest, EveryCutKeepsTheWholeTransactionsAndNoOther) {
  const std::string from = dir_.path() + "/from", cut = dir_.path() + "/cut";
  std::vector<int64_t> ends;  // of the log behind each commit
  {
    LL_ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore(from));
    for (int i = 1; i <= 20; ++i) {
      LL_ASSERT_OK(store->Commit(Submission(i)));
      ends.push_back(static_cast<int64_t>(fs::file_size(from + "/ll.db-wal")));
    }
    // While it is open: closing it would empty the log.
    fs::create_directories(cut);
    fs::copy(from + "/ll.db", cut + "/ll.db");
    fs::copy(from + "/ll.db-wal", dir_.path() + "/wal");
  }
  ASSERT_TRUE(std::is_sorted(ends.begin(), ends.end())) << "the log was begun anew";
  LL_ASSERT_OK_AND_ASSIGN(const std::string wal, ReadFile(dir_.path() + "/wal"));
  LL_ASSERT_OK_AND_ASSIGN(const std::string database, ReadFile(cut + "/ll.db"));
  const auto size = static_cast<int64_t>(wal.size());
  ASSERT_EQ(ends.back(), size);

  std::vector<int64_t> places;
  const int64_t stride = getenv("LL_EVERY_BYTE") != nullptr ? 1 : 2039;
  for (int64_t at = std::max<int64_t>(0, size - kLast); at <= size; at += stride)
    places.push_back(at);
  for (size_t i = 1; i < ends.size(); i += 3) {
    const int64_t end = ends[i];
    for (const int64_t near : {-1, 0, 1}) {
      if (end + near >= 0 && end + near <= size) places.push_back(end + near);
    }
  }
  for (const int64_t at : places) {
    fs::remove(cut + "/ll.db-shm");
    std::ofstream(cut + "/ll.db") << database;
    std::ofstream(cut + "/ll.db-wal") << wal.substr(0, static_cast<size_t>(at));
    LL_ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore(cut));
    LL_ASSERT_OK_AND_ASSIGN(const StoredState state, store->LoadAll());
    std::set<JobId> there, expected;
    for (const Job& job : state.jobs) there.insert(job.id);
    for (size_t i = 0; i < ends.size() && ends[i] <= at; ++i)
      expected.insert(JobId(absl::StrCat("job-", i + 1)));
    ASSERT_EQ(there, expected) << "cut at byte " << at << " of " << size;
    // And what comes next is kept.
    if (at % 7 == 0) {
      LL_ASSERT_OK(store->Commit(Submission(1000)));
    }
  }
  std::cout << places.size() << " cuts of a log of " << size << " bytes" << std::endl;
}

}  // namespace
}  // namespace ll
