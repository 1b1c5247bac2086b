// The disk itself: what it promises to SQLite, and that it can break what was not synced.
#include "tests/sim/sim_disk.h"

#include "absl/strings/str_cat.h"
#include "base/status_matchers.h"
#include "gtest/gtest.h"

namespace ll::sim {
namespace {

std::vector<Record> ModelNamed(const std::string& name) {
  // Larger than a sector and a page, so that it can be torn.
  return {PutModel{{name, "/models/x", true, std::string(9000, 'x')}}};
}

std::unique_ptr<Store> OpenOn(SimDisk& disk) {
  auto store = OpenSqliteStore(disk.ForSqlite(), "ll.db");
  EXPECT_TRUE(store.ok()) << store.status();
  return store.ok() ? *std::move(store) : nullptr;
}

size_t ModelsOn(SimDisk& disk) {
  const auto store = OpenOn(disk);
  if (store == nullptr) return 0;
  const auto state = store->LoadAll();
  EXPECT_TRUE(state.ok()) << state.status();
  return state.ok() ? state->models.size() : 0;
}

TEST(SimDisk, KeepsWhatWasCommittedThroughPowerCuts) {
  int64_t lost = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    SeededRandom random(seed);
    SimDisk disk(random);
    size_t committed = 0;
    for (int life = 0; life < 3; ++life) {
      auto store = OpenOn(disk);
      ASSERT_NE(store, nullptr);
      const uint64_t dies_at = random.Below(60);
      uint64_t operations = 0;
      disk.faults = [&](DiskOperation) {
        return ++operations == dies_at ? DiskFault::kDeath : DiskFault::kNone;
      };
      bool unsure = false;
      for (int i = 0; i < 8 && !unsure; ++i) {
        unsure = !store->Commit(ModelNamed(absl::StrCat("m", committed))).ok();
        committed += !unsure;
      }
      disk.Die();
      store.reset();
      disk.faults = nullptr;
      disk.Restart(/*power_cut=*/true);
      const size_t found = ModelsOn(disk);
      EXPECT_GE(found, committed);
      EXPECT_LE(found, committed + (unsure ? 1 : 0));
      committed = found;
    }
    lost += disk.lost_changes();
  }
  EXPECT_GT(lost, 100);
}

// The same without syncs must not pass: the disk would prove nothing.
TEST(SimDisk, LosesWhatWasNotSynced) {
  int broken = 0;
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    SeededRandom random(seed);
    SimDisk disk(random);
    auto store = OpenOn(disk);
    ASSERT_NE(store, nullptr);
    disk.ignores_syncs = true;
    for (int i = 0; i < 5; ++i) LL_ASSERT_OK(store->Commit(ModelNamed(absl::StrCat("m", i))));
    disk.Die();
    store.reset();
    disk.Restart(/*power_cut=*/true);
    const auto again = OpenSqliteStore(disk.ForSqlite(), "ll.db");
    broken += !again.ok() || (*again)->LoadAll()->models.size() < 5;
  }
  EXPECT_GT(broken, 10);
}

TEST(SimDisk, AKilledProcessLosesNothingThatItHadWritten) {
  SeededRandom random(1);
  SimDisk disk(random);
  auto store = OpenOn(disk);
  disk.ignores_syncs = true;
  LL_ASSERT_OK(store->Commit(ModelNamed("m")));
  disk.Die();
  store.reset();
  disk.Restart(/*power_cut=*/false);
  EXPECT_EQ(ModelsOn(disk), 1u);
}

// The kernel gives up what a sync could not write, and shows it all the same. The store that is
// opened again must not build on it.
TEST(SimDisk, CommitsAfterAFailedSyncSurviveAPowerCut) {
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    SeededRandom random(seed);
    SimDisk disk(random);
    auto store = OpenOn(disk);
    LL_ASSERT_OK(store->Commit(ModelNamed("before")));
    disk.faults = [&](DiskOperation operation) {
      return operation == DiskOperation::kSync ? DiskFault::kError : DiskFault::kNone;
    };
    EXPECT_EQ(store->Commit(ModelNamed("unknown")).code(), absl::StatusCode::kInternal);
    store.reset();  // cannot tidy up either
    disk.faults = nullptr;
    store = OpenOn(disk);
    ASSERT_NE(store, nullptr);
    LL_ASSERT_OK(store->Commit(ModelNamed("after")));
    disk.Die();
    store.reset();
    disk.Restart(/*power_cut=*/true);
    EXPECT_GE(ModelsOn(disk), 2u);
  }
}

TEST(SimDisk, AFullDiskLeavesTheStoreUsable) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    SeededRandom random(seed);
    SimDisk disk(random);
    auto store = OpenOn(disk);
    uint64_t left = random.Below(4);
    disk.faults = [&](DiskOperation operation) {
      return operation == DiskOperation::kWrite && left-- == 0 ? DiskFault::kFull
                                                               : DiskFault::kNone;
    };
    EXPECT_EQ(store->Commit(ModelNamed("m1")).code(), absl::StatusCode::kResourceExhausted);
    LL_EXPECT_OK(store->Commit(ModelNamed("m2")));
    store.reset();
    EXPECT_EQ(ModelsOn(disk), 1u);
  }
}

}  // namespace
}  // namespace ll::sim
