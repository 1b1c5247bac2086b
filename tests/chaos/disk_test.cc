// R10: what a coordinator does on a disk that is full, broken or read-only.
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "tests/chaos/chaos.h"
#include "tests/cluster/cluster.h"

namespace ll {
namespace {

class DiskTest : public testing::Test {
 protected:
  Cluster cluster_;
};

// R10, the coordinator's disk.
TEST_F(DiskTest, AFullDiskRefusesAndHeals) {
  CoordinatorHost host;
  host.disk_bytes = 48 << 20;
  cluster_.SetCoordinatorHost(host);
  cluster_.StartCoordinator();
  std::vector<std::string> acknowledged;
  for (int i = 0; i < 20; ++i) {
    const auto job = cluster_.Submit(cluster_.TrainSpec(1, 1));
    LL_ASSERT_OK(job);
    acknowledged.push_back(*job);
  }
  const std::string ballast = cluster_.CoordinatorDir() + "/ballast";
  AppendFile(ballast, std::string(64 << 20, 'x'), false).IgnoreError();
  int refused = 0;
  for (int i = 0; i < 20; ++i) {
    const auto job = cluster_.Submit(cluster_.TrainSpec(1, 1), absl::StrCat("full-", i));
    EXPECT_EQ(job.status().code(), absl::StatusCode::kResourceExhausted) << job.status();
    refused += !job.ok();
  }
  for (const std::string& job : acknowledged) EXPECT_THAT(cluster_.Get(job), IsOk());
  ASSERT_EQ(unlink(ballast.c_str()), 0);
  const auto after = cluster_.Submit(cluster_.TrainSpec(1, 1), "full-0");
  EXPECT_THAT(after, IsOk());
  EXPECT_EQ(cluster_.ListAll().size(), acknowledged.size() + 1);
  Note("R10", {{"refused_while_full", refused},
               {"kept", acknowledged.size()},
               {"accepted_after", after.ok()}});
}

// R10, a disk that breaks or becomes read-only, and one sync that fails: refused before it is
// acknowledged, nothing spoilt, and as before when the disk is.
TEST_F(DiskTest, ADiskThatFailsRefusesAndHeals) {
  const std::string plan = cluster_.dir() + "/fault";
  CoordinatorHost host;
  host.environment = {{"LD_PRELOAD", LL_DISK_FAULTS},
                      {"LL_TEST_FAULTS", plan},
                      {"LL_TEST_FAULTS_IN", "/coordinator/ll.db"}};
  cluster_.SetCoordinatorHost(host);
  cluster_.StartCoordinator();
  std::vector<std::string> acknowledged;
  int refused = 0, healed = 0;
  const std::vector<std::string> faults = {
      absl::StrCat("write ", EIO), absl::StrCat("change ", EROFS), absl::StrCat("fsync ", EIO)};
  for (int turn = 0; turn < Size(1, 20); ++turn) {
    for (const std::string& fault : faults) {
      SCOPED_TRACE(fault);
      const auto before = cluster_.Submit(cluster_.TrainSpec(1, 1));
      LL_ASSERT_OK(before);
      acknowledged.push_back(*before);
      const std::string id = absl::StrCat("again-", healed);
      LL_ASSERT_OK(WriteFileAtomic(plan, fault));
      const auto meanwhile = cluster_.Submit(cluster_.TrainSpec(1, 1), id);
      EXPECT_EQ(meanwhile.status().code(), absl::StatusCode::kUnavailable) << meanwhile.status();
      refused += !meanwhile.ok();
      ASSERT_EQ(unlink(plan.c_str()), 0);
      // The same request, when the disk is whole again: the coordinator heals by itself.
      const absl::Time deadline = absl::Now() + absl::Seconds(30);
      auto after = cluster_.Submit(cluster_.TrainSpec(1, 1), id);
      while (!after.ok() && absl::Now() < deadline) {
        absl::SleepFor(absl::Milliseconds(50));
        after = cluster_.Submit(cluster_.TrainSpec(1, 1), id);
      }
      LL_ASSERT_OK(after);
      acknowledged.push_back(*after);
      ++healed;
      for (const std::string& job : acknowledged) EXPECT_THAT(cluster_.Get(job), IsOk());
    }
  }
  // What was acknowledged is on the disk, and nothing else.
  cluster_.KillCoordinator();
  cluster_.SetCoordinatorHost({});
  cluster_.StartCoordinator();
  for (const std::string& job : acknowledged) EXPECT_THAT(cluster_.Get(job), IsOk());
  EXPECT_EQ(cluster_.ListAll().size(), acknowledged.size());
  Note("R10a",
       {{"refused_while_broken", refused}, {"healed", healed}, {"kept", acknowledged.size()}});
}

}  // namespace
}  // namespace ll
