// The agent in process, with real trainer processes (the stand-in of tests/cluster) and a scripted
// coordinator.
#include "worker/agent/agent.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "nlohmann/json.hpp"
#include "worker/agent/reexec.h"

namespace ll {
namespace {

// Records what the agent says.
class RecordingLink : public Link {
 public:
  void Send(v1::AgentMessage message) override {
    if (connected) sent.push_back(std::move(message));
  }
  void Reset(const std::string& reason) override { resets.push_back(reason); }
  bool connected = true;
  std::vector<v1::AgentMessage> sent;
  std::vector<std::string> resets;
};

// Real time plus what the test adds: leases of hours pass at once.
class SkippingClock : public Clock {
 public:
  absl::Time Now() override { return RealClock().Now(); }
  absl::Duration Steady() override { return RealClock().Steady() + skipped; }
  void Sleep(absl::Duration d) override { RealClock().Sleep(d); }
  absl::Duration skipped;
};

class AgentTest : public testing::Test {
 protected:
  void SetUp() override {
    options_.work_dir = work_dir_.path();
    options_.name = "w1";
    options_.trainer = LL_FAKE_TRAINER;
    options_.shutdown_grace = absl::Seconds(20);
    for (int i = 0; i < 2; ++i) {
      options_.slots.emplace_back().set_index(i);
      options_.slots.back().set_kind("cpu");
    }
    NewAgent();
    LL_ASSERT_OK(agent_->Open());
    Welcome();
  }
  void NewAgent() {
    agent_.reset();
    metrics_ = std::make_unique<AgentMetrics>("test");
    agent_ = std::make_unique<Agent>(options_, clock_, SystemRandom(), link_, *metrics_);
  }

  v1::CoordinatorMessage Message() {
    v1::CoordinatorMessage message;
    message.set_term(term_);
    return message;
  }
  void Welcome(std::vector<v1::Verdict> verdicts = {},
               std::vector<v1::TelemetryAck> telemetry = {}) {
    link_.connected = true;
    agent_->OnOpened();
    auto message = Message();
    message.mutable_welcome()->set_lease_seconds(30);
    message.mutable_welcome()->set_heartbeat_seconds(1);
    for (const auto& verdict : verdicts) *message.mutable_welcome()->add_verdicts() = verdict;
    for (const auto& ack : telemetry) *message.mutable_welcome()->add_telemetry() = ack;
    agent_->OnMessage(message);
  }
  void Disconnect() {
    link_.connected = false;
    agent_->OnClosed();
  }
  v1::StartGang Order(const std::string& job, int64_t epoch, std::vector<int> slots,
                      int64_t max_steps = 20) {
    v1::StartGang order;
    order.set_job_id(job);
    order.set_epoch(epoch);
    order.set_nonce("nonce" + std::to_string(epoch));
    order.set_world_size(static_cast<int>(slots.size()));
    for (size_t i = 0; i < slots.size(); ++i) {
      order.add_ranks()->set_rank(static_cast<int>(i));
      order.mutable_ranks(static_cast<int>(i))->set_slot(slots[i]);
    }
    order.mutable_spec()->set_seed(7);
    order.mutable_spec()->set_max_steps(max_steps);
    order.mutable_spec()->set_save_steps(5);
    (*order.mutable_spec()->mutable_labels())["fake.step_ms"] = "2";
    return order;
  }
  static void Label(v1::StartGang& order, const std::string& key, const std::string& value) {
    (*order.mutable_spec()->mutable_labels())[key] = value;
  }
  void Start(const v1::StartGang& order) {
    auto message = Message();
    *message.mutable_start() = order;
    agent_->OnMessage(message);
  }
  void Stop(const std::string& job, int64_t epoch, bool checkpoint, double grace_seconds) {
    auto message = Message();
    message.mutable_stop()->set_job_id(job);
    message.mutable_stop()->set_epoch(epoch);
    message.mutable_stop()->set_checkpoint(checkpoint);
    message.mutable_stop()->set_grace_seconds(grace_seconds);
    message.mutable_stop()->set_reason("a test");
    agent_->OnMessage(message);
  }

