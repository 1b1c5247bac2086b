#include "worker/trainer/event_sink.h"

#include <unistd.h>

#include <cmath>

#include "base/fake_clock.h"
#include "base/field_error.h"
#include "base/status_matchers.h"
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
  const std::string path = testing::TempDir() + "/event_sink_test.jsonl";
  unlink(path.c_str());
  LL_ASSERT_OK_AND_ASSIGN(auto sink, EventSink::WithFile(clock, 3, fds[1], path));
  sink->Emit("step", {{"step", 1}, {"loss", std::nan("")}});
  const std::string expected =
      R"({"event":"step","time":"2023-11-14T22:13:20.000000Z","rank":3,"step":1,"loss":null})"
      "\n";
  EXPECT_EQ(ReadAvailable(fds[0]), expected);
  LL_ASSERT_OK_AND_ASSIGN(const std::string file, ReadFile(path));
  EXPECT_EQ(file, expected);
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
