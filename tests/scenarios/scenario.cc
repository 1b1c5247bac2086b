#include "tests/scenarios/scenario.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/format.h"

namespace ll {
namespace {

int64_t Int(const std::string& text) {
  int64_t value = 0;
  LL_CHECK_MSG(absl::SimpleAtoi(text, &value), text.c_str());
  return value;
}

absl::Duration Duration(const std::string& text) {
  absl::Duration value;
  LL_CHECK_MSG(absl::ParseDuration(text, &value), text.c_str());
  return value;
}

std::vector<std::string> List(const std::string& text) {
  if (text.empty()) return {};
  return absl::StrSplit(text, ',');
}

FailureClass Class(const std::string& name) {
  if (name == "user") return FailureClass::kUser;
  if (name == "capacity") return FailureClass::kCapacity;
  if (name == "oom") return FailureClass::kOutOfMemory;
  if (name == "nan") return FailureClass::kNotANumber;
  return FailureClass::kInfrastructure;
}

const char* ClassOfCode(int code) {
  return code == 20   ? "user"
         : code == 31 ? "capacity"
         : code == 40 ? "oom"
         : code == 50 ? "nan"
                      : "infrastructure";
}

// As the agent would classify an exit.
RankExit MakeExit(int code, int signal, bool ordered, const std::string& name,
                  const std::string& message) {
  RankExit exit;
  exit.code = code;
  exit.signal = signal;
  exit.ordered = ordered;
  exit.message = message;
  if (code != kExitDone && code != kExitCheckpointed)
    exit.failure_class = Class(name.empty() ? ClassOfCode(code) : name);
  if (signal != 0) exit.failure_class = FailureClass::kInfrastructure;
  return exit;
}

constexpr int64_t kGb = 1'000'000'000;

}  // namespace

bool Scenario::Args::Has(const std::string& word) const {
  return std::find(words.begin(), words.end(), word) != words.end();
}

Scenario::Args Scenario::Parse(const std::string& line) {
  Args args;
  for (const std::string& word :
       std::vector<std::string>(absl::StrSplit(line, ' ', absl::SkipEmpty()))) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos) {
      args.words.push_back(word);
    } else {
      args.named[word.substr(0, equals)] = word.substr(equals + 1);
    }
  }
  return args;
}

Scheduler& Scenario::scheduler() {
  if (scheduler_ == nullptr) {
    options_.nonce_seed = "seed";
    auto state = store_.LoadAll();
    LL_CHECK(state.ok());
    auto recovered = Scheduler::Recover(std::move(state).value(), options_, Now());
    LL_CHECK_MSG(recovered.ok(), recovered.status().ToString().c_str());
    scheduler_ = std::make_unique<Scheduler>(std::move(recovered).value());
  }
  return *scheduler_;
}

std::string Scenario::Execute(const std::string& line) {
  out_.clear();
  if (!Run(Parse(line))) Out(absl::StrCat("bad command: ", line));
  return out_;
}

bool Scenario::Run(const Args& args) {
  const std::string command = args.Word(0), name = args.Word(1);
  if (command == "option") {
    Option(args);
  } else if (command == "hello") {
    Hello(args);
  } else if (command == "gone") {
    Give(AgentGoneEvent{WorkerId(name), std::exchange(agents_[name].session, 0)});
  } else if (command == "dead") {
    Give(WorkerDeclaredDeadEvent{WorkerId(name), "op"});
  } else if (command == "mute" || command == "unmute") {
    agents_[name].muted = command == "mute";
  } else if (command == "submit") {
    Submit(args);
  } else if (command == "submit_all") {
    SubmitAll(args);
  } else if (command == "cancel") {
    Give(CancelEvent{JobId(name), "ann", ""});
  } else if (command == "pause") {
    Give(PauseEvent{JobId(name), "ann"});
  } else if (command == "resume") {
    Give(ResumeEvent{JobId(name), "ann"});
  } else if (command == "why") {
    auto why = scheduler().Why(JobId(name));
    Out(why.ok() ? *why : why.status().ToString());
  } else if (command == "show") {
    PrintJob(JobId(name));
  } else if (command == "workers") {
    for (const auto& [id, worker] : scheduler().workers()) {
      std::vector<std::string> uses;
      for (const auto& [slot, use] : worker.uses) {
        uses.push_back(absl::StrCat(slot, ":", use.job.value(), "/", use.epoch, "/", use.rank,
                                    use.stray ? " stray" : ""));
      }
      Out(absl::StrCat(id.value(), " ", worker.connected ? "connected" : "away", ", ",
                       worker.slots.size(), " slots, uses [", absl::StrJoin(uses, ", "), "]",
                       worker.cordoned ? ", " : "", worker.cordon_reason));
    }
  } else if (command == "acks") {
    acks_ = true;
  } else {
    return RunOperator(args) || RunSchedule(args) || RunTime(args) || RunReport(args);
  }
  return true;
}

