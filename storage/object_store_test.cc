// The promises of object_store.h, held to a folder and, where LL_STORE_UNDER_TEST names another
// store (tests/storage runs an S3 stand-in), to that one.
#include "storage/object_store.h"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "base/file.h"
#include "base/ids.h"
#include "base/sha256.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

using testing::ElementsAre;
using testing::Field;

class ObjectStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    LL_ASSERT_OK(MakeDirs(folder_.path() + "/local"));
    const char* named = std::getenv("LL_STORE_UNDER_TEST");
    const std::string uri = named != nullptr
                                ? std::string(named) + "/" + RandomHex(SystemRandom(), 8)
                                : folder_.path() + "/store";
    LL_ASSERT_OK_AND_ASSIGN(store_, OpenObjectStore("uri", uri));
  }

  // A local file of that many bytes that differ.
  std::string MakeFile(const std::string& name, int64_t size) {
    SeededRandom random(static_cast<uint64_t>(size));
    std::string bytes;
    for (int64_t i = 0; i < size; i += 8) {
      const uint64_t word = random.Next();
      bytes.append(reinterpret_cast<const char*>(&word), 8);
    }
    bytes.resize(static_cast<size_t>(size));
    const std::string path = folder_.path() + "/local/" + name;
    EXPECT_TRUE(WriteFileAtomic(path, bytes).ok());
    return path;
  }

  const TempDir folder_;
  std::unique_ptr<ObjectStore> store_;
};

