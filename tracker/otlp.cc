#include "tracker/otlp.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/sha256.h"
#include "base/status_macros.h"

namespace ll {
namespace {

// An id of zeros means none; a hash is none but with a chance that nobody meets.
std::string TraceId(const TrackedJob& job) {
  return Sha256Hex(absl::StrCat("trace ", job.id)).substr(0, 32);
}
std::string SpanId(const TrackedJob& job, const std::string& what) {
  return Sha256Hex(absl::StrCat("span ", job.id, " ", what)).substr(0, 16);
}
std::string AttemptName(int64_t epoch) { return absl::StrCat("attempt ", epoch); }

Span MakeSpan(const TrackedJob& job, const std::string& what, const std::string& name,
              const std::string& parent, absl::Time start, absl::Time end) {
  Span span;
  span.trace_id = TraceId(job);
  span.id = SpanId(job, what);
  if (!parent.empty()) span.parent_id = SpanId(job, parent);
  span.name = name;
  // Clocks of two hosts may differ; a span that ends before it began is refused.
  span.start = std::min(start, end);
  span.end = end;
  span.texts = {{"ll.job_id", job.id}};
  return span;
}

bool Waits(const std::string& state) {
  return state == "BLOCKED" || state == "QUEUED" || state == "RETRYING" || state == "PAUSED";
}

nlohmann::ordered_json Attribute(const std::string& key, nlohmann::ordered_json value) {
  return {{"key", key}, {"value", std::move(value)}};
}

}  // namespace

void TraceBuilder::TakeState(const TrackerEvent& event, std::vector<Span>& out) {
  const TrackedJob& job = *event.job;
  Open& open = open_[job.id];
  const bool ended = IsEndState(event.state), waits = Waits(event.state);
  if (open.waits_since != absl::InfinitePast() && !waits) {
    const std::string what = absl::StrCat("schedule ", open.waits);
    out.push_back(MakeSpan(job, what, "schedule", "job", open.waits_since, event.time));
    open.waits_since = absl::InfinitePast();
  }
  if (waits && open.waits_since == absl::InfinitePast()) {
    ++open.waits;
    open.waits_since = event.time;
  }
  if (event.state == "STARTING") {
    open.attempt_began = event.time;
    open.epoch = event.epoch;
    open.launched = false;
  }
  const bool runs = open.attempt_began != absl::InfinitePast();
  if (runs && !open.launched && event.state != "STARTING") {
    open.launched = true;
    Span launch = MakeSpan(job, absl::StrCat("launch ", open.epoch), "launch",
                           AttemptName(open.epoch), open.attempt_began, event.time);
    if (event.state != "RUNNING") launch.error = event.reason;
    out.push_back(std::move(launch));
  }
  if (runs && (waits || ended)) {
    Span attempt = MakeSpan(job, AttemptName(open.epoch), AttemptName(open.epoch), "job",
                            open.attempt_began, event.time);
    attempt.texts.emplace_back("ll.ended_as", event.state);
    attempt.texts.emplace_back("ll.reason", event.reason);
    if (event.state == "FAILED" || event.state == "RETRYING") attempt.error = event.reason;
    out.push_back(std::move(attempt));
    open.attempt_began = absl::InfinitePast();
  }
  if (!ended) return;
  Span whole = MakeSpan(job, "job", "job", "", job.submitted, event.time);
  for (const auto& [key, value] :
       {std::pair("ll.name", job.name), std::pair("ll.user", job.user),
        std::pair("ll.queue", job.queue), std::pair("ll.kind", job.kind),
        std::pair("ll.ended_as", event.state), std::pair("ll.reason", event.reason)}) {
    if (!value.empty()) whole.texts.emplace_back(key, value);
  }
  if (event.state == "FAILED") whole.error = event.reason;
  out.push_back(std::move(whole));
  open_.erase(job.id);
}

std::vector<Span> TraceBuilder::Take(const TrackerEvent& event) {
  std::vector<Span> out;
  if (event.kind == TrackerEvent::Kind::kState) {
    TakeState(event, out);
  } else if (event.kind == TrackerEvent::Kind::kStep) {
    Span step = MakeSpan(*event.job, absl::StrCat("step ", event.epoch, " ", event.step), "step",
                         AttemptName(event.epoch), event.time - absl::Seconds(event.step_seconds),
                         event.time);
    step.numbers = {{"ll.step", static_cast<double>(event.step)}};
    for (const auto& [name, value] : event.values)
      step.numbers.emplace_back(absl::StrCat("ll.", name), value);
    for (const auto& [name, seconds] : event.phases)
      step.numbers.emplace_back(absl::StrCat("ll.phase_seconds.", name), seconds);
    out.push_back(std::move(step));
  }
  if (event.replayed) out.clear();
  return out;
}

nlohmann::ordered_json OtlpJson(const std::vector<Span>& spans, const std::string& version) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Span& span : spans) {
    nlohmann::ordered_json one = {{"traceId", span.trace_id}, {"spanId", span.id}};
    if (!span.parent_id.empty()) one["parentSpanId"] = span.parent_id;
    one["name"] = span.name;
    one["kind"] = 1;  // internal
    // 64-bit integers are strings in JSON as Protobuf writes it.
    one["startTimeUnixNano"] = absl::StrCat(absl::ToUnixNanos(span.start));
    one["endTimeUnixNano"] = absl::StrCat(absl::ToUnixNanos(span.end));
    nlohmann::ordered_json attributes = nlohmann::ordered_json::array();
    for (const auto& [key, value] : span.texts)
      attributes.push_back(Attribute(key, {{"stringValue", value}}));
    for (const auto& [key, value] : span.numbers) {
      // JSON has no number that is not finite.
      attributes.push_back(std::isfinite(value)
                               ? Attribute(key, {{"doubleValue", value}})
                               : Attribute(key, {{"stringValue", absl::StrCat(value)}}));
    }
    one["attributes"] = attributes;
    if (span.error.empty()) {
      one["status"] = {{"code", 1}};
    } else {
      one["status"] = {{"message", span.error}, {"code", 2}};
    }
    list.push_back(one);
  }
  using Json = nlohmann::ordered_json;
  Json resource = Json::object();
  resource["attributes"] =
      Json::array({Attribute("service.name", {{"stringValue", "ll-coordinator"}}),
                   Attribute("service.version", {{"stringValue", version}})});
  Json scope = Json::object();
  scope["scope"] = {{"name", "ll"}, {"version", version}};
  scope["spans"] = std::move(list);
  Json of_resource = Json::object();
  of_resource["resource"] = std::move(resource);
  of_resource["scopeSpans"] = Json::array({std::move(scope)});
  Json body = Json::object();
  body["resourceSpans"] = Json::array({std::move(of_resource)});
  return body;
}

absl::Status OtlpTracker::Take(const std::vector<TrackerEvent>& batch) {
  // A batch that comes again has gone through the builder already.
  if (unsent_.empty()) {
    for (const TrackerEvent& event : batch) {
      for (Span& span : builder_.Take(event)) unsent_.push_back(std::move(span));
    }
  }
  if (unsent_.empty()) return absl::OkStatus();
  const std::string body =
      OtlpJson(unsent_, version_)
          .dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  const absl::Status status = Exchange(target_, "POST", "/v1/traces", body).status();
  if (!absl::IsUnavailable(status)) unsent_.clear();
  return status;
}

}  // namespace ll
