// Schedules in the scheduler: what comes due becomes a job, or a record that says why not.
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_matchers.h"
#include "coordinator/core/scheduler.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

using absl::StatusCode;
using testing::HasSubstr;

class SchedulesTest : public testing::Test {
 protected:
  SchedulesTest() : scheduler_(Scheduler::Recover({}, {}, {steady_, wall_}).value()) {}

  Effects Step(const Event& event) {
    Effects effects = scheduler_.Step(event, {steady_, wall_});
    scheduler_.CheckInvariants();
    return effects;
  }
  Effects TickAt(absl::Time wall) {
    steady_ += absl::Seconds(1);
    wall_ = wall;
    return Step(TickEvent{});
  }
  static absl::Time At(int day, int hour, int minute = 0) {
    return absl::FromCivil(absl::CivilSecond(2026, 1, day, hour, minute, 0), absl::UTCTimeZone());
  }
  static ScheduleRecord Nightly() {
    ScheduleRecord record;
    record.name = "nightly";
    record.user = "ann";
    record.body_sha256 = "body";
    record.cron = "0 2 * * *";
    record.time_zone = "UTC";
    record.payload = std::make_shared<JobPayload>();
    return record;
  }
  absl::Status Set(const ScheduleRecord& record, bool replace = false) {
    return Step(SetScheduleEvent{record, replace}).reply.status;
  }
  const Schedule& schedule() const { return scheduler_.schedules().at("nightly"); }
  const ScheduleRun& newest() const { return schedule().runs.rbegin()->second; }
  // One for a left-out run, so that tests can compare.
  JobState StateOf(int64_t run) const {
    return scheduler_.Find(schedule().runs.at(run).job)->state;
  }
  void Judge(int64_t run, double loss) {
    RunMeasures measures;
    measures.final_loss = loss;
    measures.curve = {{1, 4.0}, {2, loss}};
    Step(JudgeRunEvent{"nightly", run, measures});
  }
  // Lets the newest run's job succeed on a worker.
  void Finish(int64_t run, int code = 0) {
    const JobId id = schedule().runs.at(run).job;
    AgentHelloEvent hello;
    hello.session = ++session_;
    hello.worker = WorkerId(absl::StrCat("w", session_));
    hello.incarnation = "1";
    hello.slots = {{0, "cpu", 8}};
    Step(hello);
    RankExit exit;
    exit.code = code;
    if (code != 0) exit.failure_class = FailureClass::kUser;
    ReportEvent report{hello.worker, session_, id, 1, 0, 1, TrainingFact{}};
    const Job* job = scheduler_.Find(id);
    ASSERT_EQ(job->state, JobState::kStarting);
    report.worker = job->attempt->ranks[0].worker;
    report.session = scheduler_.workers().at(report.worker).session;
    Step(report);
    report.sequence = 2;
    report.fact = ExitFact{exit, "result"};
    Step(report);
  }

  absl::Duration steady_ = absl::ZeroDuration();
  absl::Time wall_ = At(1, 12);
  Scheduler scheduler_;
  uint64_t session_ = 0;
};

TEST_F(SchedulesTest, AFireIsAJobOfTheSameStep) {
  LL_ASSERT_OK(Set(Nightly()));
  EXPECT_EQ(schedule().record.next_fire, At(2, 2));
  EXPECT_TRUE(TickAt(At(2, 1, 59)).records.empty());
  const Effects effects = TickAt(At(2, 2));
  const ScheduleRun& run = newest();
  const Job* job = scheduler_.Find(run.job);
  ASSERT_NE(job, nullptr);
  EXPECT_EQ(job->request_id, "schedule/nightly/2026-01-02T02:00:00Z");
  EXPECT_EQ(job->user, "ann");
  EXPECT_EQ(job->submitted, At(2, 2));
  EXPECT_EQ(schedule().record.next_fire, At(3, 2));
  // All of it is in one step's records: the transaction has both or neither.
  int jobs = 0, schedules = 0, runs = 0;
  for (const Record& record : effects.records) {
    jobs += std::holds_alternative<PutJob>(record);
    schedules += std::holds_alternative<PutSchedule>(record);
    runs += std::holds_alternative<PutScheduleRun>(record);
  }
  EXPECT_EQ(jobs, 1);
  EXPECT_EQ(schedules, 1);
  EXPECT_EQ(runs, 1);
  TickAt(At(2, 2, 1));
  EXPECT_EQ(schedule().runs.size(), 1u);
}