TEST_F(ObjectStoreTest, FilesComeBackAsTheyWere) {
  for (const int64_t size : {int64_t{0}, int64_t{1}, int64_t{100'000}, int64_t{17'000'001}}) {
    SCOPED_TRACE(size);
    const std::string path = MakeFile("a", size), key = "x/file-" + std::to_string(size);
    LL_ASSERT_OK_AND_ASSIGN(const std::string sha256, Sha256HexOfFile(path));
    LL_ASSERT_OK_AND_ASSIGN(bool holds, store_->Holds(key, size, sha256));
    EXPECT_FALSE(holds);
    LL_ASSERT_OK(store_->PutFile(key, path, sha256));
    const std::string copy = path + ".copy";
    LL_ASSERT_OK(store_->GetFile(key, copy));
    LL_ASSERT_OK_AND_ASSIGN(const std::string found, Sha256HexOfFile(copy));
    EXPECT_EQ(found, sha256);
    EXPECT_FALSE(store_->GetFile(key, copy).ok());  // it exists
    LL_ASSERT_OK(RemoveTree(copy));
    LL_ASSERT_OK_AND_ASSIGN(holds, store_->Holds(key, size, sha256));
    EXPECT_TRUE(holds);
    LL_ASSERT_OK_AND_ASSIGN(holds, store_->Holds(key, size, std::string(64, '0')));
    EXPECT_FALSE(holds);
  }
}

TEST_F(ObjectStoreTest, OtherBytesThanPromisedAreNoObject) {
  for (const int64_t size : {int64_t{1000}, int64_t{17'000'001}}) {
    const std::string path = MakeFile("a", size);
    EXPECT_EQ(store_->PutFile("a", path, std::string(64, '0')).code(), absl::StatusCode::kDataLoss);
    LL_ASSERT_OK_AND_ASSIGN(const auto objects, store_->List(""));
    EXPECT_TRUE(objects.empty());
  }
}

TEST_F(ObjectStoreTest, TextsAndConditions) {
  EXPECT_EQ(store_->GetText("a/b").status().code(), absl::StatusCode::kNotFound);
  LL_ASSERT_OK(store_->PutText("a/b", "one"));
  EXPECT_EQ(store_->PutText("a/b", "two", PutMode::kOnlyIfAbsent).code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(store_->GetText("a/b").value(), "one");
  LL_ASSERT_OK(store_->PutText("a/b", "three"));
  EXPECT_EQ(store_->GetText("a/b").value(), "three");
  EXPECT_EQ(store_->GetText("a/b", 4).status().code(), absl::StatusCode::kOutOfRange);
  LL_ASSERT_OK(store_->PutText("a/c", "", PutMode::kOnlyIfAbsent));
  EXPECT_EQ(store_->GetText("a/c").value(), "");
}

TEST_F(ObjectStoreTest, ListingAndRemoval) {
  for (const char* key : {"e0002/step-000010/COMPLETE", "e0001/step-000010/a b+c%20.bin",
                          "e0001/step-000010/COMPLETE"}) {
    LL_ASSERT_OK(store_->PutText(key, key));
  }
  LL_ASSERT_OK_AND_ASSIGN(auto objects, store_->List("e0001/"));
  EXPECT_THAT(objects, ElementsAre(Field(&ObjectInfo::key, "e0001/step-000010/COMPLETE"),
                                   Field(&ObjectInfo::key, "e0001/step-000010/a b+c%20.bin")));
  EXPECT_EQ(objects[1].size_bytes, 30);
  EXPECT_EQ(store_->GetText(objects[1].key).value(), objects[1].key);
  LL_ASSERT_OK(store_->Delete("e0001/step-000010/COMPLETE"));
  LL_ASSERT_OK(store_->Delete("e0001/step-000010/COMPLETE"));  // is gone already
  LL_ASSERT_OK_AND_ASSIGN(objects, store_->List(""));
  EXPECT_EQ(objects.size(), 2u);
  LL_ASSERT_OK_AND_ASSIGN(objects, store_->List("none/"));
  EXPECT_TRUE(objects.empty());
}

TEST_F(ObjectStoreTest, KeysStayBelowTheRoot) {
  for (const char* key : {"", "/a", "../a", "a/../b", "a//b", ".hidden", "a/.partial-1", "a/"}) {
    EXPECT_THAT(store_->PutText(key, "x"), StatusIs(absl::StatusCode::kInvalidArgument, "key"))
        << key;
    EXPECT_FALSE(store_->GetText(key).ok()) << key;
    EXPECT_FALSE(store_->Delete(key).ok()) << key;
  }
}

TEST_F(ObjectStoreTest, OneOfManyWritersWins) {
  constexpr int kWriters = 8;
  absl::Status results[kWriters];
  std::vector<std::thread> writers;
  for (int i = 0; i < kWriters; ++i) {
    writers.emplace_back([&, i] {
      results[i] = store_->PutText("winner", std::to_string(i), PutMode::kOnlyIfAbsent);
    });
  }
  for (std::thread& writer : writers) writer.join();
  int winner = -1;
  for (int i = 0; i < kWriters; ++i) {
    if (!results[i].ok()) {
      EXPECT_EQ(results[i].code(), absl::StatusCode::kAlreadyExists) << results[i];
      continue;
    }
    EXPECT_EQ(winner, -1) << "two writers were told that they won";
    winner = i;
  }
  EXPECT_EQ(store_->GetText("winner").value(), std::to_string(winner));
}

TEST_F(ObjectStoreTest, WhatAKilledWriterLeftIsSweptAndNeverListed) {
  LL_ASSERT_OK(store_->PutText("a/whole", "1"));
  if (std::getenv("LL_STORE_UNDER_TEST") == nullptr) {
    LL_ASSERT_OK(WriteFileAtomic(folder_.path() + "/store/a/.partial-1", "half"));
  }
  LL_ASSERT_OK_AND_ASSIGN(auto objects, store_->List(""));
  EXPECT_EQ(objects.size(), 1u);
  LL_ASSERT_OK(
      store_->SweepPartial([](const std::string& key) { return key.substr(0, 2) == "a/"; }));
  EXPECT_FALSE(FileExists(folder_.path() + "/store/a/.partial-1"));
  EXPECT_EQ(store_->GetText("a/whole").value(), "1");
}

TEST_F(ObjectStoreTest, ACancelledStoreDoesNothingMore) {
  LL_ASSERT_OK(store_->PutText("a", "1"));
  store_->Cancel();
  EXPECT_EQ(store_->PutText("a", "2").code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(store_->GetText("a").status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(store_->List("").status().code(), absl::StatusCode::kCancelled);
}

// Another process removes what it no longer wants: the rest is still listed, whole.
TEST_F(ObjectStoreTest, FoldersThatVanishMeanwhileHideNothing) {
  if (std::getenv("LL_STORE_UNDER_TEST") != nullptr) return;
  constexpr int kKeys = 20;
  for (int i = 0; i < kKeys; ++i)
    LL_ASSERT_OK(store_->PutText("step-" + std::to_string(i) + "/COMPLETE", ""));
  std::atomic<bool> done = false;
  std::thread other([&] {
    while (!done) {
      for (int i = 0; i < 200; ++i)
        mkdir((folder_.path() + "/store/old-" + std::to_string(i)).c_str(), 0755);
      for (int i = 0; i < 200; ++i)
        rmdir((folder_.path() + "/store/old-" + std::to_string(i)).c_str());
    }
  });
  int incomplete = 0;
  for (int i = 0; i < 300; ++i) {
    const auto objects = store_->List("");
    incomplete += !objects.ok() || objects->size() != kKeys;
  }
  done = true;
  other.join();
  EXPECT_EQ(incomplete, 0);
}

}  // namespace
}  // namespace ll
