#include "worker/trainer/event_sink.h"

#include <unistd.h>

#include <cmath>

#include "absl/strings/str_split.h"
#include "base/fake_clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "worker/trainer/error_class.h"

namespace ll {
namespace {

std::string ReadAvailable(int fd) {
  char buffer[65536];
  const ssize_t n = read(fd, buffer, sizeof buffer);
  return n > 0 ? std::string(buffer, n) : "";
}

TEST(EventSink, OneLinePerEventOnTheDescriptorAndInTheFile) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  FakeClock clock(absl::FromUnixSeconds(1'700'000'000));
  const TempDir dir;
  const std::string path = dir.path() + "/events.jsonl";
  LL_ASSERT_OK_AND_ASSIGN(auto sink, EventSink::WithFile(clock, 3, fds[1], path));
  sink->Emit("step", {{"step", 1}, {"loss", std::nan("")}});
  const std::string expected =
      R"({"event":"step","time":"2023-11-14T22:13:20.000000Z","rank":3,"step":1,"loss":null})"
      "\n";
  EXPECT_EQ(ReadAvailable(fds[0]), expected);
  LL_ASSERT_OK_AND_ASSIGN(const std::string file, ReadFile(path));
  EXPECT_EQ(file, expected);
}

TEST(EventSink, ALineThatWasCutShortSpoilsNoOther) {
  FakeClock clock;
  const TempDir dir;
  const std::string path = dir.path() + "/events.jsonl";
  LL_ASSERT_OK(AppendFile(path, "{\"event\":\"done\"}\n{\"event\":\"st", /*sync=*/false));
  for (int run = 0; run < 2; ++run) {
    int fds[2];
    ASSERT_EQ(pipe(fds), 0);
    LL_ASSERT_OK_AND_ASSIGN(auto sink, EventSink::WithFile(clock, 0, fds[1], path));
    sink->Phase("load");
  }
  LL_ASSERT_OK_AND_ASSIGN(const std::string file, ReadFile(path));
  const std::vector<std::string> lines = absl::StrSplit(file, '\n');
  ASSERT_EQ(lines.size(), 5u) << file;  // the last one is empty
  EXPECT_EQ(lines[1], "{\"event\":\"st");
  EXPECT_EQ(nlohmann::json::parse(lines[2])["phase"], "load");
  EXPECT_EQ(nlohmann::json::parse(lines[3])["phase"], "load");
}

TEST(EventSink, ErrorsCarryClassFieldAndHint) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  FakeClock clock;
  EventSink sink(clock, 0, fds[1]);
  sink.Error(MakeFieldError({"context_length", "a positive number", "-1", "give 1024"}));
  const auto event = nlohmann::json::parse(ReadAvailable(fds[0]));
  EXPECT_EQ(event["class"], "user");
  EXPECT_EQ(event["field"], "context_length");
  EXPECT_EQ(event["hint"], "give 1024");
}

TEST(ErrorClass, CodesAndOverrides) {
  EXPECT_EQ(ErrorClassOf(absl::NotFoundError("x")), ErrorClass::kUser);
  EXPECT_EQ(ErrorClassOf(absl::UnavailableError("x")), ErrorClass::kInfrastructure);
  EXPECT_EQ(ErrorClassOf(absl::ResourceExhaustedError("x")), ErrorClass::kOutOfMemory);
  const absl::Status disk_full =
      WithErrorClass(absl::ResourceExhaustedError("disk"), ErrorClass::kInfrastructure);
  EXPECT_EQ(ErrorClassOf(disk_full), ErrorClass::kInfrastructure);
  EXPECT_EQ(ExitCodeOf(ErrorClassOf(disk_full)), 30);
  EXPECT_EQ(ExitCodeOf(ErrorClass::kNotANumber), 50);
}

}  // namespace
}  // namespace ll