TEST_F(SchedulesTest, AClockSetBackFiresNothingAgain) {
  LL_ASSERT_OK(Set(Nightly()));
  TickAt(At(2, 2));
  TickAt(At(1, 23));
  TickAt(At(2, 2, 30));
  EXPECT_EQ(schedule().record.runs, 1);
  // Also not by a schedule that was made anew in between.
  TickAt(At(1, 23));
  LL_ASSERT_OK(Set(Nightly(), /*replace=*/true));
  EXPECT_EQ(schedule().record.next_fire, At(2, 2));
  TickAt(At(2, 2));
  EXPECT_EQ(schedule().record.runs, 2);
  EXPECT_TRUE(newest().job.empty());
  EXPECT_THAT(newest().reason, HasSubstr("was submitted for this time before"));
}

TEST_F(SchedulesTest, OverlapSkip) {
  LL_ASSERT_OK(Set(Nightly()));
  TickAt(At(2, 2));
  TickAt(At(3, 2));
  EXPECT_TRUE(newest().job.empty());
  EXPECT_EQ(newest().reason, absl::StrCat("overlaps with ", schedule().runs.at(1).job.value(),
                                          ", which is still QUEUED"));
  Step(CancelEvent{schedule().runs.at(1).job, "ann", ""});
  TickAt(At(4, 2));
  EXPECT_FALSE(newest().job.empty());
}

TEST_F(SchedulesTest, OverlapQueueRunsOneAfterTheOther) {
  ScheduleRecord record = Nightly();
  record.overlap = OverlapPolicy::kQueue;
  LL_ASSERT_OK(Set(record));
  for (int day : {2, 3, 4}) TickAt(At(day, 2));
  EXPECT_EQ(StateOf(1), JobState::kQueued);
  EXPECT_EQ(StateOf(2), JobState::kBlocked);
  EXPECT_EQ(StateOf(3), JobState::kBlocked);
  Step(CancelEvent{schedule().runs.at(2).job, "ann", ""});
  EXPECT_EQ(StateOf(3), JobState::kBlocked) << "the first one has not ended";
  Step(CancelEvent{schedule().runs.at(1).job, "ann", ""});
  EXPECT_EQ(StateOf(3), JobState::kQueued);
}

TEST_F(SchedulesTest, OverlapQueueIsBounded) {
  ScheduleRecord record = Nightly();
  record.cron = "* * * * *";
  record.overlap = OverlapPolicy::kQueue;
  LL_ASSERT_OK(Set(record));
  for (int i = 1; i <= kMaxUnfinishedRuns + 1; ++i) TickAt(At(1, 12) + absl::Minutes(i));
  EXPECT_EQ(scheduler_.List({SIZE_MAX}).size(), static_cast<size_t>(kMaxUnfinishedRuns));
  EXPECT_EQ(newest().reason, "100 earlier runs have not ended, the limit");
}

TEST_F(SchedulesTest, OverlapCancelOld) {
  ScheduleRecord record = Nightly();
  record.overlap = OverlapPolicy::kCancelOld;
  LL_ASSERT_OK(Set(record));
  TickAt(At(2, 2));
  TickAt(At(3, 2));
  EXPECT_EQ(StateOf(1), JobState::kCancelled);
  EXPECT_EQ(scheduler_.Find(schedule().runs.at(1).job)->reason,
            "cancelled by schedule nightly: its next run is due");
  EXPECT_EQ(StateOf(2), JobState::kQueued);
  // One that runs is being stopped; the next one waits for that.
  AgentHelloEvent hello{1, WorkerId("w1"), "1"};
  hello.slots = {{0, "cpu", 8}};
  Step(hello);
  EXPECT_EQ(StateOf(2), JobState::kStarting);
  TickAt(At(4, 2));
  EXPECT_EQ(StateOf(2), JobState::kCancelling);
  EXPECT_EQ(StateOf(3), JobState::kBlocked);
}

// A training in stages: two jobs in front of the last, named by ids that stand for those of a run.
ScheduleRecord InStages(ScheduleRecord record) {
  const JobId train("train"), evaluation("eval");
  CoreSpec from_it = record.spec;
  from_it.after = {train};
  from_it.source = train;
  record.before = {{train, record.spec, record.payload}, {evaluation, from_it, record.payload}};
  record.spec.after = {train, evaluation};
  record.spec.source = train;
  return record;
}