bool Scenario::RunOperator(const Args& args) {
  const std::string command = args.Word(0), name = args.Word(1);
  if (command == "queue") {
    QueueRecord queue;
    queue.name = name;
    double weight = 1;
    LL_CHECK(absl::SimpleAtod(args.Get("weight", "1"), &weight));
    queue.weight = weight;
    const auto set = [&args](const char* key, std::optional<int>& value) {
      if (args.named.count(key) > 0) value = static_cast<int>(Int(args.Get(key)));
    };
    set("quota", queue.quota_gpus);
    set("max", queue.max_gpus);
    set("jobs", queue.max_jobs);
    Give(SetQueueEvent{queue, "op"});
  } else if (command == "cordon" || command == "uncordon" || command == "drain") {
    const Cordon cordon = command == "cordon"  ? Cordon::kCordon
                          : command == "drain" ? Cordon::kDrain
                                               : Cordon::kUncordon;
    Give(CordonWorkerEvent{WorkerId(name), cordon, "op", args.Get("reason")});
  } else {
    return false;
  }
  return true;
}

bool Scenario::RunSchedule(const Args& args) {
  const std::string command = args.Word(0), name = args.Word(1);
  if (command == "schedule") {
    SetSchedule(args);
  } else if (command == "unschedule") {
    Give(DeleteScheduleEvent{name, "ann"});
  } else if (command == "hold" || command == "unhold") {
    Give(PauseScheduleEvent{name, command == "hold", "ann"});
  } else if (command == "run") {
    Give(RunScheduleEvent{name, JobId(args.Word(2)), args.Get("request", args.Word(2)), "ann"});
  } else if (command == "judge") {
    JudgeRunEvent event{name, Int(args.Word(2))};
    double loss = 0;
    if (absl::SimpleAtod(args.Get("loss"), &loss)) event.measures.final_loss = loss;
    for (const std::string& point : List(args.Get("curve"))) {
      const std::vector<std::string> parts = absl::StrSplit(point, ':');
      LL_CHECK(parts.size() == 2 && absl::SimpleAtod(parts[1], &loss));
      event.measures.curve.push_back({Int(parts[0]), loss});
    }
    Give(event);
  } else {
    return false;
  }
  return true;
}

void Scenario::SetSchedule(const Args& args) {
  SetScheduleEvent event;
  event.replace = args.Has("replace");
  ScheduleRecord& record = event.schedule;
  record.name = args.Word(1);
  record.user = "ann";
  record.cron = absl::StrReplaceAll(args.Get("cron"), {{"_", " "}});
  record.time_zone = args.Get("tz", "UTC");
  const std::string missed = args.Get("missed", "last"), overlap = args.Get("overlap", "skip");
  record.missed = missed == "all"    ? MissedPolicy::kAll
                  : missed == "skip" ? MissedPolicy::kSkip
                                     : MissedPolicy::kLast;
  record.overlap = overlap == "queue"        ? OverlapPolicy::kQueue
                   : overlap == "cancel_old" ? OverlapPolicy::kCancelOld
                                             : OverlapPolicy::kSkip;
  record.start_within = Duration(args.Get("start_within", "inf"));
  record.spec.gpus = static_cast<int>(Int(args.Get("gpus", "1")));
  record.body_sha256 = absl::StrCat(record.cron, record.time_zone, missed, overlap);
  record.payload = std::make_shared<JobPayload>();
  for (int64_t stage = 1; stage < Int(args.Get("stages", "1")); ++stage) {
    const JobId id(absl::StrCat("stage-", stage));
    record.before.push_back({id, record.spec, record.payload});
    record.spec.after = {id};
  }
  Give(event);
}