  // Ticks until `done` or 20 s have passed.
  bool Until(const std::function<bool()>& done) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (!done()) {
      if (absl::Now() > deadline) return false;
      agent_->Tick();
      absl::SleepFor(absl::Milliseconds(1));
    }
    return true;
  }
  std::vector<v1::Report> Reports(const std::string& job) const {
    std::vector<v1::Report> out;
    for (const auto& message : link_.sent) {
      if (message.has_report() && message.report().job_id() == job) out.push_back(message.report());
    }
    return out;
  }
  std::vector<v1::ExitReport> Exits(const std::string& job) const {
    std::vector<v1::ExitReport> out;
    for (const auto& report : Reports(job)) {
      if (report.has_exit()) out.push_back(report.exit());
    }
    return out;
  }
  bool Trains(const std::string& job) const {
    for (const auto& report : Reports(job)) {
      if (report.has_training()) return true;
    }
    return false;
  }
  bool HasCheckpoint(const std::string& job) const {
    for (const auto& report : Reports(job)) {
      if (report.has_checkpoint()) return true;
    }
    return false;
  }
  // What was sent of one stream, put together by offset.
  std::string Telemetry(const std::string& job, int rank, v1::Telemetry::Stream stream) const {
    std::string out;
    for (const auto& message : link_.sent) {
      const auto& t = message.telemetry();
      if (!message.has_telemetry() || t.job_id() != job || t.rank() != rank || t.stream() != stream)
        continue;
      if (out.size() < t.offset() + t.data().size()) out.resize(t.offset() + t.data().size());
      out.replace(t.offset(), t.data().size(), t.data());
    }
    return out;
  }
  const v1::Hello& LastHello() const {
    for (auto it = link_.sent.rbegin(); it != link_.sent.rend(); ++it) {
      if (it->has_hello()) return it->hello();
    }
    return v1::Hello::default_instance();
  }
  static v1::Verdict VerdictOf(const std::string& job, int64_t epoch, bool keep, int64_t sequence) {
    v1::Verdict verdict;
    verdict.set_job_id(job);
    verdict.set_epoch(epoch);
    verdict.set_keep(keep);
    verdict.set_report_sequence(sequence);
    return verdict;
  }
  std::string Out(const std::string& job, int64_t epoch) const {
    return absl::StrCat(options_.work_dir, "/jobs/", job, "/e000", epoch);
  }

