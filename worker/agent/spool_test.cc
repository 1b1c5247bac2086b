#include "worker/agent/spool.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

class SpoolTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) const { return absl::StrCat(dir_.path(), "/", name); }
  const TempDir dir_;
};

// Everything the cursor gives now, joined; checks that the pieces follow each other.
std::string Drain(TelemetryCursor& cursor, int64_t from) {
  std::string all;
  v1::Telemetry message;
  while (cursor.Next(message)) {
    EXPECT_EQ(message.offset(), from + static_cast<int64_t>(all.size()));
    all += message.data();
  }
  return all;
}

TEST_F(SpoolTest, GoesOnAfterTheLastWholeLine) {
  const std::string path = Path("torn");
  LL_ASSERT_OK(WriteFileAtomic(path, "one\ntwo\nhal"));
  LineFile file;
  LL_ASSERT_OK(file.Open(path));
  LL_ASSERT_OK(file.Append("three\n"));
  EXPECT_EQ(*ReadFile(path), "one\ntwo\nthree\n");
}

// The attempt's folder is the trainer's, which must not have the agent read, cut or write another
// file, nor wait for somebody at the other end of a pipe.
TEST_F(SpoolTest, LinksAndPipesAreNotFollowed) {
  const std::string secret = Path("secret"), link = Path("link"), pipe = Path("pipe");
  LL_ASSERT_OK(WriteFileAtomic(secret, "line\nsecret"));
  ASSERT_EQ(symlink(secret.c_str(), link.c_str()), 0);
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  TelemetryCursor log(link, v1::Telemetry::LOG);
  EXPECT_EQ(Drain(log, 0), "");
  LineFile events;
  for (const std::string& path : {link, pipe}) EXPECT_FALSE(events.Open(path).ok()) << path;
  EXPECT_EQ(*ReadFile(secret), "line\nsecret");
  EXPECT_FALSE(RealFiles().ReadAt(pipe, 0, 10).ok());
}

TEST_F(SpoolTest, FullDiskLeavesNoHalfLineAndRecovers) {
  const std::string path = Path("full");
  LineFile file;
  LL_ASSERT_OK(file.Open(path));
  LL_ASSERT_OK(file.Append("first\n"));
  // A limit on the file's size cuts a write in two, as a full disk does.
  signal(SIGXFSZ, SIG_IGN);
  rlimit before{}, small{10, RLIM_INFINITY};
  getrlimit(RLIMIT_FSIZE, &before);
  small.rlim_max = before.rlim_max;
  setrlimit(RLIMIT_FSIZE, &small);
  EXPECT_FALSE(file.Append("second line\n").ok());
  EXPECT_FALSE(file.Append("second line\n").ok());
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(*ReadFile(path), "first\n");
  LL_ASSERT_OK(file.Append("third\n"));
  EXPECT_EQ(*ReadFile(path), "first\nthird\n");
}

TEST_F(SpoolTest, EventsAreSentInWholeLinesOnly) {
  const std::string path = Path("events");
  TelemetryCursor cursor(path, v1::Telemetry::EVENTS);
  EXPECT_EQ(Drain(cursor, 0), "");  // no file yet
  EXPECT_TRUE(cursor.AllSent());
  LL_ASSERT_OK(AppendFile(path, "a\nb\nha", false));
  EXPECT_EQ(Drain(cursor, 0), "a\nb\n");
  EXPECT_TRUE(cursor.AllSent());
  EXPECT_FALSE(cursor.AllAcknowledged());
  cursor.Acknowledge(4);
  EXPECT_TRUE(cursor.AllAcknowledged());
  LL_ASSERT_OK(AppendFile(path, "lf\n", false));
  EXPECT_FALSE(cursor.AllSent());
  EXPECT_EQ(Drain(cursor, 4), "half\n");
}

TEST_F(SpoolTest, WhatIsNotAcknowledgedIsSentAgain) {
  const std::string path = Path("again");
  LL_ASSERT_OK(WriteFileAtomic(path, "0123456789"));
  TelemetryCursor cursor(path, v1::Telemetry::LOG);
  const absl::Duration start = absl::Hours(1), patience = TelemetryCursor::kPatience;
  cursor.SendAgain(start);
  EXPECT_EQ(Drain(cursor, 0), "0123456789");
  cursor.Acknowledge(4);
  cursor.SendAgain(start + patience);  // it grew: the patience begins anew
  cursor.SendAgain(start + patience * 1.9);
  EXPECT_EQ(Drain(cursor, 10), "");
  cursor.SendAgain(start + patience * 2);
  EXPECT_EQ(Drain(cursor, 4), "456789");
  cursor.SendAgain(start + patience * 2.9);
  EXPECT_EQ(Drain(cursor, 10), "");
  cursor.SendAgain(start + patience * 3);
  EXPECT_EQ(Drain(cursor, 4), "456789");
  cursor.Acknowledge(10);
  cursor.SendAgain(start + patience * 9);
  EXPECT_EQ(Drain(cursor, 10), "");
}

TEST_F(SpoolTest, GoesBackToTheAcknowledgedOffset) {
  const std::string path = Path("rewind");
  LL_ASSERT_OK(WriteFileAtomic(path, "0123456789"));
  TelemetryCursor cursor(path, v1::Telemetry::LOG);
  EXPECT_EQ(Drain(cursor, 0), "0123456789");
  cursor.Acknowledge(4);
  cursor.Rewind(cursor.acknowledged());
  EXPECT_EQ(Drain(cursor, 4), "456789");
  cursor.Rewind(7);  // the coordinator knows better
  EXPECT_EQ(Drain(cursor, 7), "789");
  cursor.Rewind(99);  // no further than the file
  EXPECT_TRUE(cursor.AllAcknowledged());
}

TEST_F(SpoolTest, StopsAtTheWindowUntilAcknowledged) {
  const std::string path = Path("window");
  const int64_t size = TelemetryCursor::kWindowBytes + 3 * TelemetryCursor::kPieceBytes;
  LL_ASSERT_OK(WriteFileAtomic(path, std::string(size, 'x')));
  TelemetryCursor cursor(path, v1::Telemetry::LOG);
  const int64_t sent = static_cast<int64_t>(Drain(cursor, 0).size());
  EXPECT_GE(sent, TelemetryCursor::kWindowBytes);
  EXPECT_LT(sent, size);
  EXPECT_FALSE(cursor.AllSent());
  cursor.Acknowledge(sent);
  EXPECT_EQ(static_cast<int64_t>(Drain(cursor, sent).size()), size - sent);
  EXPECT_TRUE(cursor.AllSent());
}

TEST_F(SpoolTest, LineLongerThanAPieceIsSentWhole) {
  const std::string path = Path("long");
  const std::string line = std::string(TelemetryCursor::kPieceBytes * 2, 'y') + "\n";
  LL_ASSERT_OK(WriteFileAtomic(path, line + "z\n"));
  TelemetryCursor cursor(path, v1::Telemetry::EVENTS);
  EXPECT_EQ(Drain(cursor, 0), line + "z\n");
}

}  // namespace
}  // namespace ll