bool Scenario::RunTime(const Args& args) {
  const std::string command = args.Word(0);
  if (command == "tick") {
    for (absl::Duration left = Duration(args.Word(1)); left > absl::ZeroDuration();
         left -= absl::Seconds(1)) {
      steady_ += absl::Seconds(1);
      wall_ += absl::Seconds(1);
      for (const auto& [name, agent] : agents_) {
        if (agent.session != 0 && !agent.muted)
          Give(AgentHeardEvent{WorkerId(name), agent.session});
      }
      Give(TickEvent{});
    }
  } else if (command == "sleep") {
    steady_ += Duration(args.Word(1));
    wall_ += Duration(args.Word(1));
    Give(TickEvent{});
  } else if (command == "clock") {
    wall_ += Duration(args.Word(1));
  } else if (command == "restart") {
    Restart();
  } else if (command == "lose-commit") {
    lose_commit_ = true;
  } else {
    return false;
  }
  return true;
}

void Scenario::Restart() {
  scheduler_ = nullptr;
  for (auto& [name, agent] : agents_) agent.session = 0;
  headless_printed_.clear();
  scheduler().CheckInvariants();
}

void Scenario::Option(const Args& args) {
  LL_CHECK(scheduler_ == nullptr);
  if (args.Has("shared_job_store")) options_.shared_job_store = true;
  const auto set = [&args](const char* name, absl::Duration& value) {
    if (args.named.count(name) > 0) value = Duration(args.Get(name));
  };
  set("lease", options_.lease);
  set("start_deadline", options_.start_deadline);
  set("finish_deadline", options_.finish_deadline);
  set("stop_grace", options_.stop_grace);
  set("min_runtime", options_.min_runtime);
  set("half_life", options_.half_life);
  set("grow_after_idle", options_.elastic.grow_after_idle);
  set("resize_interval", options_.elastic.resize_interval);
  set("restart_cost", options_.elastic.restart_cost);
  options_.lemon_jobs = static_cast<int>(Int(args.Get("lemon_jobs", "3")));
}

void Scenario::Hello(const Args& args) {
  const std::string name = args.Word(1);
  FakeAgent agent;
  FakeAgent& old = agents_[name];
  agent.incarnation = args.Get("inc", old.incarnation.empty() ? "1" : old.incarnation);
  agent.host = args.Get("host", old.host.empty() ? name : old.host);
  agent.slots = old.slots;
  if (args.named.count("slots") > 0 || agent.slots.empty()) {
    agent.slots.clear();
    for (int i = 0; i < Int(args.Get("slots", "1")); ++i) {
      agent.slots.push_back({i, args.Get("kind", "cpu"), Int(args.Get("memory_gb", "8")) * kGb});
    }
  }
  agent.session = next_session_++;
  agent.nvlink = args.Get("nvlink", old.nvlink);
  agent.rack = args.Get("rack", old.rack);
  agent.sequence = old.sequence;  // the journal outlives the process
  AgentHelloEvent event{
      agent.session, WorkerId(name), agent.incarnation, agent.host, agent.host, "0.1.0", ""};
  event.slots = agent.slots;
  event.nvlink_domain = agent.nvlink;
  event.rack = agent.rack;
  std::map<std::pair<std::string, int64_t>, HeldGang> gangs;
  for (const std::string& held : List(args.Get("held"))) {  // J/E/R@SLOT[:exit=CODE]
    const std::vector<std::string> parts = absl::StrSplit(held, absl::ByAnyChar("/@:"));
    LL_CHECK(parts.size() >= 4);
    HeldGang& gang = gangs[{parts[0], Int(parts[1])}];
    gang.job = JobId(parts[0]);
    gang.epoch = Int(parts[1]);
    HeldRank rank{static_cast<int>(Int(parts[2])), static_cast<int>(Int(parts[3])),
                  parts.size() > 4};
    if (rank.exited)
      rank.exit = MakeExit(static_cast<int>(Int(parts[4].substr(5))), 0, false, "", "");
    gang.ranks.push_back(rank);
  }
  for (const auto& [key, gang] : gangs) event.gangs.push_back(gang);
  const auto& known = scheduler().workers();
  Give(event);
  auto it = known.find(WorkerId(name));
  if (it != known.end() && it->second.session == agent.session) agents_[name] = agent;
}

