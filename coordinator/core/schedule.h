// Schedules: jobs that are submitted again and again, by the clock. What is known of a schedule and
// of its runs; docs/schedules.md says what the policies mean to a user.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "base/cron.h"
#include "coordinator/core/types.h"
#include "coordinator/core/verdict.h"

namespace ll {

// What becomes of fire times that passed while the coordinator was away.
enum class MissedPolicy {
  kLast,  // the newest one is made up for
  kSkip,  // none
  kAll,   // each of the newest kMaxMadeUpFor
};
// What becomes of a fire while an earlier run has not ended.
enum class OverlapPolicy {
  kSkip,       // it is left out
  kQueue,      // its job waits until the earlier ones have ended
  kCancelOld,  // the earlier ones are cancelled, and its job waits for their end
};

inline constexpr size_t kMaxSchedules = 1000;
inline constexpr int kMaxHistoryLimit = 100;
// Runs of one schedule that have not ended; further fires are left out.
inline constexpr int kMaxUnfinishedRuns = 100;

// One fire, or several that were left out for the same reason.
struct ScheduleRun {
  int64_t number = 0;         // counts from 1 within the schedule
  absl::Time fire_time;       // the time by the rule; of several: the newest
  absl::Time decided;         // when the coordinator fired it or left it out
  bool manual = false;        // by a user's word, at `fire_time`
  JobId job;                  // empty: left out; of several jobs the last, which needs all others
  std::vector<JobId> before;  // of several: the others, in order
  std::string reason;         // why it was left out; of a run made up for, how late it was
  int64_t fires = 1;  // times that this record stands for; at least so many with `fires_more`
  bool fires_more = false;
  absl::Time first_fire_time;  // the oldest of them
  Judgement judgement;         // kPending until the job has ended and was judged
  // Of a run that was judged. The curve is kept for the schedule's reference only.
  RunMeasures measures;
};

// All jobs of a run, in order.
inline std::vector<JobId> JobIdsOf(const ScheduleRun& run) {
  std::vector<JobId> jobs = run.before;
  if (!run.job.empty()) jobs.push_back(run.job);
  return jobs;
}

// Everything persisted of a schedule but its runs.
struct ScheduleRecord {
  std::string name;         // QualifiedName (access.h)
  std::string user;         // the jobs are this user's
  std::string tenant;       // and this tenant's
  std::string body_sha256;  // of the request that made it
  std::string cron;
  std::string time_zone;  // IANA name
  CoreSpec spec;          // of each job; a deadline counts from `created`, as if submitted then
  std::shared_ptr<const JobPayload> payload;
  // Of a training in stages: the jobs in front of that one, in order. Their ids stand for those
  // that a fire gives, wherever a spec names them.
  std::vector<Submission> before;
  std::string graph;  // of a training in stages: bytes that the core never reads; else empty
  MissedPolicy missed = MissedPolicy::kLast;
  OverlapPolicy overlap = OverlapPolicy::kSkip;
  absl::Duration start_within = absl::InfiniteDuration();  // a fire that is later is left out
  int history_limit = 30;                                  // records of runs that are kept
  Tolerances tolerances;
  // The rest is the scheduler's.
  bool paused = false;
  std::string paused_by;
  absl::Time created;
  absl::Time next_fire;  // by the rule; only grows until the schedule is made anew
  absl::Time last_fire = absl::InfinitePast();  // the newest fire time that was decided on
  int64_t runs = 0;                             // numbers given so far
  int64_t reference = 0;  // the run that the next one is compared with; 0: none
};

struct Schedule {
  ScheduleRecord record;
  std::map<int64_t, ScheduleRun> runs;  // by number: the newest, unfinished ones and the reference
  // Derived.
  std::optional<Cron> rule;  // with `zone`; none: `problem` says why it cannot fire
  absl::TimeZone zone;
  std::string problem;
};

using RunKey = std::pair<std::string, int64_t>;  // schedule, number

// All schedules, with the indexes that the scheduler needs.
struct ScheduleTable {
  std::map<std::string, Schedule> by_name;
  std::set<std::pair<absl::Time, std::string>> due;  // (next_fire, name) of those that can fire
  absl::flat_hash_map<JobId, RunKey> run_of;         // not judged; never iterated
  std::set<RunKey> to_judge;                         // whose jobs have ended
};

}  // namespace ll