TEST_F(SchedulesTest, AFireOfStagesIsAWholeGraph) {
  LL_ASSERT_OK(Set(InStages(Nightly())));
  TickAt(At(2, 2));
  const ScheduleRun run = newest();
  ASSERT_EQ(run.before.size(), 2u);
  const Job& train = *scheduler_.Find(run.before[0]);
  const Job& evaluation = *scheduler_.Find(run.before[1]);
  const Job& last = *scheduler_.Find(run.job);
  EXPECT_EQ(train.request_id, "schedule/nightly/2026-01-02T02:00:00Z");
  EXPECT_EQ(train.state, JobState::kQueued);
  EXPECT_EQ(evaluation.spec.after, std::vector<JobId>{train.id});
  EXPECT_EQ(evaluation.spec.source, train.id);
  EXPECT_EQ(last.spec.after, (std::vector<JobId>{train.id, evaluation.id}));
  EXPECT_EQ(last.spec.source, train.id);
  // The next fire's jobs are others.
  for (const JobId& id : JobIdsOf(run)) Step(CancelEvent{id, "ann", ""});
  TickAt(At(3, 2));
  EXPECT_EQ(scheduler_.List({SIZE_MAX}).size(), 6u);
  EXPECT_EQ(scheduler_.Find(newest().job)->spec.source, newest().before[0]);
  // Asked twice with one request id, a run by hand is one; the answer is the last job.
  for (const JobId& id : JobIdsOf(newest())) Step(CancelEvent{id, "ann", ""});
  for (const char* id : {"by-hand", "again"}) {
    const Effects effects = Step(RunScheduleEvent{"nightly", JobId(id), "r", "ann"});
    LL_ASSERT_OK(effects.reply.status);
    EXPECT_EQ(effects.reply.job, JobId("by-hand"));
  }
}

TEST_F(SchedulesTest, ARunInStagesOverlapsAsAWhole) {
  LL_ASSERT_OK(Set(InStages(Nightly())));
  TickAt(At(2, 2));
  const ScheduleRun first = newest();
  // Its last job has ended, and so been judged, but another still waits for slots.
  Step(CancelEvent{first.job, "ann", ""});
  TickAt(At(3, 2));
  EXPECT_THAT(newest().reason, HasSubstr(absl::StrCat("overlaps with ", first.before[1].value())));

  ScheduleRecord queued = InStages(Nightly());
  queued.overlap = OverlapPolicy::kQueue;
  LL_ASSERT_OK(Set(queued, /*replace=*/true));
  TickAt(At(4, 2));
  EXPECT_EQ(scheduler_.Find(newest().before[0])->spec.after_any, first.before);
  EXPECT_TRUE(scheduler_.Find(newest().before[1])->spec.after_any.empty()) << "it waits anyway";

  ScheduleRecord cancels = InStages(Nightly());
  cancels.overlap = OverlapPolicy::kCancelOld;
  LL_ASSERT_OK(Set(cancels, /*replace=*/true));
  TickAt(At(5, 2));
  int cancelled = 0;
  for (const Job* job : scheduler_.List({SIZE_MAX})) {
    cancelled += job->reason == "cancelled by schedule nightly: its next run is due";
  }
  EXPECT_EQ(cancelled, 5) << "two of the first run, all three of the second";
  EXPECT_EQ(scheduler_.Find(newest().before[0])->state, JobState::kQueued);
}

TEST_F(SchedulesTest, MissedRunsAreMadeUpForAfterARestart) {
  ScheduleRecord record = Nightly();
  record.missed = MissedPolicy::kAll;
  record.overlap = OverlapPolicy::kQueue;
  LL_ASSERT_OK(Set(record));
  TickAt(At(4, 14));
  EXPECT_EQ(schedule().record.runs, 3);
  EXPECT_EQ(newest().fire_time, At(4, 2));
  EXPECT_EQ(newest().reason, "missed, made up for after 12h 00m");
  EXPECT_EQ(schedule().record.last_fire, At(4, 2));
}

TEST_F(SchedulesTest, LeftOutFiresAreRecordedTogether) {
  LL_ASSERT_OK(Set(Nightly()));
  TickAt(At(5, 14));
  ASSERT_EQ(schedule().runs.size(), 2u);
  const ScheduleRun& left_out = schedule().runs.at(1);
  EXPECT_TRUE(left_out.job.empty());
  EXPECT_EQ(left_out.fires, 3);
  EXPECT_EQ(left_out.first_fire_time, At(2, 2));
  EXPECT_EQ(left_out.fire_time, At(4, 2));
  EXPECT_FALSE(newest().job.empty());
}

