#include "coordinator/webhooks/notifier.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "coordinator/core/job_state.h"
#include "coordinator/core/scheduler.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {
constexpr absl::Duration kLook = absl::Milliseconds(500);
constexpr size_t kMostReason = 2000;

std::string IdOf(absl::string_view job, int64_t number) { return absl::StrCat(job, ".", number); }
}  // namespace

WebhookMessage MessageOf(const Job& job, int64_t number, const Transition& transition) {
  const std::string id = IdOf(job.id.value(), number);
  const std::string state(JobStateName(transition.state));
  nlohmann::ordered_json body;
  body["id"] = id;
  body["type"] = absl::StrCat("job.", absl::AsciiStrToLower(state));
  body["timestamp"] =
      absl::FormatTime("%Y-%m-%d%ET%H:%M:%E6SZ", transition.time, absl::UTCTimeZone());
  body["data"] = {{"job_id", job.id.value()},
                  {"name", job.spec.name},
                  {"user", job.user},
                  {"tenant", job.tenant},
                  {"state", state},
                  {"reason", transition.reason.substr(0, kMostReason)},
                  {"epoch", transition.epoch},
                  {"number", number}};
  return {id, body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)};
}

// ---- one endpoint

Mailbox::Mailbox(WebhookEndpoint endpoint, const NotifierOptions& options, DeliveryLog& log,
                 Clock& clock, std::function<bool()> leads, prometheus::Registry& registry)
    : endpoint_(std::move(endpoint)),
      options_(options),
      log_(log),
      clock_(clock),
      leads_(std::move(leads)),
      deliveries_(CounterOf(registry, "ll_webhook_deliveries_total",
                            "Webhooks sent, by endpoint and by what became of them: delivered, "
                            "failed (tried again), dead (given up).")),
      waiting_gauge_(
          GaugeOf(registry, "ll_webhook_waiting", "Webhooks that an endpoint has not taken yet.")
              .Add({{"endpoint", endpoint_.name}})),
      oldest_gauge_(GaugeOf(registry, "ll_webhook_oldest_waiting_seconds",
                            "Age of the oldest webhook that an endpoint has not taken yet.")
                        .Add({{"endpoint", endpoint_.name}})),
      thread_([this] { Run(); }) {
  // There from the start: a first dead letter is to be seen as an increase.
  for (const char* result : {"delivered", "failed", "dead"})
    deliveries_.Add({{"endpoint", endpoint_.name}, {"result", result}});
}