  int64_t term_ = 1;
  const TempDir work_dir_;
  AgentOptions options_;
  SkippingClock clock_;
  RecordingLink link_;
  std::unique_ptr<AgentMetrics> metrics_;
  std::unique_ptr<Agent> agent_;
};

// Whatever stands at the agent's path by now: the one that runs, and its ranks, go on.
TEST_F(AgentTest, AProgramThatAnswersOddlyIsNotGoneOnAs) {
  const std::string program = options_.work_dir + "/program";
  const std::string deep = "{\"program\":\"ll-worker\",\"state_formats\":[" +
                           std::string(30'000, '[') + std::string(30'000, ']') + "]}";
  for (const std::string& said :
       {std::string("{\"program\":5}"), std::string("[]"), std::string("\xff"), deep}) {
    LL_ASSERT_OK(WriteFileAtomic(program + ".says", said));
    LL_ASSERT_OK(WriteFileAtomic(program, "#!/bin/sh\ncat " + program + ".says\n", 0755));
    Reexec reexec({program});
    LL_ASSERT_OK(reexec.Begin(agent_->Handover(), clock_.Steady()));
    std::optional<absl::Status> checked;
    while (!(checked = reexec.Poll(clock_.Steady()))) clock_.Sleep(absl::Milliseconds(2));
    EXPECT_THAT(*checked, StatusIs(absl::StatusCode::kFailedPrecondition, "which states it reads"))
        << said.substr(0, 80);
  }
}

TEST_F(AgentTest, NotesThatAreNoneAreAnError) {
  agent_.reset();
  for (const char* text : {"{}", "[]", "{\"incarnation\":7,\"highest_term\":1}", "half"}) {
    LL_ASSERT_OK(WriteFileAtomic(options_.work_dir + "/agent.json", text));
    NewAgent();
    EXPECT_THAT(agent_->Open(), StatusIs(absl::StatusCode::kInvalidArgument, "agent.json")) << text;
  }
}

TEST_F(AgentTest, GangOfTwoRunsToItsEndAndIsForgottenAfterRelease) {
  Start(Order("job-a", 1, {0, 1}));
  ASSERT_TRUE(Until([&] { return Exits("job-a").size() == 2; }));
  std::vector<std::string> facts;
  int64_t last_sequence = 0;
  for (const auto& report : Reports("job-a")) {
    EXPECT_EQ(report.sequence(), last_sequence + 1);
    last_sequence = report.sequence();
    if (report.has_rendezvous()) facts.push_back("rendezvous");
    if (report.has_training()) facts.push_back("training");
    if (report.has_checkpoint())
      facts.push_back(absl::StrCat("checkpoint ", report.checkpoint().step()));
  }
  EXPECT_EQ(std::count(facts.begin(), facts.end(), "training"), 2);
  EXPECT_EQ(std::count(facts.begin(), facts.end(), "rendezvous"), 1);
  EXPECT_EQ(std::count(facts.begin(), facts.end(), "checkpoint 20"), 1);
  for (const auto& exit : Exits("job-a")) {
    EXPECT_EQ(exit.exit_code(), 0);
    EXPECT_FALSE(exit.ordered());
  }
  // Every event of rank 0 was sent before its exit was reported; the log is the trainer's standard
  // output.
  const std::string events = Telemetry("job-a", 0, v1::Telemetry::EVENTS);
  EXPECT_EQ(events, *ReadFile(Out("job-a", 1) + "/events.jsonl"));
  EXPECT_THAT(events, testing::HasSubstr("\"event\":\"done\""));
  EXPECT_THAT(Telemetry("job-a", 0, v1::Telemetry::LOG), testing::HasSubstr("step 20 loss"));
  EXPECT_TRUE(FileExists(Out("job-a", 1) + "/events-rank-01.jsonl"));
  EXPECT_TRUE(FileExists(Out("job-a", 1) + "/spec.json"));

  auto release = Message();
  release.mutable_release()->set_job_id("job-a");
  release.mutable_release()->set_epoch(1);
  agent_->OnMessage(release);
  for (int rank = 0; rank < 2; ++rank) {
    for (auto stream : {v1::Telemetry::EVENTS, v1::Telemetry::LOG}) {
      auto ack = Message();
      ack.mutable_telemetry_ack()->set_job_id("job-a");
      ack.mutable_telemetry_ack()->set_epoch(1);
      ack.mutable_telemetry_ack()->set_rank(rank);
      ack.mutable_telemetry_ack()->set_stream(stream);
      ack.mutable_telemetry_ack()->set_offset(1 << 30);
      agent_->OnMessage(ack);
    }
  }
  agent_->Tick();
  EXPECT_TRUE(ListDir(options_.work_dir + "/gangs")->empty());
  EXPECT_TRUE(IsDirectory(Out("job-a", 1)));  // the files stay
}

TEST_F(AgentTest, RepeatedStartStartsOnce) {
  const auto order = Order("job-a", 1, {0});
  Start(order);
  Start(order);
  ASSERT_TRUE(Until([&] { return !Exits("job-a").empty(); }));
  Start(order);
  for (int i = 0; i < 50; ++i) agent_->Tick();
  int started = 0;
  for (const auto& report : Reports("job-a")) started += report.has_started();
  EXPECT_EQ(started, 1);
}

TEST_F(AgentTest, UnacknowledgedReportsAreRepeatedInOrderAfterAReconnect) {
  Start(Order("job-a", 1, {0}));
  ASSERT_TRUE(Until([&] { return Trains("job-a"); }));
  Disconnect();
  const size_t before = Reports("job-a").size();
  ASSERT_TRUE(
      Until([&] { return FileExists(Out("job-a", 1) + "/checkpoints/step-000020/COMPLETE"); }));
  for (int i = 0; i < 100; ++i) {
    agent_->Tick();
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(Reports("job-a").size(), before);
  link_.sent.clear();
  Welcome({VerdictOf("job-a", 1, true, 1)});  // only `started` is durable there
  ASSERT_TRUE(Until([&] { return !Exits("job-a").empty(); }));
  EXPECT_EQ(Reports("job-a").front().sequence(), 2);
  ASSERT_EQ(LastHello().gangs_size(), 1);
  EXPECT_EQ(LastHello().gangs(0).job_id(), "job-a");
}

TEST_F(AgentTest, TelemetryGoesOnWhereTheCoordinatorSays) {
  auto order = Order("job-a", 1, {0}, 2000);
  Start(order);
  ASSERT_TRUE(Until([&] { return Telemetry("job-a", 0, v1::Telemetry::EVENTS).size() > 2000; }));
  Disconnect();
  link_.sent.clear();
  v1::TelemetryAck ack;
  ack.set_job_id("job-a");
  ack.set_epoch(1);
  ack.set_stream(v1::Telemetry::EVENTS);
  ack.set_offset(1000);
  Welcome({VerdictOf("job-a", 1, true, 0)}, {ack});
  ASSERT_TRUE(Until([&] { return Telemetry("job-a", 0, v1::Telemetry::EVENTS).size() > 1500; }));
  for (const auto& message : link_.sent) {
    if (!message.has_telemetry() || message.telemetry().stream() != v1::Telemetry::EVENTS) continue;
    EXPECT_EQ(message.telemetry().offset(), 1000);
    break;
  }
}

TEST_F(AgentTest, CheckpointStopPausesAndKillStopKills) {
  auto order = Order("job-a", 1, {0, 1});
  Label(order, "fake.until_stopped", "1");
  Start(order);
  ASSERT_TRUE(Until([&] { return HasCheckpoint("job-a"); }));
  Stop("job-a", 1, true, 30);
  ASSERT_TRUE(Until([&] { return Exits("job-a").size() == 2; }));
  for (const auto& exit : Exits("job-a")) {
    EXPECT_EQ(exit.exit_code(), 10);
    EXPECT_TRUE(exit.ordered());
    EXPECT_EQ(exit.failure_class(), v1::FAILURE_CLASS_UNSPECIFIED);
  }
  order = Order("job-b", 1, {0, 1});
  Label(order, "fake.fault", "hang");
  Start(order);
  ASSERT_TRUE(Until([&] { return Trains("job-b"); }));
  Stop("job-b", 1, false, 0);
  ASSERT_TRUE(Until([&] { return Exits("job-b").size() == 2; }));
  for (const auto& exit : Exits("job-b")) {
    EXPECT_TRUE(exit.ordered());
    // The second rank may see the first one's end before its own signal arrives.
    if (exit.exit_code() == 30) continue;
    EXPECT_EQ(exit.signal(), SIGKILL);
    EXPECT_EQ(exit.message(), "a test");
  }
}

TEST_F(AgentTest, GraceEndsInAKill) {
  auto order = Order("job-a", 1, {0});
  Label(order, "fake.until_stopped", "1");
  Label(order, "fake.fault", "ignore_term");
  Start(order);
  ASSERT_TRUE(Until([&] { return Trains("job-a"); }));
  Stop("job-a", 1, true, 0.3);
  ASSERT_TRUE(Until([&] { return !Exits("job-a").empty(); }));
  EXPECT_EQ(Exits("job-a")[0].signal(), SIGKILL);
}

TEST_F(AgentTest, HowRanksDieIsToldInWords) {
  struct Case {
    std::string fault;
    int exit_code, signal;
    v1::FailureClass failure_class;
    std::string message;
  };
  int n = 0;
  for (const Case& c : {Case{"crash", 0, SIGKILL, v1::INFRASTRUCTURE, "signal 9"},
                        Case{"segv", 0, SIGSEGV, v1::INFRASTRUCTURE, "signal 11"},
                        Case{"nan", 50, 0, v1::NOT_A_NUMBER, "not finite at step 5"},
                        Case{"exit:31", 31, 0, v1::CAPACITY, "the last words of rank 0"},
                        Case{"exit:1", 1, 0, v1::INFRASTRUCTURE, "exit code 1"},
                        Case{"exit:40", 40, 0, v1::OUT_OF_MEMORY, ""}}) {
    const std::string job = absl::StrCat("job-", n++);
    auto order = Order(job, 1, {0});
    Label(order, "fake.fault", c.fault);
    Start(order);
    ASSERT_TRUE(Until([&] { return !Exits(job).empty(); })) << c.fault;
    const v1::ExitReport exit = Exits(job)[0];
    EXPECT_EQ(exit.exit_code(), c.exit_code) << c.fault;
    EXPECT_EQ(exit.signal(), c.signal) << c.fault;
    EXPECT_EQ(exit.failure_class(), c.failure_class) << c.fault;
    EXPECT_THAT(exit.message(), testing::HasSubstr(c.message));
    EXPECT_FALSE(exit.ordered());
  }
}

TEST_F(AgentTest, GarbageAndEndlessLinesBecomeWarningsAndTheJobGoesOn) {
  for (const std::string fault : {"garbage", "long_line"}) {
    auto order = Order("job-" + fault, 1, {0});
    Label(order, "fake.fault", fault);
    Start(order);
    ASSERT_TRUE(Until([&] { return !Exits("job-" + fault).empty(); }));
    EXPECT_EQ(Exits("job-" + fault)[0].exit_code(), 0);
    const std::string events = Telemetry("job-" + fault, 0, v1::Telemetry::EVENTS);
    EXPECT_THAT(events, testing::HasSubstr("\"source\":\"agent\""));
    for (absl::string_view line : absl::StrSplit(events, '\n', absl::SkipEmpty())) {
      EXPECT_TRUE(nlohmann::json::accept(line.begin(), line.end())) << line;
    }
  }
}

TEST_F(AgentTest, NewerEpochEndsTheOlderAndResumesFromItsCheckpoint) {
  auto order = Order("job-a", 1, {0}, 400);
  Start(order);
  ASSERT_TRUE(Until([&] { return HasCheckpoint("job-a"); }));
  v1::CheckpointReport checkpoint;
  for (const auto& report : Reports("job-a")) {
    if (report.has_checkpoint()) checkpoint = report.checkpoint();
  }
  auto next = Order("job-a", 2, {0}, 40);
  next.set_resume_from(checkpoint.path());
  next.set_resume_manifest_sha256(checkpoint.manifest_sha256());
  Start(next);
  ASSERT_TRUE(Until([&] { return Exits("job-a").size() == 2; }));
  EXPECT_EQ(Exits("job-a")[0].signal(), SIGKILL);
  EXPECT_EQ(Exits("job-a")[1].exit_code(), 0);
  // The losses are those of one undisturbed run.
  Start(Order("job-b", 1, {0}, 40));
  ASSERT_TRUE(Until([&] { return !Exits("job-b").empty(); }));
  EXPECT_EQ(Exits("job-a")[1].result().fields().at("final_loss").number_value(),
            Exits("job-b")[0].result().fields().at("final_loss").number_value());
  // The older epoch is not started again.
  link_.sent.clear();
  Start(Order("job-a", 1, {1}));
  for (int i = 0; i < 20; ++i) agent_->Tick();
  EXPECT_TRUE(Reports("job-a").empty());
}

TEST_F(AgentTest, HeadlessRanksGoOnAndAreAdoptedOrEnded) {
  auto order = Order("job-a", 1, {0});
  Label(order, "fake.until_stopped", "1");
  order.mutable_spec()->set_max_headless(3600);
  Start(order);
  ASSERT_TRUE(Until([&] { return Trains("job-a"); }));
  clock_.skipped += absl::Seconds(31);
  agent_->Tick();
  ASSERT_EQ(link_.resets.size(), 1u);  // a half-dead session is given up
  Disconnect();
  clock_.skipped += absl::Seconds(3000);
  for (int i = 0; i < 50; ++i) agent_->Tick();
  Welcome({VerdictOf("job-a", 1, true, 0)});
  for (int i = 0; i < 50; ++i) agent_->Tick();
  EXPECT_TRUE(Exits("job-a").empty());

  Disconnect();
  clock_.skipped += absl::Seconds(3700);
  ASSERT_TRUE(Until([&] {
    return ReadFile(options_.work_dir + "/gangs/job-a.e0001/reports.jsonl")->find("max_headless") !=
           std::string::npos;
  }));
  Welcome({VerdictOf("job-a", 1, true, 0)});
  ASSERT_TRUE(Until([&] { return !Exits("job-a").empty(); }));
  EXPECT_THAT(Exits("job-a")[0].message(), testing::HasSubstr("max_headless"));
  EXPECT_FALSE(Exits("job-a")[0].ordered());
  EXPECT_TRUE(Exits("job-a")[0].lost());  // no fault of the host
}

TEST_F(AgentTest, TwelveHoursWithoutACoordinatorStopNobody) {
  auto order = Order("job-a", 1, {0});  // of the default max_headless
  Label(order, "fake.until_stopped", "1");
  Start(order);
  ASSERT_TRUE(Until([&] { return Trains("job-a"); }));
  Disconnect();
  for (int minute = 0; minute < 12 * 60; ++minute) {
    clock_.skipped += absl::Minutes(1);
    agent_->Tick();
  }
  Welcome({VerdictOf("job-a", 1, true, 0)});
  for (int i = 0; i < 50; ++i) agent_->Tick();
  EXPECT_TRUE(Exits("job-a").empty());
}

TEST_F(AgentTest, WelcomeThatDoesNotKeepAGangEndsIt) {
  for (const bool named : {true, false}) {
    const std::string job = named ? "job-named" : "job-unknown";
    auto order = Order(job, 1, {0});
    Label(order, "fake.until_stopped", "1");
    Start(order);
    ASSERT_TRUE(Until([&] { return Trains(job); }));
    Disconnect();
    named ? Welcome({VerdictOf(job, 1, false, 0)}) : Welcome();
    ASSERT_TRUE(Until([&] { return !Exits(job).empty(); }));
    EXPECT_EQ(Exits(job)[0].signal(), SIGKILL);
    EXPECT_TRUE(Exits(job)[0].ordered());
  }
}

TEST_F(AgentTest, LowerTermIsNotObeyedAlsoByTheNextProcess) {
  term_ = 5;
  Welcome();
  term_ = 4;
  Start(Order("job-a", 1, {0}));
  EXPECT_EQ(link_.resets.size(), 1u);
  agent_->Tick();
  EXPECT_TRUE(Reports("job-a").empty());
  NewAgent();
  LL_ASSERT_OK(agent_->Open());
  Welcome();
  EXPECT_EQ(LastHello().highest_term(), 5);
  EXPECT_FALSE(agent_->welcomed());
}

TEST_F(AgentTest, AnotherNameDoesNotTakeTheAttemptsOfThisOne) {
  const std::string name = options_.name;
  Start(Order("job-a", 1, {0}, 2000));
  ASSERT_TRUE(Until([&] { return Trains("job-a"); }));
  options_.name = "other";
  NewAgent();
  EXPECT_THAT(agent_->Open(),
              StatusIs(absl::StatusCode::kFailedPrecondition, "start it as --name w1 first"));
  options_.name = name;
  NewAgent();
  LL_ASSERT_OK(agent_->Open());
  agent_.reset();
  LL_ASSERT_OK(RemoveTree(options_.work_dir + "/gangs/job-a.e0001"));
  options_.name = "other";
  NewAgent();
  LL_EXPECT_OK(agent_->Open());
}

// The coordinator has seen reports that a full disk did not keep; the next process must not give
// their numbers to what it has to say.
TEST_F(AgentTest, NextProcessIsHeardAfterAFullDisk) {
  Welcome();
  auto order = Order("job-a", 1, {0});
  Label(order, "fake.until_stopped", "1");
  Start(order);
  ASSERT_TRUE(Until([&] { return Trains("job-a"); }));
  agent_.reset();
  LL_ASSERT_OK(RemoveTree(options_.work_dir + "/gangs/job-a.e0001/reports.jsonl"));
  link_.sent.clear();
  NewAgent();
  LL_ASSERT_OK(agent_->Open());
  Welcome({VerdictOf("job-a", 1, true, 50)});
  ASSERT_TRUE(Until([&] { return !Exits("job-a").empty(); }));
  EXPECT_GT(Reports("job-a").back().sequence(), 50);
}

TEST_F(AgentTest, NextProcessReportsWhatTheKilledOneLeft) {
  // The first agent process: one gang has ended without anyone hearing of it, another runs when it
  // is killed.
  agent_.reset();
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  const pid_t child = fork();
  if (child == 0) {
    NewAgent();
    if (!agent_->Open().ok()) _exit(1);
    Welcome();
    link_.connected = false;  // nothing arrives from here on
    Start(Order("job-ended", 1, {0}));
    auto order = Order("job-running", 1, {1});
    Label(order, "fake.until_stopped", "1");
    Label(order, "fake.fault", "child");
    Start(order);
    Until([&] {
      const auto ended = ReadFile(options_.work_dir + "/gangs/job-ended.e0001/reports.jsonl");
      const auto running = ReadFile(options_.work_dir + "/gangs/job-running.e0001/reports.jsonl");
      return ended->find("\"exit\"") != std::string::npos &&
             running->find("\"checkpoint\"") != std::string::npos;
    });
    (void)!write(fds[1], "x", 1);
    raise(SIGKILL);
  }
  char ready;
  ASSERT_EQ(read(fds[0], &ready, 1), 1);
  close(fds[0]);
  close(fds[1]);
  int status;
  waitpid(child, &status, 0);
  link_.sent.clear();
  NewAgent();
  LL_ASSERT_OK(agent_->Open());
  Welcome({VerdictOf("job-ended", 1, true, 0), VerdictOf("job-running", 1, true, 0)});
  ASSERT_EQ(LastHello().gangs_size(), 2);
  for (const auto& gang : LastHello().gangs()) EXPECT_TRUE(gang.ranks(0).exited()) << gang.job_id();
  ASSERT_TRUE(Until([&] { return !Exits("job-ended").empty() && !Exits("job-running").empty(); }));
  EXPECT_EQ(Exits("job-ended")[0].exit_code(), 0);
  EXPECT_EQ(Exits("job-ended")[0].signal(), 0);
  EXPECT_EQ(Exits("job-running")[0].signal(), SIGKILL);
  EXPECT_EQ(Exits("job-running")[0].failure_class(), v1::INFRASTRUCTURE);
  EXPECT_TRUE(Exits("job-running")[0].lost());
  EXPECT_FALSE(Exits("job-ended")[0].lost());
  EXPECT_TRUE(HasCheckpoint("job-running"));
  // Neither the trainer nor what it had started is left.
  const auto pid = Reports("job-running")[0].started().pid();
  const auto stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"));
  // Ended, at most not yet waited for.
  EXPECT_THAT(stat.value_or(") Z "), testing::HasSubstr(") Z "));
}

TEST_F(AgentTest, AnotherProgramGoesOnWithItsRanks) {
  auto order = Order("job-a", 1, {0});
  Label(order, "fake.until_stopped", "1");
  Start(order);
  Start(Order("job-b", 1, {1}, 3));
  ASSERT_TRUE(Until([&] { return Trains("job-a") && Exits("job-b").size() == 1; }));
  const std::string incarnation = LastHello().incarnation();
  const auto pid = Reports("job-a")[0].started().pid();
  clock_.skipped += absl::Minutes(5);  // out of contact for longer than the lease
  agent_->Tick();

  v1::AgentState state;
  ASSERT_TRUE(state.ParseFromString(agent_->Handover().SerializeAsString()));
  // The replaced program does nothing any more, not even end.
  static auto& replaced =
      *new std::vector<std::pair<std::unique_ptr<Agent>, std::unique_ptr<AgentMetrics>>>;
  replaced.emplace_back(std::move(agent_), std::move(metrics_));
  link_.sent.clear();
  NewAgent();
  LL_ASSERT_OK(agent_->Adopt(state));
  EXPECT_TRUE(agent_->ever_welcomed());
  Welcome({VerdictOf("job-a", 1, true, 0), VerdictOf("job-b", 1, true, 0)});
  EXPECT_EQ(LastHello().incarnation(), incarnation);
  ASSERT_EQ(LastHello().gangs_size(), 2);
  EXPECT_FALSE(LastHello().gangs(0).ranks(0).exited());
  EXPECT_TRUE(LastHello().gangs(1).ranks(0).exited());
  // Its slot is taken, its order held; what was not acknowledged is told again under its numbers.
  Start(order);
  Stop("job-a", 1, /*checkpoint=*/true, 20);
  ASSERT_TRUE(Until([&] { return !Exits("job-a").empty() && !Exits("job-b").empty(); }));
  EXPECT_EQ(Exits("job-a")[0].exit_code(), 10);
  EXPECT_TRUE(Exits("job-a")[0].ordered());
  EXPECT_EQ(Exits("job-b")[0].exit_code(), 0);
  const auto reports = Reports("job-a");
  EXPECT_EQ(reports[0].started().pid(), pid);
  for (size_t i = 0; i < reports.size(); ++i) EXPECT_EQ(reports[i].sequence(), i + 1);
  EXPECT_EQ(Telemetry("job-a", 0, v1::Telemetry::EVENTS),
            *ReadFile(Out("job-a", 1) + "/events.jsonl"));
  EXPECT_EQ(Telemetry("job-a", 0, v1::Telemetry::LOG), *ReadFile(Out("job-a", 1) + "/rank-00.log"));
}

TEST_F(AgentTest, AStateThatDoesNotFitIsRefused) {
  auto order = Order("job-a", 1, {1});
  Label(order, "fake.until_stopped", "1");
  Start(order);
  const v1::AgentState state = agent_->Handover();
  LL_EXPECT_OK(CheckAgentState(state, options_));
  const auto refused = [&](const char* field, const std::function<void(AgentOptions&)>& change) {
    AgentOptions options = options_;
    change(options);
    const absl::Status status = CheckAgentState(state, options);
    EXPECT_THAT(std::string(status.message()), testing::StartsWith(field));
  };
  refused("name", [](AgentOptions& options) { options.name = "w2"; });
  refused("work-dir", [](AgentOptions& options) { options.work_dir += "/other"; });
  refused("job-store", [](AgentOptions& options) { options.job_store = "/elsewhere"; });
  refused("cpu-slots", [](AgentOptions& options) { options.slots.resize(1); });
  v1::AgentState later = state;
  later.set_format(kAgentStateFormat + 1);
  EXPECT_THAT(CheckAgentState(later, options_),
              StatusIs(absl::StatusCode::kFailedPrecondition, "format"));
}

TEST_F(AgentTest, SecondAgentInOneWorkDirectoryIsRefused) {
  Agent second(options_, clock_, SystemRandom(), link_, *metrics_);
  EXPECT_THAT(second.Open(), StatusIs(absl::StatusCode::kAlreadyExists, "another ll-worker uses"));
}

TEST_F(AgentTest, RefusalsNameTheFault) {
  const auto refusal = [&](const std::string& job) -> v1::StartRefused {
    for (const auto& report : Reports(job)) {
      if (report.has_refused()) return report.refused();
    }
    return {};
  };
  Start(Order("job-slot", 1, {9}));
  auto order = Order("job-checkpoint", 2, {0});
  order.set_resume_from("/none/step-000005");
  Start(order);
  agent_->Tick();
  EXPECT_EQ(refusal("job-slot").failure_class(), v1::CAPACITY);
  EXPECT_THAT(refusal("job-checkpoint").message(), testing::HasSubstr("/none/step-000005"));

  LL_ASSERT_OK(MakeDirs(options_.work_dir + "/data"));
  LL_ASSERT_OK(AddRoot("data=" + options_.work_dir + "/data", options_.roots));
  NewAgent();
  LL_ASSERT_OK(agent_->Open());
  Welcome();
  order = Order("job-root", 1, {0});
  order.mutable_spec()->set_data("/etc/passwd");
  Start(order);
  agent_->Tick();
  EXPECT_EQ(refusal("job-root").failure_class(), v1::USER);
  EXPECT_THAT(refusal("job-root").message(), testing::HasSubstr("data: expected a path beneath"));
}

TEST_F(AgentTest, BusySlotIsWaitedFor) {
  Start(Order("job-a", 1, {0}, 50));
  Start(Order("job-b", 1, {0}));
  ASSERT_TRUE(Until([&] { return !Exits("job-b").empty(); }));
  EXPECT_EQ(Exits("job-a")[0].exit_code(), 0);
  EXPECT_EQ(Exits("job-b")[0].exit_code(), 0);
}

TEST_F(AgentTest, ShutdownCheckpointsReportsAndEnds) {
  auto order = Order("job-a", 1, {0, 1});
  Label(order, "fake.until_stopped", "1");
  Start(order);
  ASSERT_TRUE(Until([&] { return HasCheckpoint("job-a"); }));
  EXPECT_FALSE(agent_->ShutdownDone());
  agent_->BeginShutdown();
  ASSERT_TRUE(Until([&] { return Exits("job-a").size() == 2; }));
  for (const auto& exit : Exits("job-a")) {
    EXPECT_EQ(exit.exit_code(), 10);
    EXPECT_FALSE(exit.ordered());  // nobody ordered a pause
  }
  EXPECT_FALSE(agent_->ShutdownDone());  // the coordinator has not confirmed
  auto ack = Message();
  ack.mutable_report_ack()->set_job_id("job-a");
  ack.mutable_report_ack()->set_epoch(1);
  ack.mutable_report_ack()->set_sequence(100);
  agent_->OnMessage(ack);
  EXPECT_TRUE(agent_->ShutdownDone());
  Start(Order("job-b", 1, {0}));
  ASSERT_TRUE(Until([&] { return !Reports("job-b").empty(); }));
  EXPECT_TRUE(Reports("job-b")[0].refused().leaving());
}

TEST_F(AgentTest, WhatAShutdownKillsIsNoFaultOfTheHost) {
  auto order = Order("job-a", 1, {0});
  Label(order, "fake.until_stopped", "1");
  Start(order);
  ASSERT_TRUE(Until([&] { return Trains("job-a"); }));
  agent_->BeginShutdown();
  agent_->BeginShutdown();  // a second signal: at once
  ASSERT_TRUE(Until([&] { return !Exits("job-a").empty(); }));
  EXPECT_EQ(Exits("job-a")[0].signal(), SIGKILL);
  EXPECT_FALSE(Exits("job-a")[0].ordered());
  EXPECT_TRUE(Exits("job-a")[0].lost());
}

TEST_F(AgentTest, HeartbeatsAndTheHandshakeDeadline) {
  clock_.skipped += absl::Seconds(2);
  agent_->Tick();
  EXPECT_TRUE(link_.sent.back().has_heartbeat());
  Disconnect();
  link_.connected = true;
  agent_->OnOpened();  // and no Welcome
  clock_.skipped += absl::Seconds(11);
  agent_->Tick();
  EXPECT_EQ(link_.resets.size(), 1u);
}

}  // namespace
}  // namespace ll
