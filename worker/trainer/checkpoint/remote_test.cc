#include "worker/trainer/checkpoint/remote.h"

#include <algorithm>
#include <atomic>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/ids.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "worker/trainer/checkpoint/copier.h"
#include "worker/trainer/checkpoint/format.h"

namespace ll {
namespace {

using testing::ElementsAre;

// A folder that dies at its `dies_at`-th change: that change is not made, nor any after it, as of a
// process that was killed there.
class MortalStore : public ObjectStore {
 public:
  MortalStore(const std::string& root, int dies_at)
      : store_(OpenFolderStore(root)), dies_at_(dies_at) {}

  absl::Status PutFile(const std::string& key, const std::string& path,
                       const std::string& sha256) override {
    LL_RETURN_IF_ERROR(Live());
    return store_->PutFile(key, path, sha256);
  }
  absl::Status PutText(const std::string& key, absl::string_view bytes, PutMode mode) override {
    LL_RETURN_IF_ERROR(Live());
    return store_->PutText(key, bytes, mode);
  }
  absl::StatusOr<std::string> GetText(const std::string& key, int64_t max_bytes) override {
    return store_->GetText(key, max_bytes);
  }
  absl::Status GetFile(const std::string& key, const std::string& path) override {
    return store_->GetFile(key, path);
  }
  absl::StatusOr<bool> Holds(const std::string& key, int64_t size_bytes,
                             const std::string& sha256) override {
    return store_->Holds(key, size_bytes, sha256);
  }
  absl::StatusOr<std::vector<ObjectInfo>> List(const std::string& prefix) override {
    return store_->List(prefix);
  }
  absl::Status Delete(const std::string& key) override {
    LL_RETURN_IF_ERROR(Live());
    return store_->Delete(key);
  }
  absl::Status SweepPartial(const std::function<bool(const std::string&)>& doomed) override {
    return store_->SweepPartial(doomed);
  }
  void Cancel() override { store_->Cancel(); }
  const std::string& uri() const override { return store_->uri(); }

  int changes() const { return changes_; }

 private:
  absl::Status Live() {
    return ++changes_ < dies_at_ ? absl::OkStatus() : absl::InternalError("killed");
  }
  const std::unique_ptr<ObjectStore> store_;
  const int dies_at_;
  int changes_ = 0;
};

class RemoteTest : public testing::Test {
 protected:
  void SetUp() override { store_ = OpenFolderStore(folder_.path() + "/store"); }

  // A sealed local checkpoint of two files; `content` decides their bytes.
  std::string Sealed(int64_t step, const std::string& content = "") {
    const std::string root = folder_.path() + "/local";
    const std::string temporary = root + "/.writing-" + CheckpointName(step);
    EXPECT_TRUE(MakeDirs(temporary).ok());
    EXPECT_TRUE(WriteFileAtomic(temporary + "/weights", absl::StrCat("w", step, content)).ok());
    EXPECT_TRUE(WriteFileAtomic(temporary + "/state", absl::StrCat("s", step)).ok());
    return SealCheckpoint(temporary, root, step)->path;
  }

  std::vector<std::string> Whole(ObjectStore& store) {
    std::vector<std::string> prefixes;
    const std::vector<RemoteCheckpoint> all = ListRemoteCheckpoints(store).value();
    for (const RemoteCheckpoint& checkpoint : all) {
      if (checkpoint.complete) prefixes.push_back(checkpoint.prefix);
    }
    return prefixes;
  }

  absl::StatusOr<FetchedCheckpoint> Fetch(ObjectStore& store, int64_t newer_than = -1) {
    EXPECT_TRUE(RemoveTree(folder_.path() + "/fetched").ok());
    return FetchNewestCheckpoint(store, folder_.path() + "/fetched", newer_than);
  }