void Scenario::Submit(const Args& args) {
  SubmitEvent event{JobId(args.Word(1)), args.Get("request"), args.Get("body", "body"),
                    args.Get("user", "ann")};
  CoreSpec& spec = event.spec;
  const std::vector<std::string> sizes = absl::StrSplit(args.Get("gpus", "1"), '-');
  spec.gpus = static_cast<int>(Int(sizes[0]));
  if (sizes.size() > 1) spec.max_gpus = static_cast<int>(Int(sizes[1]));
  spec.batch_rows = static_cast<int>(Int(args.Get("rows", "0")));
  spec.copies_checkpoints = args.Get("copies", "no") == "yes";
  spec.priority = static_cast<int>(Int(args.Get("priority", "0")));
  spec.max_retries = static_cast<int>(Int(args.Get("max_retries", "3")));
  spec.max_headless = Duration(args.Get("max_headless", "24h"));
  spec.max_runtime = Duration(args.Get("max_runtime", "inf"));
  spec.ttl_after_finished = Duration(args.Get("ttl", "inf"));
  spec.required_slot_bytes = Int(args.Get("memory_gb", "0")) * kGb;
  spec.slot_kinds = List(args.Get("kinds"));
  spec.kinds_named = args.named.count("gpu_types") > 0;
  if (spec.kinds_named) spec.slot_kinds = List(args.Get("gpu_types"));
  spec.other_kinds = List(args.Get("other_kinds"));
  spec.queue = args.Get("queue");
  spec.forecast_duration = Duration(args.Get("forecast", "inf"));
  if (args.named.count("min_runtime") > 0) spec.min_runtime = Duration(args.Get("min_runtime"));
  if (args.named.count("deadline") > 0) spec.deadline = wall_ + Duration(args.Get("deadline"));
  for (const std::string& id : List(args.Get("after"))) spec.after.push_back(JobId(id));
  for (const std::string& id : List(args.Get("after_any"))) spec.after_any.push_back(JobId(id));
  event.payload = std::make_shared<JobPayload>(JobPayload{"spec of " + args.Word(1), "", ""});
  Give(event);
}

void Scenario::SubmitAll(const Args& args) {
  SubmitAllEvent event{args.Get("request"), args.Get("body", "body"), "ann", {}};
  for (size_t i = 1; i < args.words.size(); ++i) {
    const std::vector<std::string> source = absl::StrSplit(args.words[i], '@');
    const std::vector<std::string> after = absl::StrSplit(source[0], '<');
    Submission submission{JobId(after[0])};
    submission.spec.name = absl::StrCat("the-", after[0]);
    submission.spec.gpus = static_cast<int>(Int(args.Get("gpus", "1")));
    submission.spec.queue = args.Get("queue");
    if (after.size() > 1) {
      for (const std::string& id : List(after[1])) submission.spec.after.push_back(JobId(id));
    }
    if (source.size() > 1) submission.spec.source = JobId(source[1]);
    submission.payload = std::make_shared<JobPayload>(JobPayload{"spec of " + after[0], "", ""});
    event.jobs.push_back(std::move(submission));
  }
  Give(event);
}

bool Scenario::RunReport(const Args& args) {
  const std::string command = args.Word(0);
  if (command == "report") {
    Report(args.Word(1), args.Word(2), Int(args.Word(3)), static_cast<int>(Int(args.Word(4))), args,
           5);
  } else if (command == "train") {
    ReportAll(args.Word(1), {"started", "training"});
  } else if (command == "finish") {
    ReportAll(args.Word(1), {absl::StrCat("exit ", args.words.size() > 2 ? args.Word(2) : "0")});
  } else {
    return false;
  }
  return true;
}

void Scenario::ReportAll(const std::string& id, const std::vector<std::string>& what) {
  const Job* job = scheduler().Find(JobId(id));
  LL_CHECK_MSG(job != nullptr && job->attempt.has_value(), id.c_str());
  const Attempt attempt = *job->attempt;
  for (const std::string& fact : what) {
    for (size_t i = 0; i < attempt.ranks.size(); ++i) {
      if (attempt.ranks[i].phase == RankPhase::kExited) continue;
      Report(attempt.ranks[i].worker.value(), id, attempt.epoch, static_cast<int>(i), Parse(fact),
             0);
    }
  }
}

