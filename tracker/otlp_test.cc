#include "tracker/otlp.h"

#include <set>

#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tracker/test_http.h"

namespace ll {
namespace {
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;
using ::testing::SizeIs;

const auto kJob =
    std::make_shared<const TrackedJob>(TrackedJob{.id = "job-000000000001",
                                                  .name = "long",
                                                  .user = "ann",
                                                  .submitted = absl::FromUnixSeconds(100)});

TrackerEvent State(int64_t seconds, const std::string& state, int64_t epoch,
                   const std::string& reason = "r") {
  TrackerEvent event;
  event.job = kJob;
  event.time = absl::FromUnixSeconds(seconds);
  event.epoch = epoch;
  event.state = state;
  event.reason = reason;
  return event;
}

TrackerEvent Step(int64_t seconds, int64_t epoch, int64_t step) {
  TrackerEvent event;
  event.kind = TrackerEvent::Kind::kStep;
  event.job = kJob;
  event.time = absl::FromUnixSeconds(seconds);
  event.epoch = epoch;
  event.step = step;
  event.step_seconds = 2;
  event.values = {{"loss", 2.5}};
  event.phases = {{"forward", 0.5}};
  return event;
}

std::vector<TrackerEvent> Life() {
  return {State(100, "QUEUED", 0),
          State(110, "STARTING", 1),
          State(115, "RUNNING", 1),
          Step(120, 1, 1),
          State(130, "RETRYING", 1, "rank 1 on w2: signal 9"),
          State(140, "QUEUED", 1),
          State(141, "STARTING", 2),
          State(145, "RUNNING", 2),
          Step(150, 2, 2),
          State(160, "FINISHING", 2),
          State(161, "SUCCEEDED", 2, "all ranks ended well")};
}

// What a collector checks: ids of the right length and not zero, unique in the trace, every parent
// there, and children no longer than their parents.
void CheckTree(const std::vector<Span>& spans) {
  std::map<std::string, const Span*> by_id;
  for (const Span& span : spans) {
    EXPECT_EQ(span.trace_id.size(), 32u);
    EXPECT_EQ(span.id.size(), 16u);
    EXPECT_NE(span.id, std::string(16, '0'));
    EXPECT_EQ(span.trace_id, spans[0].trace_id);
    EXPECT_TRUE(by_id.emplace(span.id, &span).second) << "twice: " << span.name;
    EXPECT_LE(span.start, span.end) << span.name;
  }
  for (const Span& span : spans) {
    if (span.parent_id.empty()) continue;
    ASSERT_EQ(by_id.count(span.parent_id), 1u) << span.name << " hangs on nothing";
    EXPECT_LE(by_id[span.parent_id]->start, span.start) << span.name;
    EXPECT_GE(by_id[span.parent_id]->end, span.end) << span.name;
  }
}

TEST(TraceBuilderTest, AJobIsATree) {
  TraceBuilder builder;
  std::vector<Span> spans;
  for (const TrackerEvent& event : Life())
    for (Span& span : builder.Take(event)) spans.push_back(std::move(span));
  CheckTree(spans);
  std::multiset<std::string> names;
  for (const Span& span : spans) names.insert(span.name);
  EXPECT_THAT(names,
              ::testing::UnorderedElementsAre("job", "schedule", "schedule", "attempt 1",
                                              "attempt 2", "launch", "launch", "step", "step"));
  for (const Span& span : spans) {
    if (span.name == "attempt 1") {
      EXPECT_EQ(span.error, "rank 1 on w2: signal 9");
      EXPECT_EQ(span.end - span.start, absl::Seconds(20));
    }
    if (span.name == "job") {
      EXPECT_EQ(span.parent_id, "");
      EXPECT_EQ(span.end - span.start, absl::Seconds(61));
      EXPECT_THAT(span.texts, Contains(Pair("ll.user", "ann")));
    }
    if (span.name == "step") {
      EXPECT_THAT(span.numbers, Contains(Pair("ll.loss", 2.5)));
    }
  }
}

TEST(TraceBuilderTest, AnotherProcessGoesOnInTheSameTree) {
  const std::vector<TrackerEvent> life = Life();
  for (size_t cut = 1; cut < life.size(); ++cut) {
    TraceBuilder first, second;
    std::vector<Span> spans;
    for (size_t i = 0; i < life.size(); ++i) {
      if (i < cut) {
        for (Span& span : first.Take(life[i])) spans.push_back(std::move(span));
        // The coordinator keeps transitions; steps are not told again.
        TrackerEvent again = life[i];
        again.replayed = true;
        if (again.kind == TrackerEvent::Kind::kState) {
          EXPECT_THAT(second.Take(again), IsEmpty());
        }
      } else {
        for (Span& span : second.Take(life[i])) spans.push_back(std::move(span));
      }
    }
    CheckTree(spans);
    EXPECT_THAT(spans, SizeIs(9)) << "cut at " << cut;
  }
}

TEST(TraceBuilderTest, FailuresAndCancellations) {
  TraceBuilder builder;
  builder.Take(State(100, "QUEUED", 0));
  builder.Take(State(110, "STARTING", 1));
  const auto spans = builder.Take(State(112, "FAILED", 1, "the model is not there"));
  ASSERT_THAT(spans, SizeIs(3));
  for (const Span& span : spans) EXPECT_EQ(span.error, "the model is not there") << span.name;
  TraceBuilder waiting;
  waiting.Take(State(100, "QUEUED", 0));
  EXPECT_THAT(waiting.Take(State(101, "CANCELLED", 0)), SizeIs(2));
}

TEST(OtlpJsonTest, IsWhatTheProtocolWants) {
  Span span{.trace_id = std::string(32, 'a'), .id = std::string(16, 'b'), .name = "step"};
  span.start = absl::FromUnixNanos(1'700'000'000'000'000'001);
  span.end = absl::FromUnixNanos(1'700'000'000'500'000'002);
  span.numbers = {{"ll.loss", 2.5}, {"ll.grad_norm", std::nan("")}};
  span.error = "broke";
  const auto json = OtlpJson({span}, "1.0");
  const auto& one = json["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
  EXPECT_EQ(one["startTimeUnixNano"], "1700000000000000001");
  EXPECT_EQ(one["endTimeUnixNano"], "1700000000500000002");
  EXPECT_EQ(one["status"]["code"], 2);
  EXPECT_EQ(one["attributes"][0]["value"]["doubleValue"], 2.5);
  EXPECT_EQ(one["attributes"][1]["value"]["stringValue"], "nan");
  EXPECT_FALSE(one.contains("parentSpanId"));
  EXPECT_EQ(json["resourceSpans"][0]["resource"]["attributes"][0]["key"], "service.name");
}

class OtlpTrackerTest : public ::testing::Test {
 protected:
  OtlpTracker Make(const std::string& url, const std::string& headers = "") {
    auto target = MakeHttpTarget("otlp-endpoint", url, headers, http_);
    LL_EXPECT_OK(target.status());
    return {*target, "1.0"};
  }
  FakeHttp http_;
};

TEST_F(OtlpTrackerTest, PostsWithTheHeadersOfTheFile) {
  const TempDir dir;
  const std::string file = dir.path() + "/headers";
  LL_ASSERT_OK(WriteFileAtomic(file, "# secret\nx-api-key: abc: def\n\n"));
  OtlpTracker tracker = Make("https://collector:4318/base/", file);
  LL_ASSERT_OK(tracker.Take(Life()));
  ASSERT_THAT(http_.asked(), SizeIs(1));
  EXPECT_EQ(http_.asked()[0].line, "POST https://collector:4318/base/v1/traces");
  EXPECT_THAT(http_.asked()[0].headers, Contains(Pair("x-api-key", "abc: def")));
  const auto body = nlohmann::json::parse(http_.asked()[0].body);
  EXPECT_THAT(body["resourceSpans"][0]["scopeSpans"][0]["spans"], SizeIs(9));
}

TEST_F(OtlpTrackerTest, ABatchThatComesAgainIsSentOnce) {
  OtlpTracker tracker = Make("http://collector:4318");
  http_.answer = [](const HttpRequest&) { return HttpResponse{.status = 503}; };
  EXPECT_TRUE(absl::IsUnavailable(tracker.Take(Life())));
  http_.answer = [](const HttpRequest&) { return HttpResponse{.status = 200, .body = "{}"}; };
  LL_ASSERT_OK(tracker.Take(Life()));
  EXPECT_EQ(http_.asked()[0].body, http_.asked()[1].body);
  http_.answer = [](const HttpRequest&) {
    return HttpResponse{.status = 400, .body = "bad\nspan"};
  };
  const absl::Status refused = tracker.Take({Step(1, 1, 1)});
  EXPECT_FALSE(absl::IsUnavailable(refused));
  EXPECT_THAT(refused.message(), HasSubstr("status 400, bad?span"));
}

TEST_F(OtlpTrackerTest, RefusesWhatIsNoAddress) {
  for (const char* url : {"collector:4318", "http://", "ftp://a", "http://a b", "http://a/?x=1"})
    EXPECT_FALSE(MakeHttpTarget("otlp-endpoint", url, "", http_).ok()) << url;
  const auto secret = MakeHttpTarget("otlp-endpoint", "http://user:pass@host", "", http_);
  EXPECT_THAT(secret.status().message(), HasSubstr("otlp-endpoint: expected http://HOST"));
  EXPECT_THAT(secret.status().message(), Not(HasSubstr("pass")));
  const TempDir dir;
  const std::string file = dir.path() + "/headers";
  LL_ASSERT_OK(WriteFileAtomic(file, "verysecret\n"));
  const auto bad = MakeHttpTarget("otlp-endpoint", "http://a", file, http_);
  EXPECT_THAT(bad.status().message(), HasSubstr("line 1"));
  EXPECT_THAT(bad.status().message(), Not(HasSubstr("verysecret")));
}

}  // namespace
}  // namespace ll
