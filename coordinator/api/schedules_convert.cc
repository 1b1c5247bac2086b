#include "coordinator/api/schedules_convert.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "coordinator/api/convert.h"

namespace ll {
namespace {

constexpr std::pair<const char*, MissedPolicy> kMissed[] = {
    {"last", MissedPolicy::kLast}, {"skip", MissedPolicy::kSkip}, {"all", MissedPolicy::kAll}};
constexpr std::pair<const char*, OverlapPolicy> kOverlap[] = {
    {"skip", OverlapPolicy::kSkip},
    {"queue", OverlapPolicy::kQueue},
    {"cancel_old", OverlapPolicy::kCancelOld}};

// An empty word is the first one.
template <typename Words, typename Value>
absl::Status ReadWord(const char* field, const std::string& word, const Words& words,
                      Value& value) {
  value = words[0].second;
  if (word.empty()) return absl::OkStatus();
  std::vector<std::string> known;
  for (const auto& [name, meaning] : words) {
    if (word == name) {
      value = meaning;
      return absl::OkStatus();
    }
    known.push_back(name);
  }
  return MakeFieldError({field, absl::StrCat("one of ", absl::StrJoin(known, ", ")),
                         absl::StrCat("\"", OneLine(word.substr(0, 80)), "\"")});
}

template <typename Words, typename Value>
const char* WordOf(const Words& words, Value value) {
  for (const auto& [name, meaning] : words) {
    if (meaning == value) return name;
  }
  return "";
}

void FillRun(const ScheduleRun& run, const Scheduler& view, v1::ScheduleRun* out) {
  out->set_number(run.number);
  *out->mutable_fire_time() = ToTimestamp(run.fire_time);
  if (run.fires > 1) *out->mutable_first_fire_time() = ToTimestamp(run.first_fire_time);
  out->set_fires(run.fires);
  out->set_fires_more(run.fires_more);
  out->set_manual(run.manual);
  out->set_job_id(run.job.value());
  for (const JobId& id : run.before) out->add_before_job_ids(id.value());
  const Job* job = run.job.empty() ? nullptr : view.Find(run.job);
  if (job != nullptr) out->set_state(static_cast<v1::JobState>(job->state));
  out->set_reason(run.reason);
  out->set_verdict(static_cast<v1::ScheduleRun::Verdict>(run.judgement.result));
  out->set_verdict_reason(run.judgement.reason);
  if (run.judgement.diverging_step) out->set_diverging_step(*run.judgement.diverging_step);
  const RunMeasures& measures = run.measures;
  if (measures.final_loss) out->set_final_loss(*measures.final_loss);
  if (measures.perplexity) out->set_perplexity(*measures.perplexity);
  if (measures.tokens_per_second) out->set_tokens_per_second(*measures.tokens_per_second);
  if (measures.peak_bytes) out->set_peak_bytes(*measures.peak_bytes);
}

}  // namespace

absl::StatusOr<ScheduleRecord> SettingsFromProto(const v1::Schedule& schedule) {
  ScheduleRecord out;
  out.name = schedule.name();
  out.cron = schedule.cron();
  out.time_zone = schedule.time_zone().empty() ? "UTC" : schedule.time_zone();
  LL_RETURN_IF_ERROR(ReadWord("missed", schedule.missed(), kMissed, out.missed));
  LL_RETURN_IF_ERROR(ReadWord("overlap", schedule.overlap(), kOverlap, out.overlap));
  if (schedule.has_start_within()) out.start_within = absl::Seconds(schedule.start_within());
  if (schedule.has_history_limit()) {
    const int64_t limit = schedule.history_limit();
    if (limit < 1 || limit > kMaxHistoryLimit) {
      return MakeFieldError(
          {"history_limit", absl::StrCat("1 to ", kMaxHistoryLimit), absl::StrCat(limit)});
    }
    out.history_limit = static_cast<int>(limit);
  }
  const v1::Tolerances& tolerances = schedule.tolerances();
  Tolerances& t = out.tolerances;
  if (tolerances.has_loss()) t.loss = tolerances.loss();
  if (tolerances.has_perplexity()) t.perplexity = tolerances.perplexity();
  if (tolerances.has_tokens_per_second()) t.tokens_per_second = tolerances.tokens_per_second();
  if (tolerances.has_memory()) t.memory = tolerances.memory();
  return out;
}

v1::Schedule ScheduleToProto(const Schedule& schedule, const Scheduler& view,
                             ScheduleDetail detail) {
  const ScheduleRecord& record = schedule.record;
  v1::Schedule out;
  out.set_name(record.name);
  out.set_cron(record.cron);
  out.set_time_zone(record.time_zone);
  out.set_missed(WordOf(kMissed, record.missed));
  out.set_overlap(WordOf(kOverlap, record.overlap));
  if (record.start_within != absl::InfiniteDuration())
    out.set_start_within(absl::ToInt64Seconds(record.start_within));
  out.set_history_limit(record.history_limit);
  v1::Tolerances* t = out.mutable_tolerances();
  t->set_loss(record.tolerances.loss);
  t->set_perplexity(record.tolerances.perplexity);
  t->set_tokens_per_second(record.tolerances.tokens_per_second);
  t->set_memory(record.tolerances.memory);
  out.set_user(record.user);
  out.set_paused(record.paused);
  out.set_paused_by(record.paused_by);
  *out.mutable_created() = ToTimestamp(record.created);
  if (!record.paused && schedule.problem.empty())
    *out.mutable_next_fire() = ToTimestamp(record.next_fire);
  if (record.last_fire != absl::InfinitePast())
    *out.mutable_last_fire() = ToTimestamp(record.last_fire);
  out.set_problem(schedule.problem);
  for (auto run = schedule.runs.rbegin(); run != schedule.runs.rend(); ++run) {
    if (!out.has_last_run() && run->second.judgement.result != RunResult::kPending)
      FillRun(run->second, view, out.mutable_last_run());
    if (detail == ScheduleDetail::kRuns) FillRun(run->second, view, out.add_runs());
  }
  if (detail == ScheduleDetail::kRuns)
    out.mutable_spec()->ParseFromString(record.graph.empty() ? record.payload->spec : record.graph);
  return out;
}

}  // namespace ll