void Scenario::Report(const std::string& worker, const std::string& job, int64_t epoch, int rank,
                      const Args& args, size_t at) {
  FakeAgent& agent = agents_[worker];
  ReportEvent event{WorkerId(worker), agent.session, JobId(job), epoch, rank};
  int64_t& sequence = agent.sequence[{job, epoch}];
  if (!args.Has("repeat")) ++sequence;
  event.sequence = Int(args.Get("seq", absl::StrCat(sequence)));
  const std::string what = args.Word(at);
  if (what == "started") {
    event.fact = StartedFact{};
  } else if (what == "rendezvous") {
    event.fact = RendezvousFact{args.Word(at + 1)};
  } else if (what == "training") {
    event.fact = TrainingFact{};
  } else if (what == "checkpoint") {
    const std::string step = args.Word(at + 1);
    event.fact = CheckpointFact{Int(step), absl::StrCat("/jobs/", job, "/e", epoch, "/step-", step),
                                "hash-" + step};
  } else if (what == "exit") {
    RankExit exit = MakeExit(static_cast<int>(Int(args.Word(at + 1))),
                             static_cast<int>(Int(args.Get("signal", "0"))), args.Has("ordered"),
                             args.Get("class"), args.Get("message"));
    exit.lost = args.Has("lost");
    exit.caused_by = static_cast<int>(Int(args.Get("caused_by", "-1")));
    event.fact = ExitFact{std::move(exit), "result"};
  } else if (what == "refused") {
    event.fact = RefusedFact{{Class(args.Get("class")), args.Get("message")}, args.Has("leaving")};
  } else {
    Out("bad report: " + what);
    return;
  }
  Give(event);
}

void Scenario::Give(const Event& event) {
  Effects effects = scheduler().Step(event, Now());
  if (std::exchange(lose_commit_, false)) store_.FailNext(absl::UnavailableError("disk"));
  const absl::Status committed = store_.Commit(effects.records);
  if (!committed.ok()) {
    Out("commit failed: nothing is sent; starting again from the store");
    Restart();
    return;
  }
  Print(effects);
  scheduler().CheckInvariants();
}

void Scenario::Print(const Effects& effects) {
  if (!effects.reply.status.ok()) {
    Out(absl::StrCat("error ", absl::StatusCodeToString(effects.reply.status.code()), ": ",
                     std::string(effects.reply.status.message())));
  } else if (effects.reply.existed) {
    Out(absl::StrCat(effects.reply.jobs.size() > 1 ? "the earlier jobs: " : "the earlier job: ",
                     absl::StrJoin(effects.reply.jobs, ", ", [](std::string* out, const JobId& id) {
                       out->append(id.value());
                     })));
  }
  for (const Record& record : effects.records) {
    if (const auto* put = std::get_if<PutTransition>(&record)) {
      Out(absl::StrCat(put->job.value(), " ", std::string(JobStateName(put->transition.state)),
                       ": ", put->transition.reason));
    } else if (const auto* gone = std::get_if<DeleteJob>(&record)) {
      Out(absl::StrCat(gone->job.value(), " deleted"));
    } else if (const auto* run = std::get_if<PutScheduleRun>(&record)) {
      PrintRun(*run);
    } else if (const auto* schedule = std::get_if<PutSchedule>(&record)) {
      Out(absl::StrCat(
          schedule->schedule.name, schedule->schedule.paused ? " held, next " : " next ",
          absl::FormatTime(absl::RFC3339_sec, schedule->schedule.next_fire, absl::UTCTimeZone())));
    }
  }
  for (const Send& send : effects.sends) PrintSend(send);
  for (const JobId& id : effects.changed_jobs) {
    const Job* job = scheduler().Find(id);
    if (job == nullptr) continue;
    if (job->state == JobState::kQueued && !job->wait_reason.empty() &&
        wait_printed_[id] != job->wait_reason) {
      Out(absl::StrCat(id.value(), " waits: ", job->wait_reason));
    }
    wait_printed_[id] = job->wait_reason;
    if (job->headless && headless_printed_.insert(id).second)
      Out(absl::StrCat(id.value(), " is headless"));
    if (!job->headless && headless_printed_.erase(id) > 0)
      Out(absl::StrCat(id.value(), " is no longer headless"));
  }
  for (const std::string& note : effects.notes) Out("note: " + note);
}