TEST_F(SchedulesTest, ARefusedSubmitIsARecordNotAnEnd) {
  ScheduleRecord record = Nightly();
  record.overlap = OverlapPolicy::kQueue;
  SubmitEvent first{JobId("job-first")};
  first.payload = std::make_shared<JobPayload>();
  Step(first);
  record.spec.after = {JobId("job-first")};
  LL_ASSERT_OK(Set(record));
  Step(CancelEvent{JobId("job-first"), "ann", ""});
  TickAt(At(2, 2));
  EXPECT_TRUE(newest().job.empty());
  EXPECT_EQ(newest().reason, "refused: after: job-first is CANCELLED and will never succeed");
  EXPECT_EQ(schedule().record.next_fire, At(3, 2));
}

TEST_F(SchedulesTest, ARefusedRunCancelsNothing) {
  ScheduleRecord record = Nightly();
  record.overlap = OverlapPolicy::kCancelOld;
  record.spec.queue = "q";
  record.spec.gpus = 2;
  Step(SetQueueEvent{{.name = "q"}});
  LL_ASSERT_OK(Set(record));
  TickAt(At(2, 2));
  Step(SetQueueEvent{{.name = "q", .max_gpus = 1}});
  TickAt(At(3, 2));
  EXPECT_THAT(newest().reason, HasSubstr("refused: queue: the job needs 2 GPUs"));
  EXPECT_THAT(Step(RunScheduleEvent{"nightly", JobId("job-a"), "r1", "bob"}).reply.status,
              StatusIs(StatusCode::kFailedPrecondition, "queue"));
  EXPECT_EQ(StateOf(1), JobState::kQueued);
}

TEST_F(SchedulesTest, PauseAndResume) {
  LL_ASSERT_OK(Set(Nightly()));
  LL_ASSERT_OK(Step(PauseScheduleEvent{"nightly", true, "bob"}).reply.status);
  EXPECT_EQ(schedule().record.paused_by, "bob");
  TickAt(At(3, 12));
  EXPECT_EQ(schedule().record.runs, 0);
  LL_ASSERT_OK(Step(PauseScheduleEvent{"nightly", false, "bob"}).reply.status);
  EXPECT_EQ(schedule().record.next_fire, At(4, 2)) << "what passed while paused was not missed";
  TickAt(At(4, 2));
  EXPECT_EQ(schedule().record.runs, 1);
}

TEST_F(SchedulesTest, RunNow) {
  LL_ASSERT_OK(Set(Nightly()));
  const RunScheduleEvent now{"nightly", JobId("job-a"), "r1", "bob"};
  const Effects effects = Step(now);
  LL_ASSERT_OK(effects.reply.status);
  EXPECT_EQ(effects.reply.job, JobId("job-a"));
  EXPECT_TRUE(newest().manual);
  EXPECT_EQ(schedule().record.next_fire, At(2, 2));
  const RunScheduleEvent repeat{"nightly", JobId("job-b"), "r1", "bob"};
  const Reply repeated = Step(repeat).reply;
  EXPECT_EQ(repeated.job, JobId("job-a"));
  EXPECT_TRUE(repeated.existed);
  const RunScheduleEvent second{"nightly", JobId("job-c"), "r2", "bob"};
  EXPECT_THAT(Step(second).reply.status,
              StatusIs(StatusCode::kFailedPrecondition, "overlaps with job-a"));
  EXPECT_EQ(schedule().record.runs, 1);
}

TEST_F(SchedulesTest, ARunNowCountsAgainstTheTenantsJobs) {
  ScheduleRecord record = Nightly();
  record.overlap = OverlapPolicy::kQueue;
  LL_ASSERT_OK(Set(record));
  RunScheduleEvent now{"nightly", JobId("job-a"), "r1", "bob", {.unfinished_jobs = 1}};
  LL_ASSERT_OK(Step(now).reply.status);
  now.job = JobId("job-b");
  now.request_id = "r2";
  EXPECT_THAT(Step(now).reply.status, StatusIs(StatusCode::kResourceExhausted, "unfinished jobs"));
  TickAt(At(2, 2));
  EXPECT_FALSE(newest().job.empty()) << "the clock asks nobody";
}

