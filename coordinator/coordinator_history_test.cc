// What jobs have told: watches that are cut and resumed, and histories so long that reading them
// must hold up nobody else.
#include <atomic>
#include <filesystem>
#include <limits>
#include <thread>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/secure_case.h"

namespace ll {
namespace {

// ---- a watch that is cut

// What a watch told, by kind: a resumed one tells the states that it missed before the events.
struct Told {
  std::vector<std::string> states, others;
  bool operator==(const Told&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Told& told) {
  return out << absl::StrJoin(told.states, " ") << "; " << absl::StrJoin(told.others, " ");
}

Told ToldBy(const std::vector<v1::WatchResponse>& messages) {
  Told told;
  for (const v1::WatchResponse& m : messages) {
    if (m.has_job()) told.states.push_back(v1::JobState_Name(m.job().state()));
    if (m.has_step()) told.others.push_back(absl::StrCat(m.step().epoch(), "/", m.step().step()));
    if (m.has_event()) told.others.push_back(m.event().fields().at("event").string_value());
  }
  return told;
}

absl::StatusOr<std::vector<v1::WatchResponse>> WatchAll(v1::Jobs::Stub& jobs,
                                                        const v1::WatchRequest& request) {
  grpc::ClientContext context;
  SetDeadline(context);
  auto stream = jobs.Watch(&context, request);
  std::vector<v1::WatchResponse> out;
  v1::WatchResponse message;
  while (stream->Read(&message)) out.push_back(message);
  const grpc::Status status = stream->Finish();
  if (!status.ok()) return FromGrpcStatus(status);
  return out;
}

TEST_F(CoordinatorTest, AWatchThatIsCutAnywhereGoesOnThereAlsoAfterARestart) {
  Start();
  auto agent = Agent("w1", 1);
  agent->SayHello();
  agent->TakeWelcome();
  LL_ASSERT_OK_AND_ASSIGN(v1::SubmitResponse submitted, Submit(Request(1)));
  const std::string id = submitted.job().job_id();
  v1::WatchRequest request;
  request.set_job_id(id);
  absl::StatusOr<std::vector<v1::WatchResponse>> live;
  std::thread watcher([&] { live = WatchAll(*jobs_, request); });
  const v1::StartGang gang = agent->TakeStart();
  agent->ReportTraining(gang);
  AwaitState(id, v1::RUNNING);
  const std::string lines = R"({"event":"warning","text":"1"})"
                            "\n" +
                            StepLine(1) +
                            R"({"event":"eval","perplexity":9.5})"
                            "\n" +
                            StepLine(2) + StepLine(1) + StepLine(2) +
                            R"({"event":"done"})"
                            "\n";
  // A line that comes in two pieces is one event.
  const size_t half = lines.size() / 2;
  agent->SendTelemetry(gang, v1::Telemetry::EVENTS, 0, lines.substr(0, half));
  agent->TakeTelemetryAck();
  agent->SendTelemetry(gang, v1::Telemetry::EVENTS, static_cast<int64_t>(half), lines.substr(half));
  agent->TakeTelemetryAck();
  agent->ReportExit(gang, 0);
  AwaitState(id, v1::SUCCEEDED);
  watcher.join();
  LL_ASSERT_OK(live);
  const Told all = ToldBy(*live);
  // Steps that a rollback repeats are told again, also behind a cut.
  EXPECT_EQ(all.others,
            (std::vector<std::string>{"warning", "1/1", "eval", "1/2", "1/1", "1/2", "done"}));
  for (const bool restarted : {false, true}) {
    if (restarted) Restart();
    for (size_t cut = 0; cut < live->size(); ++cut) {
      request.set_resume_token((*live)[cut].resume_token());
      request.set_from_step(100);  // for a coordinator that knows no tokens
      const auto rest = WatchAll(*jobs_, request);
      ASSERT_THAT(rest, IsOk()) << cut;
      std::vector<v1::WatchResponse> joined(live->begin(), live->begin() + cut + 1);
      joined.insert(joined.end(), rest->begin(), rest->end());
      EXPECT_EQ(ToldBy(joined), all) << "cut behind message " << cut;
    }
  }

  LL_ASSERT_OK_AND_ASSIGN(submitted, Submit(Request(1)));
  request.set_job_id(submitted.job().job_id());
  for (const std::string& token :
       {(*live)[0].resume_token(), std::string("w1.1.1.0.0.0.1.00000000"), std::string("x")}) {
    request.set_resume_token(token);
    EXPECT_THAT(WatchAll(*jobs_, request),
                StatusIs(absl::StatusCode::kInvalidArgument, "resume_token"));
  }
}

// ---- long histories and odd requests

class LongHistoryTest : public CoordinatorTest {
 protected:
  // A job that has ended and told of so many steps.
  void MakeHistory(int steps) {
    Start();
    auto agent = Agent("w1", 1);
    agent->SayHello();
    agent->TakeWelcome();
    LL_ASSERT_OK_AND_ASSIGN(const v1::SubmitResponse submitted, Submit(Request()));
    id_ = submitted.job().job_id();
    const v1::StartGang gang = agent->TakeStart();
    agent->ReportTraining(gang);
    int64_t offset = 0;
    for (int step = 1; step <= steps;) {
      std::string lines;
      for (int i = 0; i < 5000 && step <= steps; ++i) lines += StepLine(step++);
      agent->SendTelemetry(gang, v1::Telemetry::EVENTS, offset, lines);
      offset += static_cast<int64_t>(lines.size());
      ASSERT_EQ(agent->TakeTelemetryAck().offset(), offset);
    }
    agent->ReportExit(gang, 0);
    AwaitState(id_, v1::SUCCEEDED);
  }
  std::string id_;
};

// Looking for the first event that is wanted takes a while, but nobody else's.
TEST_F(LongHistoryTest, AWatchThatSkipsItHoldsUpNobody) {
  MakeHistory(60'000);
  std::atomic<bool> done = false;
  absl::Duration whole;
  std::thread watcher([&] {
    v1::WatchRequest request;
    request.set_job_id(id_);
    request.set_from_step(1'000'000);
    const absl::Time began = absl::Now();
    LL_EXPECT_OK(WatchAll(*jobs_, request).status());
    whole = absl::Now() - began;
    done = true;
  });
  absl::Duration longest = absl::ZeroDuration();
  while (!done) {
    const absl::Time began = absl::Now();
    LL_EXPECT_OK(Get(id_).status());
    longest = std::max(longest, absl::Now() - began);
  }
  watcher.join();
  EXPECT_LT(longest, whole / 2) << "of " << whole;
}

// Nor does the first look at how far jobs are, in a coordinator that has just begun.
TEST_F(LongHistoryTest, AListAfterARestartHoldsUpNobody) {
  MakeHistory(60'000);
  Restart();
  std::atomic<bool> done = false;
  absl::Duration whole;
  std::thread lister([&] {
    const absl::Time began = absl::Now();
    const auto list = CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, v1::ListRequest());
    whole = absl::Now() - began;
    done = true;
    LL_ASSERT_OK(list);
    ASSERT_EQ(list->jobs_size(), 1);
    EXPECT_EQ(list->jobs(0).progress().step(), 60'000);
  });
  absl::Duration longest = absl::ZeroDuration();
  while (!done) {
    const absl::Time began = absl::Now();
    LL_EXPECT_OK(CallOnce<v1::ListQueuesResponse>(*admin_, &v1::Admin::Stub::ListQueues,
                                                  v1::ListQueuesRequest())
                     .status());
    longest = std::max(longest, absl::Now() - began);
  }
  lister.join();
  EXPECT_LT(longest, whole / 2) << "of " << whole;
}

TEST_F(LongHistoryTest, ManyReadersTakeAFewThreads) {
  MakeHistory(20'000);
  const auto threads = [] {
    return static_cast<int>(std::distance(std::filesystem::directory_iterator("/proc/self/task"),
                                          std::filesystem::directory_iterator()));
  };
  v1::GetRequest request;
  request.set_job_id(id_);
  request.set_history(true);
  LL_ASSERT_OK(CallOnce<v1::Job>(*jobs_, &v1::Jobs::Stub::Get, request).status());
  const int before = threads();
  constexpr int kReaders = 100;
  std::vector<grpc::ClientContext> contexts(kReaders);
  std::vector<v1::Job> answers(kReaders);
  std::atomic<int> left = kReaders;
  for (int i = 0; i < kReaders; ++i) {
    SetDeadline(contexts[i]);
    jobs_->async()->Get(&contexts[i], &request, &answers[i], [&](const grpc::Status&) { --left; });
  }
  int most = 0;
  for (int i = 0; i < 300 && left > 0; ++i) {
    most = std::max(most, threads());
    absl::SleepFor(absl::Milliseconds(10));
  }
  for (grpc::ClientContext& context : contexts) context.TryCancel();
  while (left > 0) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_LT(most - before, 30);
}

TEST_F(LongHistoryTest, LogsOfWhatCannotBeAreRefused) {
  MakeHistory(1);
  for (const auto& [epoch, rank, field] :
       {std::tuple(int64_t{-5}, 0, "epoch"),
        std::tuple(std::numeric_limits<int64_t>::min(), 0, "epoch"),
        std::tuple(int64_t{1}, -1, "rank"), std::tuple(int64_t{0}, 5000, "rank")}) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(10)));
    v1::LogsRequest request;
    request.set_job_id(id_);
    request.set_epoch(epoch);
    request.set_rank(rank);
    request.set_follow(true);
    auto stream = jobs_->Logs(&context, request);
    v1::LogsResponse piece;
    while (stream->Read(&piece)) {
    }
    EXPECT_THAT(FromGrpcStatus(stream->Finish()),
                StatusIs(absl::StatusCode::kInvalidArgument, field));
  }
}

}  // namespace
}  // namespace ll
