// A coordinator in miniature, driven by text commands, that answers with what it did. Between the
// commands and the scheduler it does what the real driver does: persist, then send.
//
// Commands (NAME=VALUE arguments in any order; J a job, W a worker, E an epoch, R a rank):
//   option [shared_job_store] [lease=] [start_deadline=] [stop_grace=] [finish_deadline=]
//          [min_runtime=] [half_life=] [lemon_jobs=N] [grow_after_idle=] [resize_interval=]
//          [restart_cost=]
//                     durations as 30s; before the first event
//   hello W [inc=X] [host=H] [slots=N] [kind=K] [memory_gb=N] [nvlink=D] [rack=R]
//           [held=J/E/R@SLOT[:exit=CODE],…]
//   gone W            the stream ends
//   dead W            the operator declares the host dead
//   mute W, unmute W  its heartbeats stop, go on; the stream stays
//   submit J [gpus=N|N-M] [rows=] [priority=] [after=J,J] [request=ID] [body=TEXT] [max_retries=]
//            [max_headless=] [max_runtime=] [memory_gb=] [kinds=K,K] [ttl=] [queue=] [forecast=]
//            [min_runtime=] [after_any=J,J] [deadline=FROM_NOW] [gpu_types=K,K [other_kinds=K,K]]
//   submit_all J[<A,A][@S] …  [request=ID] [body=TEXT] [gpus=] [queue=]
//                     several jobs in one step: A: after; S: the job whose checkpoint it starts
//                     from
//   queue Q [weight=] [quota=GPUS] [max=GPUS] [jobs=N]
//   cordon W, uncordon W, drain W [reason=WORD]
//   schedule S cron=M_H_D_M_W [tz=ZONE] [missed=last|skip|all] [overlap=skip|queue|cancel_old]
//            [start_within=] [gpus=] [stages=N] [replace]
//                     stages: N jobs a run, one after the other
//   unschedule S, hold S, unhold S, run S J [request=ID]
//   judge S RUN [loss=X] [curve=STEP:LOSS,…]
//   cancel J, pause J, resume J
//   report W J E R FACT [class=C] [signal=N] [ordered] [caused_by=RANK] [message=WORD] [seq=N]
//                     [repeat]
//                     FACT: started, rendezvous ADDR, training, checkpoint STEP, exit CODE, refused
//   train J           every rank of the current attempt reports started and training
//   finish J [CODE]   every running rank reports its exit (0)
//   tick DURATION     one tick a second, with heartbeats of all connected workers not muted
//   sleep DURATION    the coordinator does nothing for so long (no ticks), then ticks once
//   clock DURATION    the wall clock jumps, also back (-3h); the next tick sees it
//   restart           kill -9 and start again from the store; every stream is gone
//   lose-commit       the next event's transaction fails; the coordinator starts from the store
//   why J, show J, workers
//   acks              print report acknowledgements from now on
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "coordinator/core/scheduler.h"
#include "coordinator/store/mem_store.h"

namespace ll {

class Scenario {
 public:
  // One command line in, lines of what happened out. A line that cannot be understood gives "bad
  // command: …".
  std::string Execute(const std::string& line);

 private:
  struct Args {
    std::vector<std::string> words;
    std::map<std::string, std::string> named;
    std::string Word(size_t i) const { return i < words.size() ? words[i] : ""; }
    std::string Get(const std::string& name, const std::string& fallback = "") const {
      auto it = named.find(name);
      return it == named.end() ? fallback : it->second;
    }
    bool Has(const std::string& word) const;
  };
  struct FakeAgent {
    std::string incarnation, host, nvlink, rack;
    std::vector<Slot> slots;
    uint64_t session = 0;  // 0: no stream
    bool muted = false;
    std::map<std::pair<std::string, int64_t>, int64_t> sequence;  // of reports, by (job, epoch)
  };

  static Args Parse(const std::string& line);
  bool Run(const Args& args);
  bool RunTime(const Args& args);
  bool RunReport(const Args& args);
  void Option(const Args& args);
  void Hello(const Args& args);
  void Submit(const Args& args);
  void SubmitAll(const Args& args);
  bool RunOperator(const Args& args);
  bool RunSchedule(const Args& args);
  void SetSchedule(const Args& args);
  void ReportAll(const std::string& job, const std::vector<std::string>& what);
  void Report(const std::string& worker, const std::string& job, int64_t epoch, int rank,
              const Args& args, size_t at);
  void Give(const Event& event);
  void Print(const Effects& effects);
  void PrintSend(const Send& send);
  void PrintRun(const PutScheduleRun& put);
  void PrintJob(const JobId& id);
  void Restart();
  void Out(const std::string& line) { out_ += line + "\n"; }
  Scheduler& scheduler();
  StepTime Now() const { return {steady_, wall_}; }

  SchedulerOptions options_;
  MemStore store_;
  std::unique_ptr<Scheduler> scheduler_;
  std::map<std::string, FakeAgent> agents_;
  uint64_t next_session_ = 1;
  absl::Duration steady_ = absl::ZeroDuration();
  absl::Time wall_ = absl::FromUnixSeconds(1'700'000'000);
  bool acks_ = false;
  bool lose_commit_ = false;
  std::map<JobId, std::string> wait_printed_;
  std::set<JobId> headless_printed_;
  std::string out_;
};

}  // namespace ll