  const TempDir folder_;
  std::unique_ptr<ObjectStore> store_;
};

TEST_F(RemoteTest, ACopyComesBackWithItsHashes) {
  LL_ASSERT_OK(CopyCheckpoint(*store_, Sealed(10), 1, 10));
  LL_ASSERT_OK(CopyCheckpoint(*store_, Sealed(20), 1, 20));
  EXPECT_THAT(Whole(*store_), ElementsAre("e0001/step-000010", "e0001/step-000020"));
  LL_ASSERT_OK_AND_ASSIGN(FetchedCheckpoint fetched, Fetch(*store_));
  EXPECT_EQ(fetched.step, 20);
  LL_EXPECT_OK(VerifyCheckpoint(fetched.path));
  EXPECT_EQ(ReadFile(fetched.path + "/weights").value(), "w20");
  // The local newest wins unless the store's is newer.
  LL_ASSERT_OK_AND_ASSIGN(fetched, Fetch(*store_, /*newer_than=*/20));
  EXPECT_EQ(fetched.path, "");
}

TEST_F(RemoteTest, AgainIsCheapAndOtherContentReplaces) {
  LL_ASSERT_OK(CopyCheckpoint(*store_, Sealed(10), 0, 10));
  LL_ASSERT_OK_AND_ASSIGN(const CopiedCheckpoint again, CopyCheckpoint(*store_, Sealed(10), 0, 10));
  EXPECT_LT(again.bytes, 500);  // manifest and COMPLETE alone
  LL_ASSERT_OK(CopyCheckpoint(*store_, Sealed(10, "other"), 0, 10));
  LL_ASSERT_OK_AND_ASSIGN(const FetchedCheckpoint fetched, Fetch(*store_));
  EXPECT_EQ(ReadFile(fetched.path + "/weights").value(), "w10other");
}

TEST_F(RemoteTest, ALaterAttemptsIsNewerAndSupersedes) {
  LL_ASSERT_OK(CopyCheckpoint(*store_, Sealed(10), 1, 10));
  LL_ASSERT_OK(CopyCheckpoint(*store_, Sealed(40), 1, 40));  // by a forgotten trainer, say
  LL_ASSERT_OK(CopyCheckpoint(*store_, Sealed(10, "b"), 2, 10));
  LL_ASSERT_OK(CopyCheckpoint(*store_, Sealed(20, "b"), 2, 20));
  LL_ASSERT_OK_AND_ASSIGN(const FetchedCheckpoint fetched, Fetch(*store_));
  EXPECT_EQ(fetched.step, 20);
  // The first attempt sees nothing of the second.
  LL_ASSERT_OK_AND_ASSIGN(auto removed, PruneRemoteCheckpoints(*store_, 1, {1, 0}));
  EXPECT_THAT(removed, ElementsAre("e0001/step-000010"));
  LL_ASSERT_OK_AND_ASSIGN(removed, PruneRemoteCheckpoints(*store_, 2, {0, 0}));
  EXPECT_TRUE(removed.empty());
  EXPECT_THAT(Whole(*store_),
              ElementsAre("e0001/step-000040", "e0002/step-000010", "e0002/step-000020"));
}

// What is damaged in whichever way is never taken, and the one before it is.
TEST_F(RemoteTest, EveryDamageFallsBackToThePreviousOne) {
  LL_ASSERT_OK(CopyCheckpoint(*store_, Sealed(10), 1, 10));
  const std::string folder = Sealed(20);
  for (const char* name : {"weights", "state", kManifestFile, kCompleteFile}) {
    for (const char* damage : {"flip", "truncate", "empty", "swap", "remove"}) {
      SCOPED_TRACE(absl::StrCat(name, " ", damage));
      LL_ASSERT_OK(CopyCheckpoint(*store_, folder, 1, 20));
      const std::string key = absl::StrCat("e0001/step-000020/", name);
      std::string bytes = store_->GetText(key).value();
      const std::string good = bytes;
      if (damage == absl::string_view("flip")) bytes[bytes.size() / 2] ^= 1;
      if (damage == absl::string_view("truncate")) bytes.resize(bytes.size() / 2);
      if (damage == absl::string_view("empty")) bytes.clear();
      if (damage == absl::string_view("swap"))
        bytes = store_->GetText(absl::StrCat("e0001/step-000010/", name)).value();
      LL_ASSERT_OK(store_->PutText(key, bytes));
      if (damage == absl::string_view("remove")) {
        LL_ASSERT_OK(store_->Delete(key));
      }
      LL_ASSERT_OK_AND_ASSIGN(const FetchedCheckpoint fetched, Fetch(*store_));
      EXPECT_EQ(fetched.step, 10);
      if (name != absl::string_view(kCompleteFile) || damage != absl::string_view("remove")) {
        ASSERT_EQ(fetched.skipped.size(), 1u);
        EXPECT_EQ(fetched.skipped[0].substr(0, 18), "e0001/step-000020:");
      }
      EXPECT_THAT(ListDir(folder_.path() + "/fetched").value(), ElementsAre("step-000010"));
      LL_ASSERT_OK(store_->PutText(key, good));
    }
  }
}

// A process that is killed between any two changes it makes leaves the newest whole checkpoint
// where it was, and the next process tidies up.
TEST_F(RemoteTest, KilledBetweenAnyTwoChanges) {
  const Retention retention{1, 0};
  std::vector<std::string> folders;
  for (const int64_t step : {10, 20, 30}) folders.push_back(Sealed(step));
  int changes = 1 << 20;
  for (int dies_at = 1; dies_at <= changes; ++dies_at) {
    SCOPED_TRACE(dies_at);
    LL_ASSERT_OK(RemoveTree(folder_.path() + "/store"));
    MortalStore mortal(folder_.path() + "/store", dies_at);
    int64_t acknowledged = 0;
    for (const int64_t step : {10, 20, 30}) {
      if (!CopyCheckpoint(mortal, folders[step / 10 - 1], 1, step).ok()) break;
      acknowledged = step;
      if (!PruneRemoteCheckpoints(mortal, 1, retention).ok()) break;
    }
    const std::unique_ptr<ObjectStore> store = OpenFolderStore(folder_.path() + "/store");
    LL_ASSERT_OK_AND_ASSIGN(const FetchedCheckpoint fetched, Fetch(*store));
    EXPECT_GE(fetched.step, acknowledged);
    EXPECT_TRUE(fetched.skipped.empty());  // whole or not counted, never damaged
    if (acknowledged > 0) {
      LL_EXPECT_OK(VerifyCheckpoint(fetched.path));
    }
    LL_ASSERT_OK(CopyCheckpoint(*store, folders[2], 2, 30));
    LL_ASSERT_OK(PruneRemoteCheckpoints(*store, 2, retention));
    LL_ASSERT_OK_AND_ASSIGN(const auto objects, store->List(""));
    EXPECT_EQ(objects.size(), 4u) << "leavings";
    if (acknowledged == 30 && mortal.changes() < dies_at) changes = dies_at;  // it lived
  }
  EXPECT_GT(changes, 15);
}

TEST_F(RemoteTest, RetentionKeepsTheNewestAndEveryNth) {
  for (const int64_t step : {5, 10, 15, 20, 25, 30, 35})
    LL_ASSERT_OK(CopyCheckpoint(*store_, Sealed(step), 0, step));
  LL_ASSERT_OK(PruneRemoteCheckpoints(*store_, 0, {2, 10}));
  EXPECT_THAT(Whole(*store_),
              ElementsAre("step-000010", "step-000020", "step-000030", "step-000035"));
}

TEST(RetentionTest, TheNewestNeverGoes) {
  EXPECT_THAT(StepsToRemove({1, 0}, {3, 1, 2}), ElementsAre(2, 1));
  EXPECT_THAT(StepsToRemove({0, 0}, {3, 1, 2}), ElementsAre());
  EXPECT_THAT(StepsToRemove({2, 4}, {2, 4, 6, 8, 10, 12}), ElementsAre(6, 2));
  EXPECT_THAT(StepsToRemove({9, 0}, {1}), ElementsAre());
}

// A store whose writes wait until the test lets them.
class SlowStore : public MortalStore {
 public:
  explicit SlowStore(const std::string& root) : MortalStore(root, 1 << 30) {}
  absl::Status PutFile(const std::string& key, const std::string& path,
                       const std::string& sha256) override {
    if (!begun_.HasBeenNotified()) begun_.Notify();
    while (!released_.HasBeenNotified() && !cancelled_) absl::SleepFor(absl::Milliseconds(1));
    if (cancelled_) return absl::CancelledError("cancelled");
    return MortalStore::PutFile(key, path, sha256);
  }
  void Cancel() override { cancelled_ = true; }