void Scenario::PrintRun(const PutScheduleRun& put) {
  const ScheduleRun& run = put.run;
  std::string text =
      absl::StrCat(put.schedule, " #", run.number, " of ",
                   absl::FormatTime(absl::RFC3339_sec, run.fire_time, absl::UTCTimeZone()));
  if (run.fires > 1) absl::StrAppend(&text, " and ", run.fires - 1, " before");
  absl::StrAppend(&text, run.job.empty() ? " left out" : absl::StrCat(": ", run.job.value()));
  if (!run.reason.empty()) absl::StrAppend(&text, " (", run.reason, ")");
  static constexpr const char* kResults[] = {"",          "baseline", "better", "same",
                                             "regressed", "failed",   "unknown"};
  if (run.judgement.result != RunResult::kPending) {
    absl::StrAppend(&text, " ", kResults[static_cast<int>(run.judgement.result)], ": ",
                    run.judgement.reason);
  }
  Out(text);
}

void Scenario::PrintSend(const Send& send) {
  std::string text = absl::StrCat("-> ", send.worker.value(), " ");
  if (const auto* welcome = std::get_if<WelcomeOrder>(&send.order)) {
    absl::StrAppend(&text, "Welcome");
    for (const Verdict& verdict : welcome->verdicts) {
      absl::StrAppend(&text, verdict.keep ? " keep " : " kill ", verdict.job.value(), "/",
                      verdict.epoch, " after #", verdict.report_sequence);
    }
  } else if (const auto* reject = std::get_if<RejectHelloOrder>(&send.order)) {
    absl::StrAppend(&text, "RejectHello ", absl::StatusCodeToString(reject->status.code()));
  } else if (const auto* start = std::get_if<StartGangOrder>(&send.order)) {
    absl::StrAppend(&text, "StartGang ", start->job.value(), "/", start->epoch, " ranks");
    for (const RankPlace& place : start->ranks)
      absl::StrAppend(&text, " ", place.rank, "@", place.slot);
    absl::StrAppend(&text, " of ", start->world_size);
    if (start->resume_from.has_value()) absl::StrAppend(&text, " from ", start->resume_from->path);
    if (start->source.has_value()) absl::StrAppend(&text, " source ", start->source->path);
  } else if (const auto* stop = std::get_if<StopGangOrder>(&send.order)) {
    absl::StrAppend(&text, "StopGang ", stop->job.value(), "/", stop->epoch,
                    stop->checkpoint ? " checkpoint" : " kill");
    if (stop->checkpoint) absl::StrAppend(&text, " within ", HumanDuration(stop->grace));
  } else if (const auto* rendezvous = std::get_if<RendezvousOrder>(&send.order)) {
    absl::StrAppend(&text, "Rendezvous ", rendezvous->job.value(), "/", rendezvous->epoch, " ",
                    rendezvous->address);
  } else if (const auto* release = std::get_if<ReleaseGangOrder>(&send.order)) {
    absl::StrAppend(&text, "ReleaseGang ", release->job.value(), "/", release->epoch);
  } else if (const auto* ack = std::get_if<ReportAckOrder>(&send.order)) {
    if (!acks_) return;
    absl::StrAppend(&text, "ReportAck ", ack->job.value(), "/", ack->epoch, " #", ack->sequence);
  }
  Out(text);
}

void Scenario::PrintJob(const JobId& id) {
  const Job* job = scheduler().Find(id);
  if (job == nullptr) {
    Out(absl::StrCat(id.value(), " is not known"));
    return;
  }
  std::string text = absl::StrCat(id.value(), " ", std::string(JobStateName(job->state)), " epoch ",
                                  job->epoch, " retries ", job->retries);
  if (job->newest_checkpoint.has_value())
    absl::StrAppend(&text, " checkpoint ", job->newest_checkpoint->path);
  if (job->failure_class != FailureClass::kNone) {
    absl::StrAppend(&text, " failed by ", std::string(FailureClassName(job->failure_class)));
  }
  if (job->headless) absl::StrAppend(&text, " headless");
  Out(text);
}

}  // namespace ll