Mailbox::~Mailbox() {
  {
    absl::MutexLock lock(&mu_);
    stop_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

void Mailbox::Restart(absl::Time since, std::map<std::string, int64_t> done,
                      const std::vector<KeptWebhook>& kept) {
  absl::MutexLock lock(&mu_);
  queues_.clear();
  for (const KeptWebhook& k : kept)
    queues_[k.job].waiting.push_back({k.number, k.time, {IdOf(k.job, k.number), k.body}});
  waiting_ = kept.size();
  since_ = since;
  known_ = std::move(done);
  active_ = true;
  changed_.SignalAll();
}

void Mailbox::Pause() {
  absl::MutexLock lock(&mu_);
  active_ = false;
  queues_.clear();
  waiting_ = 0;
}

void Mailbox::Note(const Job& job) {
  if (!endpoint_.Wants(job)) return;
  absl::MutexLock lock(&mu_);
  if (!active_) return;
  int64_t& known = known_[job.id.value()];
  const auto first = job.transitions - static_cast<int64_t>(job.history.size());
  for (int64_t number = std::max(known, first); number < job.transitions; ++number) {
    const Transition& transition = job.history[static_cast<size_t>(number - first)];
    const bool wanted = transition.time >= since_ && endpoint_.states.count(transition.state) > 0;
    if (wanted && waiting_ >= options_.most_waiting) return;
    known = number + 1;
    if (!wanted) continue;
    queues_[job.id.value()].waiting.push_back(
        {number, transition.time, MessageOf(job, number, transition)});
    ++waiting_;
    changed_.SignalAll();
  }
}

void Mailbox::Keep(const std::string& job, std::vector<KeptWebhook>& kept) {
  absl::MutexLock lock(&mu_);
  const auto queue = queues_.find(job);
  if (queue == queues_.end()) return;
  for (const Waiting& w : queue->second.waiting)
    kept.push_back({endpoint_.name, job, w.number, w.time, w.message.body});
}

void Mailbox::Forget(const std::string& job) {
  absl::MutexLock lock(&mu_);
  if (known_.erase(job) > 0 && queues_.count(job) == 0) gone_.push_back(job);
}

void Mailbox::UpdateMetrics() {
  absl::MutexLock lock(&mu_);
  absl::Time oldest = absl::InfiniteFuture();
  for (const auto& [job, queue] : queues_) oldest = std::min(oldest, queue.waiting.front().time);
  waiting_gauge_.Set(static_cast<double>(waiting_));
  oldest_gauge_.Set(waiting_ == 0 ? 0
                                  : std::max(0.0, absl::ToDoubleSeconds(clock_.Now() - oldest)));
}

absl::Duration Mailbox::Backoff(int failures) const {
  const absl::Duration length = std::min(
      options_.first_backoff * (int64_t{1} << std::min(failures, 20)), options_.longest_backoff);
  // So that several endpoints behind one front do not come back in one instant.
  return length * (0.5 + static_cast<double>(SystemRandom().Below(1000)) / 2000.0);
}

std::string Mailbox::Due(absl::Duration now, absl::Duration* next) {
  std::string best;
  absl::Duration due = absl::InfiniteDuration();
  absl::Time oldest = absl::InfiniteFuture();
  for (const auto& [job, queue] : queues_) {
    const bool ready = queue.due <= now;
    if (ready && queue.waiting.front().time < oldest) {
      oldest = queue.waiting.front().time;
      best = job;
    }
    due = std::min(due, queue.due);
  }
  if (quiet_until_ > now) best.clear();
  *next = std::max(due, quiet_until_);
  return best;
}

void Mailbox::Run() {
  while (true) {
    std::string job;
    Waiting message;
    {
      absl::MutexLock lock(&mu_);
      absl::Duration next = absl::InfiniteDuration();
      const absl::Duration now = clock_.Steady();
      if (active_) job = Due(now, &next);
      if (job.empty()) {
        if (!stop_) changed_.WaitFor(mu_, std::clamp(next - now, absl::Milliseconds(1), kLook));
      } else {
        message = queues_[job].waiting.front();
      }
      if (stop_) return;
    }
    if (!job.empty() && leads_()) {
      Deliver(job, std::move(message));
    } else if (!job.empty()) {
      clock_.Sleep(absl::Milliseconds(50));  // another leads; OnServing will say so
    }
    ForgetGone();
  }
}

// Here and not where the driver tells of it: it takes a sync of the disk.
void Mailbox::ForgetGone() {
  std::vector<std::string> gone;
  {
    absl::MutexLock lock(&mu_);
    gone.swap(gone_);
  }
  if (gone.empty()) return;
  const absl::Status forgotten = log_.Forget(endpoint_.name, gone);
  if (!forgotten.ok()) LL_LOG(kWarning) << "webhooks: " << forgotten.message();
}

void Mailbox::Deliver(const std::string& job, Waiting message) {
  const auto secrets = ReadWebhookSecrets(endpoint_.secret_file);
  const PostOutcome outcome =
      secrets.ok() ? PostWebhook(endpoint_, *secrets, message.message, clock_.Now(), stop_)
                   : PostOutcome{.why = std::string(secrets.status().message())};
  if (outcome.delivered) return Taken(job, message, "delivered");
  if (stop_) return;
  deliveries_.Add({{"endpoint", endpoint_.name}, {"result", "failed"}}).Increment();
  if (clock_.Now() - message.time > endpoint_.give_up_after) {
    LL_LOG(kError) << "webhook " << message.message.id << " to " << endpoint_.name
                   << " is given up: " << outcome.why;
    const absl::Status buried =
        log_.Bury({endpoint_.name, job, message.number, clock_.Now(), outcome.why.substr(0, 500)});
    if (!buried.ok()) {
      LL_LOG(kWarning) << "webhooks: " << buried.message();
    }
    return Taken(job, message, "dead");
  }
  absl::MutexLock lock(&mu_);
  const absl::Duration now = clock_.Steady();
  if (failures_ == 0 || outcome.answered) {
    LL_LOG(kWarning) << "webhook " << message.message.id << " to " << endpoint_.name
                     << " is tried again: " << outcome.why;
  }
  // Nobody there: the others would wait in vain too.
  if (!outcome.answered) quiet_until_ = now + Backoff(failures_++);
  const auto queue = queues_.find(job);
  if (queue != queues_.end()) queue->second.due = now + Backoff(queue->second.failures++);
}

// The note first: a message that is lost is worse than one that comes twice.
void Mailbox::Taken(const std::string& job, const Waiting& message, absl::string_view result) {
  const absl::Status noted = log_.Done(endpoint_.name, job, message.number + 1);
  if (!noted.ok()) {
    LL_LOG(kWarning) << "webhook " << message.message.id << " to " << endpoint_.name
                     << " would be repeated after a restart: " << noted.message();
  }
  deliveries_.Add({{"endpoint", endpoint_.name}, {"result", std::string(result)}}).Increment();
  absl::MutexLock lock(&mu_);
  failures_ = 0;
  quiet_until_ = absl::ZeroDuration();
  const auto it = queues_.find(job);
  if (it == queues_.end()) return;
  Queue& queue = it->second;
  // Meanwhile all may have been begun anew.
  if (queue.waiting.front().number == message.number) {
    queue.waiting.pop_front();
    --waiting_;
  }
  queue.failures = 0;
  queue.due = absl::ZeroDuration();
  if (!queue.waiting.empty()) return;
  queues_.erase(it);
  if (known_.count(job) == 0) gone_.push_back(job);
}

// ---- all of them

Notifier::Notifier(NotifierOptions options, std::unique_ptr<DeliveryLog> log, Clock& clock,
                   std::function<bool()> leads, prometheus::Registry& registry)
    : options_(std::move(options)), log_(std::move(log)), clock_(clock) {
  for (const auto& [name, endpoint] : options_.endpoints) {
    mailboxes_.push_back(
        std::make_unique<Mailbox>(endpoint, options_, *log_, clock_, leads, registry));
  }
}

absl::Status Notifier::Load(const Scheduler& scheduler) {
  LL_ASSIGN_OR_RETURN(DeliveryState state, log_->Load());
  for (const auto& mailbox : mailboxes_) {
    const std::string& name = mailbox->endpoint().name;
    if (state.since.count(name) == 0) {
      state.since[name] = clock_.Now();
      LL_RETURN_IF_ERROR(log_->Begin(name, state.since[name]));
    }
    std::map<std::string, int64_t> done;
    for (const auto& [key, count] : state.done) {
      if (key.first == name) done[key.second] = count;
    }
    std::vector<KeptWebhook> kept;
    for (const KeptWebhook& k : state.kept) {
      // Of a job that is there after all its history tells.
      if (k.endpoint == name && scheduler.Find(JobId(k.job)) == nullptr) kept.push_back(k);
    }
    mailbox->Restart(state.since[name], std::move(done), kept);
  }
  for (const Job* job : scheduler.List({.limit = SIZE_MAX})) {
    for (const auto& mailbox : mailboxes_) mailbox->Note(*job);
  }
  // Records that went while nobody listened.
  for (const auto& [key, count] : state.done) {
    if (scheduler.Find(JobId(key.second)) == nullptr) OnDeleted(JobId(key.second));
  }
  return absl::OkStatus();
}

void Notifier::OnRecovered(const Scheduler& scheduler) {
  const absl::Status status = Load(scheduler);
  loaded_ = status.ok();
  if (!loaded_ && status.ToString() != last_error_) {
    LL_LOG(kError) << "webhooks wait: " << status.message();
  }
  last_error_ = status.ToString();
}

void Notifier::OnChanged(const Scheduler& scheduler, const std::vector<JobId>& jobs) {
  for (const JobId& id : jobs) {
    const Job* job = scheduler.Find(id);
    if (job == nullptr) continue;
    for (const auto& mailbox : mailboxes_) mailbox->Note(*job);
  }
}

// Before the commit that deletes the job: after it a crash would lose what waits.
void Notifier::OnStep(const Scheduler&, const Effects& effects, absl::Duration) {
  std::vector<KeptWebhook> kept;
  for (const Record& record : effects.records) {
    const auto* deleted = std::get_if<DeleteJob>(&record);
    if (deleted == nullptr) continue;
    for (const auto& mailbox : mailboxes_) mailbox->Keep(deleted->job.value(), kept);
  }
  if (kept.empty()) return;
  const absl::Status status = log_->Keep(kept);
  if (!status.ok()) {
    LL_LOG(kWarning) << "webhooks of jobs whose records go would be lost at a restart: "
                     << status.message();
  }
}

void Notifier::OnDeleted(const JobId& job) {
  for (const auto& mailbox : mailboxes_) mailbox->Forget(job.value());
}

void Notifier::OnTick(const Scheduler& scheduler) {
  if (!loaded_) OnRecovered(scheduler);
  for (const auto& mailbox : mailboxes_) mailbox->UpdateMetrics();
}

void Notifier::OnServing(const absl::Status& status) {
  if (status.ok()) return;
  loaded_ = false;
  for (const auto& mailbox : mailboxes_) mailbox->Pause();
}

}  // namespace ll