  absl::Notification begun_, released_;
  std::atomic<bool> cancelled_ = false;
};

class CopierTest : public RemoteTest {
 protected:
  void Start() {
    auto slow = std::make_unique<SlowStore>(folder_.path() + "/store");
    slow_ = slow.get();
    copier_ = std::make_unique<CheckpointCopier>(std::move(slow), 1, Retention{1, 0}, RealClock(),
                                                 [this](const CopyReport& report) {
                                                   absl::MutexLock lock(&mu_);
                                                   reports_.push_back(report);
                                                 });
  }
  std::vector<CopyReport> reports() {
    absl::MutexLock lock(&mu_);
    return reports_;
  }
  absl::Mutex mu_;
  std::vector<CopyReport> reports_;
  SlowStore* slow_ = nullptr;
  std::unique_ptr<CheckpointCopier> copier_;
};

TEST_F(CopierTest, ASlowStoreGetsTheNewest) {
  Start();
  copier_->Offer(Sealed(10), 10);
  slow_->begun_.WaitForNotification();
  for (const int64_t step : {20, 30, 40}) copier_->Offer(Sealed(step), step);  // returns at once
  EXPECT_THAT(copier_->InUse(), ElementsAre(10, 40));
  slow_->released_.Notify();
  LL_ASSERT_OK(copier_->Finish(absl::Minutes(1)));
  EXPECT_TRUE(copier_->InUse().empty());
  const auto told = reports();
  ASSERT_EQ(told.size(), 4u);
  EXPECT_EQ(told[0].step, 20);
  EXPECT_EQ(told[0].status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(told[1].step, 30);
  EXPECT_EQ(told[2].step, 10);
  LL_EXPECT_OK(told[2].status);
  EXPECT_EQ(told[3].step, 40);
  EXPECT_THAT(told[3].removed, ElementsAre("e0001/step-000010"));
  EXPECT_THAT(Whole(*store_), ElementsAre("e0001/step-000040"));
}

TEST_F(CopierTest, TheEndDoesNotWaitForEver) {
  Start();
  copier_->Offer(Sealed(10), 10);
  EXPECT_EQ(copier_->Finish(absl::Milliseconds(20)).code(), absl::StatusCode::kDeadlineExceeded);
  ASSERT_EQ(reports().size(), 1u);
  EXPECT_EQ(reports()[0].status.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(Whole(*store_).empty());
}

}  // namespace
}  // namespace ll
