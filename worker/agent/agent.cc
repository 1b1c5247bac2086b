#include "worker/agent/agent.h"

#include <stdlib.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/agent/path_check.h"

namespace ll {
namespace {

constexpr int kProtocolVersion = 1;
constexpr int64_t kDefaultMaxHeadlessSeconds = 24 * 3600;
// After the ranks' end an agent that is asked to end gives the coordinator this long to take the
// news.
constexpr absl::Duration kFarewell = absl::Seconds(5);

std::vector<int> Indices(const std::vector<v1::Slot>& slots) {
  std::vector<int> out;
  for (const v1::Slot& slot : slots) out.push_back(slot.index());
  return out;
}

}  // namespace

Agent::Agent(AgentOptions options, Clock& clock, Random& random, Link& link, AgentMetrics& metrics,
             Host& host)
    : options_(std::move(options)),
      clock_(clock),
      link_(link),
      metrics_(metrics),
      host_(host),
      files_(host.files()),
      orders_(Indices(options_.slots), 0) {
  setup_.host = &host;
  setup_.trainer = options_.trainer;
  setup_.job_store =
      options_.job_store.empty() ? absl::StrCat(options_.work_dir, "/jobs") : options_.job_store;
  setup_.state_dir = absl::StrCat(options_.work_dir, "/gangs");
  setup_.fabric_host = options_.fabric_host;
  setup_.incarnation = RandomHex(random, 16);
  setup_.trainer_threads = options_.trainer_threads;
  const bool gpu = options_.gpu_slots;
  setup_.sandbox = options_.sandbox;
  setup_.slot_environment = [gpu](int slot) {
    std::map<std::string, std::string> out = TrainerEnvironment();
    out["CUDA_VISIBLE_DEVICES"] = gpu ? absl::StrCat(slot) : "";
    return out;
  };
  setup_.on_event = [this](const GangKey& key, int rank, const TrainerEvent& event) {
    metrics_.OnEvent(key, rank, event);
  };
  setup_.on_dropped_line = [this] { metrics_.CountDroppedLine(); };
}

Agent::~Agent() {
  gangs_.clear();  // before the lock goes: kills what runs
}

namespace {

// `made` with the flag that named the folder, and what to do.
absl::Status FolderError(const absl::Status& made, absl::string_view flag) {
  if (made.ok()) return made;
  return FieldStatus(made.code(), flag, made.message(),
                     absl::StrCat("mount it, or give a folder that this user may write: --", flag));
}

}  // namespace

absl::Status Agent::LockWorkDir() {
  LL_RETURN_IF_ERROR(FolderError(files_.MakeDirs(options_.work_dir), "work-dir"));
  auto lock = host_.Lock(absl::StrCat(options_.work_dir, "/lock"));
  if (absl::IsAlreadyExists(lock.status())) {
    return FieldStatus(absl::StatusCode::kAlreadyExists, "work-dir",
                       absl::StrCat("another ll-worker uses ", options_.work_dir),
                       "give each worker of a host its own --work-dir and --name");
  }
  LL_RETURN_IF_ERROR(lock.status());
  lock_ = *std::move(lock);
  return absl::OkStatus();
}

absl::Status Agent::Open() {
  LL_RETURN_IF_ERROR(LockWorkDir());
  LL_RETURN_IF_ERROR(FolderError(files_.MakeDirs(setup_.job_store), "job-store"));
  LL_RETURN_IF_ERROR(files_.MakeDirs(setup_.state_dir));
  const std::string path = absl::StrCat(options_.work_dir, "/agent.json");
  if (files_.Exists(path)) {
    LL_ASSIGN_OR_RETURN(std::string text, files_.Read(path));
    const auto notes = ParseJsonObject(text);
    const nlohmann::json none;
    const auto note = [&](const char* key) -> const nlohmann::json& {
      return notes.ok() && notes->contains(key) ? (*notes)[key] : none;
    };
    if (!note("incarnation").is_string() || !note("highest_term").is_number_integer()) {
      return MakeFieldError({path, "this agent's notes", "something else", "remove the file"});
    }
    const std::string earlier = note("incarnation").get<std::string>();
    const int killed = earlier.empty() ? 0 : host_.KillMarked(absl::StrCat(earlier, "/"), 10'000);
    if (killed > 0) {
      LL_LOG(kWarning) << "ended " << killed << " trainer processes of an earlier agent process";
    }
    LL_RETURN_IF_ERROR(orders_.AcceptTerm(note("highest_term").get<int64_t>()));
    if (note("name").is_string()) LL_RETURN_IF_ERROR(CheckName(note("name").get<std::string>()));
  }
  LL_RETURN_IF_ERROR(SaveNotes());
  ReopenGangs();
  return absl::OkStatus();
}

// Only the worker that was given an attempt is believed about it: under another name its end would
// never be heard, and the job would wait for max_headless.
absl::Status Agent::CheckName(const std::string& earlier) const {
  const auto held = files_.List(setup_.state_dir);
  if (earlier == options_.name || !held.ok() || held->empty()) return absl::OkStatus();
  return FieldStatus(
      absl::StatusCode::kFailedPrecondition, "name",
      absl::StrCat(options_.work_dir, " holds attempts whose end worker ", earlier,
                   " has not told yet"),
      absl::StrCat("start it as --name ", earlier, " first, or give another --work-dir"));
}

absl::Status Agent::SaveNotes() const {
  const nlohmann::ordered_json notes = {{"name", options_.name},
                                        {"incarnation", setup_.incarnation},
                                        {"highest_term", orders_.highest_term()}};
  return files_.WriteAtomic(absl::StrCat(options_.work_dir, "/agent.json"), notes.dump() + "\n");
}

void Agent::ReopenGangs() {
  const auto names = files_.List(setup_.state_dir);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    auto gang = Gang::Reopen(setup_, clock_, name);
    if (gang.ok()) {
      LL_LOG(kInfo) << (*gang)->key().ToString() << " ended with an earlier agent process";
      Keep(*std::move(gang));
    } else {
      // The agent was killed before the order was on disk, so nothing was started.
      LL_LOG(kWarning) << "notes of " << name << " are dropped: " << gang.status().message();
      files_.RemoveTree(absl::StrCat(setup_.state_dir, "/", name)).IgnoreError();
    }
  }
}

void Agent::Keep(std::unique_ptr<Gang> gang) {
  const GangKey key = gang->key();
  orders_.Hold(key, gang->BusySlots());
  gangs_[key] = std::move(gang);
}

Gang* Agent::Find(const std::string& job_id, int64_t epoch) {
  const auto it = gangs_.find({job_id, epoch});
  return it == gangs_.end() ? nullptr : it->second.get();
}

// ---- the session

void Agent::OnOpened() {
  open_ = true;
  welcomed_ = false;
  opened_at_ = clock_.Steady();
  pending_.clear();  // orders of the last session; the coordinator repeats what still holds
  SendHello();
}

void Agent::OnClosed() {
  if (welcomed_) {
    LL_LOG(kWarning) << "the session with the coordinator ended; running ranks go on";
  }
  open_ = welcomed_ = false;
}

void Agent::SendHello() {
  v1::AgentMessage message;
  v1::Hello& hello = *message.mutable_hello();
  hello.set_protocol_version(kProtocolVersion);
  hello.set_worker(options_.name);
  hello.set_incarnation(setup_.incarnation);
  hello.set_host(options_.host);
  hello.set_fabric_host(options_.fabric_host);
  hello.set_nvlink_domain(options_.nvlink_domain);
  hello.set_rack(options_.rack);
  hello.set_calibration(options_.calibration);
  for (const v1::Slot& slot : options_.slots) *hello.add_slots() = slot;
  for (const auto& [key, gang] : gangs_) {
    if (!gang->released()) *hello.add_gangs() = gang->Describe();
  }
  hello.set_highest_term(orders_.highest_term());
  hello.set_version(LL_VERSION);
  hello.set_http_address(options_.http_address);
  hello.set_pid(getpid());
  link_.Send(std::move(message));
}

void Agent::OnMessage(const v1::CoordinatorMessage& message) {
  const int64_t before = orders_.highest_term();
  if (const absl::Status status = orders_.AcceptTerm(message.term()); !status.ok()) {
    LL_LOG(kError) << status.message() << "; " << ErrorHint(status);
    link_.Reset("an older coordinator");
    return;
  }
  if (orders_.highest_term() != before) {
    const absl::Status saved = SaveNotes();
    if (!saved.ok()) {
      LL_LOG(kWarning) << "the coordinator's term is not on disk: " << saved.message();
    }
  }
  if (message.has_welcome()) {
    OnWelcome(message.welcome());
  } else if (!welcomed_) {
    LL_LOG(kWarning) << "a message before the Welcome is ignored";
    return;
  }
  lease_.Contact(clock_.Steady());
  if (message.has_start()) OnStart(message.start());
  if (message.has_stop()) OnStop(message.stop());
  if (message.has_report_ack()) {
    const auto& ack = message.report_ack();
    if (Gang* gang = Find(ack.job_id(), ack.epoch())) gang->AcknowledgeReports(ack.sequence());
  }
  if (message.has_telemetry_ack()) {
    const auto& ack = message.telemetry_ack();
    if (Gang* gang = Find(ack.job_id(), ack.epoch())) gang->AcknowledgeTelemetry(ack);
  }
  if (message.has_rendezvous()) {
    const auto& order = message.rendezvous();
    if (Gang* gang = Find(order.job_id(), order.epoch())) gang->SendRendezvous(order.address());
  }
  if (message.has_say()) {
    const auto& order = message.say();
    if (Gang* gang = Find(order.job_id(), order.epoch())) gang->Say(order.line());
  }
  if (message.has_check()) {
    v1::AgentMessage answer;
    *answer.mutable_checked() = CheckRegisteredPath(options_.roots, message.check());
    link_.Send(std::move(answer));
  }
  if (message.has_release()) {
    const auto& order = message.release();
    if (Gang* gang = Find(order.job_id(), order.epoch())) gang->Release(clock_.Steady());
  }
}

void Agent::OnWelcome(const v1::Welcome& welcome) {
  welcomed_ = ever_welcomed_ = true;
  if (welcome.lease_seconds() > 0) lease_.set_length(absl::Seconds(welcome.lease_seconds()));
  if (welcome.heartbeat_seconds() > 0) heartbeat_ = absl::Seconds(welcome.heartbeat_seconds());
  last_heartbeat_ = clock_.Steady();
  std::map<GangKey, const v1::Verdict*> verdicts;
  for (const v1::Verdict& verdict : welcome.verdicts())
    verdicts[{verdict.job_id(), verdict.epoch()}] = &verdict;
  std::map<GangKey, std::vector<v1::TelemetryAck>> telemetry;
  for (const v1::TelemetryAck& ack : welcome.telemetry())
    telemetry[{ack.job_id(), ack.epoch()}].push_back(ack);
  for (auto& [key, gang] : gangs_) {
    const v1::Verdict* verdict = verdicts.count(key) ? verdicts[key] : nullptr;
    gang->Resume(verdict, telemetry[key]);
    if (gang->released() || (verdict != nullptr && verdict->keep())) continue;
    if (gang->running()) {
      LL_LOG(kWarning) << key.ToString() << " is no longer wanted; its ranks are ended";
    }
    gang->Kill(/*ordered=*/true, "superseded: the coordinator no longer counts on this attempt");
    // An unknown gang gets no Release; what is left of it is offered for a while and then
    // forgotten.
    if (verdict == nullptr) gang->Release(clock_.Steady());
  }
  LL_LOG(kInfo) << "welcomed by the coordinator, term " << orders_.highest_term() << ", "
                << gangs_.size() << " gangs held";
}

// ---- orders

void Agent::Refuse(const v1::StartGang& order, v1::FailureClass failure_class,
                   const std::string& reason) {
  LL_LOG(kWarning) << order.job_id() << "/e" << order.epoch() << " is refused: " << reason;
  v1::StartRefused refusal;
  refusal.set_failure_class(failure_class);
  refusal.set_message(reason);
  refusal.set_leaving(shutting_down_);
  Keep(Gang::Refused(setup_, clock_, order, std::move(refusal)));
}

void Agent::OnStart(const v1::StartGang& order) {
  const StartDecision decision = orders_.DecideStart(order);
  switch (decision.kind) {
    case StartDecision::kHeld:
      return;
    case StartDecision::kStale:
      LL_LOG(kWarning) << order.job_id() << "/e" << order.epoch()
                       << " is not started: " << decision.reason;
      return;
    case StartDecision::kRefuse:
      return Refuse(order, decision.failure_class, decision.reason);
    case StartDecision::kWait:
      for (const GangKey& older : decision.supersedes) {
        if (Gang* gang = Find(older.job_id, older.epoch))
          gang->Kill(true, "superseded by a newer attempt");
      }
      LL_LOG(kInfo) << order.job_id() << "/e" << order.epoch() << " waits: " << decision.reason;
      pending_.push_back({order, clock_.Steady() + kSlotWait});
      return;
    case StartDecision::kStart:
      return StartNow(order);
  }
}

void Agent::StartNow(const v1::StartGang& order) {
  if (shutting_down_) return Refuse(order, v1::CAPACITY, "this worker is shutting down");
  v1::JobSpec spec = order.spec();
  absl::Status status = ResolveSpecPaths(options_.roots, spec);
  if (!status.ok()) return Refuse(order, v1::USER, std::string(status.message()));
  if (!order.resume_from().empty() && !files_.IsDirectory(order.resume_from())) {
    return Refuse(order, v1::INFRASTRUCTURE,
                  absl::StrCat("the checkpoint ", order.resume_from(), " is not on this worker"));
  }
  auto gang = Gang::Start(setup_, clock_, order, spec);
  if (gang.ok()) return Keep(*std::move(gang));
  Refuse(order, v1::INFRASTRUCTURE,
         absl::StrCat("cannot start: ", std::string(gang.status().message())));
}

void Agent::OnStop(const v1::StopGang& order) {
  pending_.remove_if([&](const PendingStart& pending) {
    if (pending.order.job_id() != order.job_id() || pending.order.epoch() != order.epoch())
      return false;
    Refuse(pending.order, v1::INFRASTRUCTURE, "stopped before it was started");
    return true;
  });
  Gang* gang = Find(order.job_id(), order.epoch());
  if (gang == nullptr) {
    LL_LOG(kWarning) << order.job_id() << "/e" << order.epoch()
                     << " is to be stopped but is not here";
    return;
  }
  LL_LOG(kInfo) << gang->key().ToString() << " is stopped: " << order.reason();
  if (order.checkpoint()) {
    gang->Stop(clock_.Steady(), absl::Seconds(order.grace_seconds()), true, order.reason());
  } else {
    gang->Kill(true, order.reason());
  }
}

void Agent::RetryPending(absl::Duration now) {
  std::list<PendingStart> waiting;
  waiting.swap(pending_);
  for (PendingStart& pending : waiting) {
    const StartDecision decision = orders_.DecideStart(pending.order);
    if (decision.kind != StartDecision::kWait) {
      OnStart(pending.order);
    } else if (now >= pending.deadline) {
      Refuse(pending.order, v1::INFRASTRUCTURE, decision.reason);
    } else {
      pending_.push_back(std::move(pending));
    }
  }
}

// ---- time

std::vector<int> Agent::PollFds() const {
  std::vector<int> fds;
  for (const auto& [key, gang] : gangs_) gang->AddPollFds(fds);
  return fds;
}

void Agent::SendHeartbeat(absl::Duration now) {
  last_heartbeat_ = now;
  v1::AgentMessage message;
  message.mutable_heartbeat()->set_sequence(++heartbeat_sequence_);
  double load = 0;
  if (getloadavg(&load, 1) == 1) message.mutable_heartbeat()->set_load_average(load);
  if (options_.slot_loads != nullptr) {
    for (v1::SlotLoad& slot : options_.slot_loads())
      *message.mutable_heartbeat()->add_loads() = std::move(slot);
  }
  link_.Send(std::move(message));
}

void Agent::TickContact(absl::Duration now) {
  if (open_ && !welcomed_ && now - opened_at_ > kWelcomeDeadline) {
    open_ = false;
    link_.Reset("no Welcome in time");
  }
  if (welcomed_ && lease_.Expired(now)) {
    LL_LOG(kWarning) << "headless: no word from the coordinator for "
                     << absl::FormatDuration(lease_.Silence(now)) << "; running ranks go on";
    open_ = welcomed_ = false;
    link_.Reset("the lease has expired");
  }
  if (welcomed_ && now - last_heartbeat_ >= heartbeat_) SendHeartbeat(now);
}

void Agent::TickGangs(absl::Duration now) {
  for (auto it = gangs_.begin(); it != gangs_.end();) {
    Gang& gang = *it->second;
    if (gang.running()) {
      const v1::JobSpec& spec = gang.order().spec();
      const int64_t limit =
          spec.has_max_headless() ? spec.max_headless() : kDefaultMaxHeadlessSeconds;
      if (!welcomed_ && lease_.Expired(now) && lease_.Silence(now) > absl::Seconds(limit)) {
        gang.Kill(/*ordered=*/false,
                  absl::StrCat("no contact with the coordinator for max_headless = ", limit, " s"));
      }
      gang.Poll(now);
      orders_.Hold(gang.key(), gang.BusySlots());
    }
    if (welcomed_)
      gang.Send(now, [this](v1::AgentMessage message) { link_.Send(std::move(message)); });
    if (gang.Forgettable(now)) {
      gang.RemoveNotes();
      orders_.Forget(gang.key());
      metrics_.Forget(gang.key());
      it = gangs_.erase(it);
    } else {
      ++it;
    }
  }
}

int64_t Agent::UnacknowledgedReports() const {
  int64_t count = 0;
  for (const auto& [key, gang] : gangs_) count += gang->UnacknowledgedReports();
  return count;
}

void Agent::UpdateMetrics(absl::Duration now) {
  int running = 0, busy = 0;
  for (const auto& [key, gang] : gangs_) {
    running += gang->running();
    busy += static_cast<int>(gang->BusySlots().size());
  }
  metrics_.SetWorker(welcomed_, !welcomed_ && lease_.Expired(now), running, busy,
                     static_cast<int>(options_.slots.size()), UnacknowledgedReports());
  if (!options_.gpu_slots) return;
  std::vector<AgentMetrics::GpuRank> ranks;
  for (const auto& [key, gang] : gangs_) {
    for (const auto& [rank, slot] : gang->LiveRanks()) ranks.push_back({key, rank, slot});
  }
  metrics_.SetGpuRanks(ranks);
}

void Agent::Tick() {
  const absl::Duration now = clock_.Steady();
  TickContact(now);
  RetryPending(now);
  TickGangs(now);
  UpdateMetrics(now);
}

// ---- the end

void Agent::BeginShutdown() {
  const bool again = std::exchange(shutting_down_, true);
  shutdown_began_ = clock_.Steady();
  for (auto& [key, gang] : gangs_) {
    if (again) {
      gang->Kill(/*ordered=*/false, "the worker was shut down");
    } else {
      gang->Stop(shutdown_began_, options_.shutdown_grace, /*ordered=*/false,
                 "the worker is shutting down");
    }
  }
}

bool Agent::ShutdownDone() const {
  if (!shutting_down_) return false;
  bool reported = true;
  for (const auto& [key, gang] : gangs_) {
    if (gang->running()) return false;
    reported = reported && gang->AllReported();
  }
  // Unsent reports are on disk; the next agent process sends them.
  return reported || !welcomed_ ||
         clock_.Steady() - shutdown_began_ > options_.shutdown_grace + kFarewell;
}

}  // namespace ll