// It is named in both ways, and the stricter one holds.
TEST_F(SchedulesTest, WhatMustSucceedMustSucceedAlsoWhereItsEndIsWaitedFor) {
  SubmitEvent first{JobId("job-first")};
  first.payload = std::make_shared<JobPayload>();
  SubmitEvent second = first;
  second.job = JobId("job-second");
  second.spec.after = second.spec.after_any = {first.job};
  Step(first);
  Step(second);
  Step(CancelEvent{first.job, "ann", ""});
  EXPECT_EQ(scheduler_.Find(second.job)->state, JobState::kFailed);
}

TEST_F(SchedulesTest, Refusals) {
  const auto refused = [this](auto change, const char* field, const char* text) {
    ScheduleRecord record = Nightly();
    change(record);
    const absl::Status status = Set(record);
    EXPECT_THAT(status, StatusIs(StatusCode::kInvalidArgument, text));
    EXPECT_EQ(ErrorField(status), field);
  };
  refused([](ScheduleRecord& r) { r.cron = "0 0 30 2 *"; }, "cron", "no month");
  refused([](ScheduleRecord& r) { r.cron = "0 25 * * *"; }, "cron", "hour 0-23");
  refused([](ScheduleRecord& r) { r.time_zone = "Europe/Atlantis"; }, "time_zone", "IANA");
  refused([](ScheduleRecord& r) { r.history_limit = 0; }, "history_limit", "1 to 100");
  refused([](ScheduleRecord& r) { r.start_within = absl::Seconds(5); }, "start_within", "a minute");
  refused([](ScheduleRecord& r) { r.tolerances.loss = -1; }, "tolerance_loss", "ratio");
  refused([](ScheduleRecord& r) { r.missed = MissedPolicy::kAll; }, "overlap",
          "queue or cancel_old");
  refused([](ScheduleRecord& r) { r.spec.gpus = 0; }, "gpus", "positive");
  ScheduleRecord record = Nightly();
  record.spec.queue = "nobody";
  EXPECT_THAT(Set(record), StatusIs(StatusCode::kNotFound, "there is no queue nobody"));
  EXPECT_TRUE(scheduler_.schedules().empty());
  for (const Event& event :
       {Event(DeleteScheduleEvent{"gone", "ann"}), Event(PauseScheduleEvent{"gone", true, "ann"}),
        Event(RunScheduleEvent{"gone", JobId("j"), "r", "ann"})}) {
    const absl::Status status = Step(event).reply.status;
    EXPECT_THAT(status, StatusIs(StatusCode::kNotFound, "there is no schedule gone"));
    EXPECT_EQ(ErrorField(status), "schedule");
  }
}

TEST_F(SchedulesTest, ANameIsTakenOnce) {
  LL_ASSERT_OK(Set(Nightly()));
  EXPECT_TRUE(Step(SetScheduleEvent{Nightly(), false}).reply.existed);
  ScheduleRecord other = Nightly();
  other.body_sha256 = "other";
  other.cron = "0 3 * * *";
  EXPECT_THAT(Set(other), StatusIs(StatusCode::kAlreadyExists, "another schedule nightly"));
  LL_ASSERT_OK(Set(other, /*replace=*/true));
  EXPECT_EQ(schedule().record.next_fire, At(2, 3));
}

TEST_F(SchedulesTest, AtMostAThousand) {
  for (size_t i = 0; i < kMaxSchedules; ++i) {
    ScheduleRecord record = Nightly();
    record.name = absl::StrCat("s", i);
    LL_ASSERT_OK(scheduler_.Step(SetScheduleEvent{record}, steady_, wall_).reply.status);
  }
  EXPECT_THAT(Set(Nightly()),
              StatusIs(StatusCode::kResourceExhausted, "1000 schedules, the limit"));
}

// How fast it was depends on how many slots there were.
TEST_F(SchedulesTest, TheSpeedOfAnElasticRunIsNotJudged) {
  ScheduleRecord record = Nightly();
  record.spec.max_gpus = 2;
  LL_ASSERT_OK(Set(record));
  for (int day : {2, 3}) {
    TickAt(At(day, 2));
    const int64_t number = newest().number;
    Finish(number);
    RunMeasures measures;
    measures.final_loss = 2;
    measures.tokens_per_second = day == 2 ? 1000 : 10;
    Step(JudgeRunEvent{"nightly", number, measures});
  }
  EXPECT_EQ(newest().judgement.result, RunResult::kSame);
}

