#include "coordinator/store/codec.h"

#include <limits>

#include "base/status_matchers.h"

namespace ll {
namespace {

Job FullJob() {
  Job job;
  job.id = JobId("job-1");
  job.sequence = 7;
  job.request_id = "r";
  job.user = "ann";
  job.spec.name = "nightly";
  job.spec.gpus = 2;
  job.spec.priority = -3;
  job.spec.after = {JobId("job-0")};
  job.spec.max_runtime = absl::Hours(2);
  job.spec.slot_kinds = {"cpu"};
  job.spec.hosts = {"h1"};
  job.spec.after_any = {JobId("job-00")};
  job.spec.forecast_duration = absl::Minutes(90);
  job.spec.min_runtime = absl::Seconds(7);
  job.spec.deadline = absl::FromUnixSeconds(1'800'000'000);
  job.spec.source = JobId("job-0");
  job.spec.labels = {{"graph", "long"}};
  job.spec.max_gpus = 8;
  job.spec.batch_rows = 64;
  job.spec.copies_checkpoints = true;
  job.spec.kinds_named = true;
  job.spec.other_kinds = {"H100"};
  job.source_checkpoint = Checkpoint{50, 1, "/jobs/s", "def", "w2", "h2"};
  job.preemptions = 2;
  job.preempted_by = JobId("job-5");
  job.claims = true;
  job.resizes = 3;
  job.resize_to = 4;
  job.spec.required_slot_bytes = 5'000'000'000;
  job.submitted = absl::FromUnixNanos(1'700'000'000'123'456'789);
  job.state = JobState::kFinishing;
  job.reason = "rank 1 \xff broke";  // not UTF-8
  job.epoch = 4;
  job.retries = 2;
  job.stuck_attempts = 1;
  job.waiting_for = {JobId("job-0")};
  job.transitions = 11;
  job.started = absl::FromUnixSeconds(1'700'000'100);
  job.run_time = absl::Milliseconds(1500);
  job.forecast_done = absl::Milliseconds(2500);
  job.newest_checkpoint = Checkpoint{100, 3, "/jobs/x", "abc", "w1", "h1"};
  Attempt attempt;
  attempt.epoch = 4;
  attempt.nonce = "n";
  attempt.rendezvous = "h:1";
  attempt.resume_from = job.newest_checkpoint;
  attempt.report_sequence[WorkerId("w1")] = 9;
  attempt.stop = StopKind::kKill;
  attempt.stop_reason = "why";
  attempt.slot_kind = "H100";
  attempt.forced = Failure{FailureClass::kCapacity, "late"};
  attempt.ranks.push_back({WorkerId("w1"), 0, "i1", RankPhase::kTraining});
  RankExit exit;
  exit.code = 40;
  exit.signal = 6;
  exit.ordered = exit.lost = exit.reported = true;
  exit.failure_class = FailureClass::kOutOfMemory;
  exit.message = "bad_alloc";
  exit.caused_by = 1;
  attempt.ranks.push_back({WorkerId("w2"), 3, "i2", RankPhase::kExited, exit});
  job.attempt = attempt;
  return job;
}

// A field that is forgotten in one direction shows as a difference between the two texts only if it
// differs from its default, so FullJob sets every one, and what matters most is compared by name.
TEST(Codec, AJobComesBackAsItWas) {
  const std::string text = EncodeJob(FullJob());
  LL_ASSERT_OK_AND_ASSIGN(const Job job, DecodeJob(text));
  EXPECT_EQ(EncodeJob(job), text);
  EXPECT_EQ(job.submitted, FullJob().submitted);
  EXPECT_EQ(job.finished, absl::InfinitePast());
  EXPECT_EQ(job.spec.max_runtime, absl::Hours(2));
  EXPECT_EQ(job.spec.ttl_after_finished, absl::InfiniteDuration());
  EXPECT_EQ(job.spec.after_any, FullJob().spec.after_any);
  EXPECT_EQ(job.spec.forecast_duration, absl::Minutes(90));
  EXPECT_EQ(job.spec.min_runtime, absl::Seconds(7));
  EXPECT_EQ(job.spec.deadline, FullJob().spec.deadline);
  EXPECT_EQ(job.spec.source, JobId("job-0"));
  EXPECT_EQ(job.spec.labels, FullJob().spec.labels);
  ASSERT_TRUE(job.source_checkpoint.has_value());
  EXPECT_EQ(job.source_checkpoint->path, "/jobs/s");
  EXPECT_EQ(job.source_checkpoint->host, "h2");
  EXPECT_EQ(job.preemptions, 2);
  EXPECT_EQ(job.preempted_by, JobId("job-5"));
  EXPECT_TRUE(job.claims);
  EXPECT_EQ(job.spec.max_gpus, 8);
  EXPECT_EQ(job.spec.batch_rows, 64);
  EXPECT_TRUE(job.spec.copies_checkpoints);
  EXPECT_EQ(job.resizes, 3);
  EXPECT_EQ(job.resize_to, 4);
  EXPECT_EQ(job.forecast_done, absl::Milliseconds(2500));
  ASSERT_TRUE(job.attempt.has_value());
  EXPECT_EQ(job.attempt->slot_kind, "H100");
  EXPECT_FALSE(job.attempt->over());
  EXPECT_EQ(job.attempt->stop, StopKind::kKill);
  EXPECT_EQ(job.attempt->report_sequence.at(WorkerId("w1")), 9);
  EXPECT_TRUE(job.attempt->ranks[1].exit.lost);
  EXPECT_TRUE(job.attempt->ranks[1].exit.reported);
  EXPECT_EQ(job.attempt->ranks[1].exit.caused_by, 1);
  EXPECT_EQ(job.attempt->ranks[1].exit.failure_class, FailureClass::kOutOfMemory);
}

TEST(Codec, UnknownKeysAreIgnoredAndMissingOnesTakeDefaults) {
  LL_ASSERT_OK_AND_ASSIGN(const Job job,
                          DecodeJob(R"({"job_id": "job-9", "from_the_future": [1]})"));
  EXPECT_EQ(job.id, JobId("job-9"));
  EXPECT_EQ(job.spec.gpus, 1);
  EXPECT_EQ(job.state, JobState::kQueued);
  EXPECT_EQ(job.spec.forecast_duration, absl::InfiniteDuration());
  EXPECT_EQ(job.spec.min_runtime, std::nullopt);
  EXPECT_EQ(job.spec.deadline, absl::InfiniteFuture());
  EXPECT_FALSE(job.claims);
}

// Of a version that knew no elastic gangs.
TEST(Codec, AnOldJobHasOneSize) {
  LL_ASSERT_OK_AND_ASSIGN(
      const Job job,
      DecodeJob(R"({"job_id": "job-9", "spec": {"gpus": 4}, "run_time": 5000000000})"));
  EXPECT_EQ(job.spec.gpus, 4);
  EXPECT_EQ(job.spec.max_gpus, 0);
  EXPECT_EQ(job.resize_to, 0);
  EXPECT_EQ(job.forecast_done, absl::Seconds(5));
}

TEST(Codec, DamagedTextIsAnErrorNotACrash) {
  EXPECT_THAT(DecodeJob("{"), StatusIs(absl::StatusCode::kDataLoss, "cannot be read"));
  EXPECT_THAT(DecodeJob(R"({"sequence": "seven"})"),
              StatusIs(absl::StatusCode::kDataLoss, "cannot be read"));
  EXPECT_THAT(DecodeWorker("[]x"), StatusIs(absl::StatusCode::kDataLoss, "cannot be read"));
}

TEST(Codec, AWorkerComesBackAsItWas) {
  Worker worker;
  worker.name = WorkerId("w1");
  worker.incarnation = "i";
  worker.host = "h";
  worker.fabric_host = "10.0.0.1";
  worker.version = "0.1";
  worker.http_address = "h:7072";
  worker.slots = {{0, "cpu", 8}, {1, "H100", 80}};
  worker.last_seen = absl::FromUnixSeconds(5);
  worker.declared_dead = true;
  worker.nvlink_domain = "d1";
  worker.rack = "r1";
  worker.cordoned = worker.draining = true;
  worker.cordon_reason = "drained by op";
  LL_ASSERT_OK_AND_ASSIGN(const Worker back, DecodeWorker(EncodeWorker(worker)));
  EXPECT_EQ(back.slots, worker.slots);
  EXPECT_EQ(EncodeWorker(back), EncodeWorker(worker));
  EXPECT_EQ(back.last_seen, worker.last_seen);
  EXPECT_EQ(back.rack, "r1");
  EXPECT_TRUE(back.cordoned && back.draining);
}

TEST(Codec, AQueueComesBackAsItWas) {
  QueueRecord queue;
  queue.name = "research";
  queue.weight = 0.1;
  queue.quota_gpus = 0;
  queue.max_jobs = 5;
  queue.used = {{"H100", 1.0 / 3}};
  LL_ASSERT_OK_AND_ASSIGN(const QueueRecord back, DecodeQueue(EncodeQueue(queue)));
  EXPECT_EQ(EncodeQueue(back), EncodeQueue(queue));
  EXPECT_EQ(back.weight, 0.1);
  EXPECT_EQ(back.quota_gpus, 0);
  EXPECT_EQ(back.max_gpus, std::nullopt);
  EXPECT_EQ(back.used, queue.used);  // to the last bit: a restart changes no order
}

TEST(Codec, AScheduleComesBackAsItWas) {
  ScheduleRecord schedule;
  schedule.name = "nightly";
  schedule.user = "ann";
  schedule.body_sha256 = "abc";
  schedule.cron = "0 2 * * *";
  schedule.time_zone = "Europe/Berlin";
  schedule.spec = FullJob().spec;
  const JobPayload payload{std::string("\0\xff", 2), "resolved", ""};
  schedule.before = {{JobId("job-1"), FullJob().spec, std::make_shared<JobPayload>(payload)}};
  schedule.graph = "\xfe graph";
  schedule.missed = MissedPolicy::kAll;
  schedule.overlap = OverlapPolicy::kCancelOld;
  schedule.start_within = absl::Hours(3);
  schedule.history_limit = 7;
  schedule.tolerances = {0.1, 0.2, 0.3, 0.4};
  schedule.paused = true;
  schedule.paused_by = "bob";
  schedule.created = absl::FromUnixSeconds(1);
  schedule.next_fire = absl::FromUnixSeconds(2);
  schedule.last_fire = absl::FromUnixSeconds(3);
  schedule.runs = 9;
  schedule.reference = 8;
  const std::string text = EncodeSchedule(schedule);
  LL_ASSERT_OK_AND_ASSIGN(const ScheduleRecord back, DecodeSchedule(text));
  EXPECT_EQ(EncodeSchedule(back), text);
  EXPECT_EQ(back.spec.min_runtime, schedule.spec.min_runtime);
  ASSERT_EQ(back.before.size(), 1u);
  EXPECT_EQ(back.before[0].job, JobId("job-1"));
  EXPECT_EQ(back.before[0].spec.after, schedule.spec.after);
  EXPECT_EQ(back.before[0].payload->spec, payload.spec);
  EXPECT_EQ(back.before[0].payload->resolved_spec, "resolved");
  EXPECT_EQ(back.graph, schedule.graph);
  EXPECT_EQ(back.missed, MissedPolicy::kAll);
  EXPECT_EQ(back.overlap, OverlapPolicy::kCancelOld);
  EXPECT_EQ(back.start_within, absl::Hours(3));
  EXPECT_EQ(back.tolerances.memory, 0.4);
  EXPECT_EQ(back.next_fire, schedule.next_fire);
  EXPECT_EQ(back.reference, 8);
  LL_ASSERT_OK_AND_ASSIGN(const ScheduleRecord plain, DecodeSchedule("{}"));
  EXPECT_EQ(plain.start_within, absl::InfiniteDuration());
  EXPECT_EQ(plain.history_limit, 30);
}

TEST(Codec, AScheduleRunComesBackAsItWas) {
  ScheduleRun run;
  run.number = 3;
  run.fire_time = absl::FromUnixSeconds(10);
  run.first_fire_time = absl::FromUnixSeconds(9);
  run.decided = absl::FromUnixSeconds(11);
  run.manual = true;
  run.job = JobId("job-1");
  run.before = {JobId("job-2"), JobId("job-3")};
  run.reason = "by ann";
  run.fires = 5;
  run.fires_more = true;
  run.judgement = {RunResult::kRegressed, "worse", 120, absl::FromUnixSeconds(12)};
  run.measures.final_loss = std::numeric_limits<double>::infinity();
  run.measures.perplexity = 1.0 / 3;
  run.measures.peak_bytes = 7;
  run.measures.curve = {{1, 2.5}, {4, 1.0 / 7}};
  const std::string text = EncodeScheduleRun(run);
  LL_ASSERT_OK_AND_ASSIGN(const ScheduleRun back, DecodeScheduleRun(text));
  EXPECT_EQ(EncodeScheduleRun(back), text);
  EXPECT_EQ(back.measures, run.measures);  // to the last bit
  EXPECT_EQ(back.before, run.before);
  EXPECT_EQ(back.judgement.diverging_step, 120);
  EXPECT_EQ(back.judgement.time, run.judgement.time);
  EXPECT_EQ(back.first_fire_time, run.first_fire_time);
}

}  // namespace
}  // namespace ll
