// Schedules and their runs as rows.
#include <cmath>
#include <limits>

#include "coordinator/store/codec.h"
#include "coordinator/store/codec_json.h"

namespace ll {

using namespace codec;

namespace {

// JSON has no NaN and no infinity; a text stands for them.
Json NumberToJson(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}
double NumberFromJson(const Json& json) {
  if (!json.is_string()) return json.get<double>();
  const double infinity = std::numeric_limits<double>::infinity();
  const std::string text = json.get<std::string>();
  return text == "inf" ? infinity : text == "-inf" ? -infinity : std::nan("");
}

Json ToJson(const RunMeasures& measures) {
  Json json = Json::object();
  if (measures.final_loss) json["final_loss"] = NumberToJson(*measures.final_loss);
  if (measures.perplexity) json["perplexity"] = NumberToJson(*measures.perplexity);
  if (measures.tokens_per_second)
    json["tokens_per_second"] = NumberToJson(*measures.tokens_per_second);
  if (measures.peak_bytes) json["peak_bytes"] = *measures.peak_bytes;
  for (const CurvePoint& point : measures.curve)
    json["curve"].push_back({point.step, NumberToJson(point.loss)});
  return json;
}

RunMeasures MeasuresFromJson(const Json& json) {
  RunMeasures measures;
  if (json.contains("final_loss")) measures.final_loss = NumberFromJson(json["final_loss"]);
  if (json.contains("perplexity")) measures.perplexity = NumberFromJson(json["perplexity"]);
  if (json.contains("tokens_per_second"))
    measures.tokens_per_second = NumberFromJson(json["tokens_per_second"]);
  if (json.contains("peak_bytes")) measures.peak_bytes = json["peak_bytes"].get<int64_t>();
  for (const Json& point : Get<Json>(json, "curve", Json::array()))
    measures.curve.push_back({point.at(0).get<int64_t>(), NumberFromJson(point.at(1))});
  return measures;
}

}  // namespace

std::string EncodeSchedule(const ScheduleRecord& schedule) {
  const Tolerances& t = schedule.tolerances;
  Json json = {{"name", schedule.name},
               {"user", schedule.user},
               {"body_sha256", schedule.body_sha256},
               {"cron", schedule.cron},
               {"time_zone", schedule.time_zone},
               {"spec", ToJson(schedule.spec)},
               {"missed", static_cast<int>(schedule.missed)},
               {"overlap", static_cast<int>(schedule.overlap)},
               {"history_limit", schedule.history_limit},
               {"tolerances",
                {{"loss", t.loss},
                 {"perplexity", t.perplexity},
                 {"tokens_per_second", t.tokens_per_second},
                 {"memory", t.memory}}},
               {"paused", schedule.paused},
               {"paused_by", schedule.paused_by},
               {"runs", schedule.runs},
               {"reference", schedule.reference}};
  for (const Submission& job : schedule.before) {
    const JobPayload& payload = *job.payload;
    json["before"].push_back({{"job_id", job.job.value()},
                              {"spec", ToJson(job.spec)},
                              {"payload", absl::Base64Escape(payload.spec)},
                              {"resolved", absl::Base64Escape(payload.resolved_spec)},
                              {"forecast", absl::Base64Escape(payload.forecast)}});
  }
  if (!schedule.tenant.empty()) json["tenant"] = schedule.tenant;
  if (!schedule.graph.empty()) json["graph"] = absl::Base64Escape(schedule.graph);
  Put(json, "start_within", schedule.start_within);
  Put(json, "created", schedule.created);
  Put(json, "next_fire", schedule.next_fire);
  Put(json, "last_fire", schedule.last_fire);
  return Dump(json);
}

absl::StatusOr<ScheduleRecord> DecodeSchedule(absl::string_view text) {
  return Decode<ScheduleRecord>(text, [](const Json& json) {
    ScheduleRecord schedule;
    schedule.name = Get<std::string>(json, "name");
    schedule.user = Get<std::string>(json, "user");
    schedule.tenant = Get<std::string>(json, "tenant");
    schedule.body_sha256 = Get<std::string>(json, "body_sha256");
    schedule.cron = Get<std::string>(json, "cron");
    schedule.time_zone = Get<std::string>(json, "time_zone");
    schedule.spec = SpecFromJson(Get<Json>(json, "spec", Json::object()));
    for (const Json& job : Get<Json>(json, "before", Json::array())) {
      const JobPayload payload{GetBytes(job, "payload"), GetBytes(job, "resolved"),
                               GetBytes(job, "forecast")};
      schedule.before.push_back({JobId(Get<std::string>(job, "job_id")),
                                 SpecFromJson(Get<Json>(job, "spec", Json::object())),
                                 std::make_shared<const JobPayload>(payload)});
    }
    schedule.graph = GetBytes(json, "graph");
    schedule.missed = GetEnum(json, "missed", MissedPolicy::kLast);
    schedule.overlap = GetEnum(json, "overlap", OverlapPolicy::kSkip);
    schedule.history_limit = Get<int>(json, "history_limit", schedule.history_limit);
    const Json tolerances = Get<Json>(json, "tolerances", Json::object());
    Tolerances& t = schedule.tolerances;
    t.loss = Get<double>(tolerances, "loss", t.loss);
    t.perplexity = Get<double>(tolerances, "perplexity", t.perplexity);
    t.tokens_per_second = Get<double>(tolerances, "tokens_per_second", t.tokens_per_second);
    t.memory = Get<double>(tolerances, "memory", t.memory);
    schedule.paused = Get<bool>(json, "paused");
    schedule.paused_by = Get<std::string>(json, "paused_by");
    schedule.runs = Get<int64_t>(json, "runs");
    schedule.reference = Get<int64_t>(json, "reference");
    schedule.start_within = GetDuration(json, "start_within");
    schedule.created = GetTime(json, "created");
    schedule.next_fire = GetTime(json, "next_fire");
    schedule.last_fire = GetTime(json, "last_fire");
    return schedule;
  });
}

std::string EncodeScheduleRun(const ScheduleRun& run) {
  Json json = {{"number", run.number},
               {"manual", run.manual},
               {"job_id", run.job.value()},
               {"reason", run.reason},
               {"fires", run.fires},
               {"fires_more", run.fires_more},
               {"result", static_cast<int>(run.judgement.result)},
               {"verdict", run.judgement.reason},
               {"measures", ToJson(run.measures)}};
  if (!run.before.empty()) json["before"] = Ids(run.before);
  if (run.judgement.diverging_step) json["diverging_step"] = *run.judgement.diverging_step;
  Put(json, "fire_time", run.fire_time);
  Put(json, "first_fire_time", run.first_fire_time);
  Put(json, "decided", run.decided);
  Put(json, "judged", run.judgement.time);
  return Dump(json);
}

absl::StatusOr<ScheduleRun> DecodeScheduleRun(absl::string_view text) {
  return Decode<ScheduleRun>(text, [](const Json& json) {
    ScheduleRun run;
    run.number = Get<int64_t>(json, "number");
    run.manual = Get<bool>(json, "manual");
    run.job = JobId(Get<std::string>(json, "job_id"));
    run.before = GetIds(json, "before");
    run.reason = Get<std::string>(json, "reason");
    run.fires = Get<int64_t>(json, "fires", 1);
    run.fires_more = Get<bool>(json, "fires_more");
    run.fire_time = GetTime(json, "fire_time");
    run.first_fire_time = GetTime(json, "first_fire_time");
    run.decided = GetTime(json, "decided");
    run.judgement.result = GetEnum(json, "result", RunResult::kPending);
    run.judgement.reason = Get<std::string>(json, "verdict");
    run.judgement.time = GetTime(json, "judged");
    if (json.contains("diverging_step"))
      run.judgement.diverging_step = Get<int64_t>(json, "diverging_step");
    run.measures = MeasuresFromJson(Get<Json>(json, "measures", Json::object()));
    return run;
  });
}

}  // namespace ll