TEST_F(SchedulesTest, VerdictsCompareWithTheLastGoodRun) {
  LL_ASSERT_OK(Set(Nightly()));
  const auto run = [this](int day, double loss, int code = 0) {
    TickAt(At(day, 2));
    const int64_t number = newest().number;
    EXPECT_EQ(scheduler_.to_judge().size(), 0u);
    Finish(number, code);
    EXPECT_EQ(scheduler_.to_judge().count({"nightly", number}), 1u);
    Judge(number, loss);
    EXPECT_EQ(scheduler_.to_judge().size(), 0u);
    return schedule().runs.at(number).judgement.result;
  };
  EXPECT_EQ(run(2, 2.0), RunResult::kBaseline);
  EXPECT_EQ(run(3, 2.5), RunResult::kRegressed);
  EXPECT_EQ(newest().judgement.diverging_step, 2);
  EXPECT_EQ(run(4, 2.01), RunResult::kSame) << "compared with the first, not with the bad one";
  EXPECT_EQ(schedule().record.reference, 3);
  EXPECT_EQ(run(5, 1.0, 20), RunResult::kFailed);
  EXPECT_EQ(schedule().record.reference, 3) << "a failed run is never the reference";
  EXPECT_EQ(run(6, 1.5), RunResult::kBetter);
  EXPECT_EQ(schedule().record.reference, 5);
  EXPECT_TRUE(schedule().runs.at(3).measures.curve.empty()) << "one curve a schedule";
  EXPECT_EQ(schedule().runs.at(5).measures.curve.size(), 2u);
  // A second word on the same run changes nothing.
  Judge(5, 9.0);
  EXPECT_EQ(schedule().runs.at(5).judgement.result, RunResult::kBetter);
  // Made anew: the next one is a baseline.
  LL_ASSERT_OK(Set(Nightly(), /*replace=*/true));
  EXPECT_EQ(run(7, 3.0), RunResult::kBaseline);
}

TEST_F(SchedulesTest, HistoryIsBoundedButKeepsTheReference) {
  ScheduleRecord record = Nightly();
  record.history_limit = 2;
  LL_ASSERT_OK(Set(record));
  TickAt(At(2, 2));
  Finish(1);
  Judge(1, 2.0);
  Step(CordonWorkerEvent{WorkerId("w1"), Cordon::kCordon, "op", ""});
  for (int day = 3; day < 8; ++day) {
    TickAt(At(day, 2));
    Step(CancelEvent{newest().job, "ann", ""});
    Judge(newest().number, 0);
    EXPECT_EQ(newest().judgement.result, RunResult::kUnknown);
  }
  std::vector<int64_t> numbers;
  for (const auto& [number, run] : schedule().runs) numbers.push_back(number);
  EXPECT_EQ(numbers, (std::vector<int64_t>{1, 5, 6}));
}

TEST_F(SchedulesTest, DeletingASchedulesLeavesItsJobs) {
  LL_ASSERT_OK(Set(Nightly()));
  TickAt(At(2, 2));
  const JobId job = newest().job;
  LL_ASSERT_OK(Step(DeleteScheduleEvent{"nightly", "ann"}).reply.status);
  EXPECT_TRUE(scheduler_.schedules().empty());
  EXPECT_EQ(scheduler_.Find(job)->state, JobState::kQueued);
  TickAt(At(3, 2));
  EXPECT_EQ(scheduler_.List({SIZE_MAX}).size(), 1u);
}

TEST_F(SchedulesTest, ADeadlineCountsFromTheFire) {
  ScheduleRecord record = Nightly();
  record.spec.deadline = wall_ + absl::Hours(5);
  LL_ASSERT_OK(Set(record));
  TickAt(At(2, 2));
  EXPECT_EQ(scheduler_.Find(newest().job)->spec.deadline, At(2, 7));
}

TEST_F(SchedulesTest, AZoneThatIsGoneStopsItsScheduleOnly) {
  StoredState stored;
  stored.schedules = {Nightly(), Nightly()};
  stored.schedules[0].time_zone = "Europe/Atlantis";
  stored.schedules[1].name = "other";
  for (ScheduleRecord& record : stored.schedules) record.next_fire = At(2, 2);
  scheduler_ = Scheduler::Recover(std::move(stored), {}, {steady_, wall_}).value();
  scheduler_.CheckInvariants();
  TickAt(At(2, 2));
  EXPECT_EQ(schedule().record.runs, 0);
  EXPECT_THAT(schedule().problem, HasSubstr("time_zone"));
  EXPECT_EQ(scheduler_.schedules().at("other").record.runs, 1);
}

}  // namespace
}  // namespace ll
