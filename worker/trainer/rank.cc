#include "worker/trainer/rank.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

#include <ATen/Parallel.h>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/spec/gate.h"
#include "model/torch_edge.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/comm/watchdog.h"
#include "worker/trainer/control.h"
#include "worker/trainer/device.h"
#include "worker/trainer/error_class.h"
#include "worker/trainer/eval/eval_model.h"
#include "worker/trainer/event_sink.h"
#include "worker/trainer/generate/serve.h"
#include "worker/trainer/merge/merge.h"
#include "worker/trainer/resume.h"
#include "worker/trainer/train_loop.h"
#include "worker/trainer/verify.h"

namespace ll {
namespace {

// Everything a rank holds while it runs, in the order it is made.
struct Session {
  const RankFlags& flags;
  std::unique_ptr<EventSink> events;
  std::unique_ptr<ControlChannel> control;
  std::shared_ptr<Watchdog> watch;   // null where there is one rank
  std::unique_ptr<Comm> comm;        // until the error has been told that this process ends with
  std::atomic<bool> ending = false;  // somebody reports the error this process ends with

  // True for the first who asks; the others must not report anything more.
  bool MayReport() { return !ending.exchange(true); }
};

// The watch's thread: the main thread waits for a rank that will never answer.
void EndAtOnce(Session& session, const absl::Status& lost) {
  if (!session.MayReport()) return;
  session.events->Error(lost);
  _exit(ReportToStderr(lost));
}

absl::Status LockFolder(const std::string& out) {
  const std::string path = out + "/.lock";
  const int fd = open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus(errno, "cannot create", path);
  // Held until the process ends, however it ends.
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    close(fd);
    return FieldStatus(absl::StatusCode::kFailedPrecondition, "--out",
                       absl::StrCat(out, " is used by another ll-trainer"),
                       "wait for it, or give another folder");
  }
  return absl::OkStatus();
}

// The folder comes into being here, when everything the user can get wrong has been checked.
absl::Status OpenOutput(Session& session) {
  const RankFlags& flags = session.flags;
  if (flags.rank != 0) return absl::OkStatus();
  if (flags.out.empty()) return MakeFieldError({"--out", "a folder", "nothing"});
  LL_RETURN_IF_ERROR(MakeDirs(flags.out));
  LL_RETURN_IF_ERROR(LockFolder(flags.out));
  if (flags.events_fd >= 0) return absl::OkStatus();
  LL_ASSIGN_OR_RETURN(session.events, EventSink::WithFile(RealClock(), flags.rank, STDOUT_FILENO,
                                                          flags.out + "/events.jsonl"));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Comm>> Rendezvous(Session& session) {
  const RankFlags& flags = session.flags;
  if (flags.world_size == 1) return MakeSingleComm();
  session.events->Phase("rendezvous");
  CommOptions options;
  options.rank = flags.rank;
  options.world_size = flags.world_size;
  options.host = flags.listen_host;
  options.nonce = absl::StrCat(flags.nonce, "/", flags.epoch);
  options.collective_timeout = absl::Seconds(flags.collective_timeout_seconds);
  std::unique_ptr<RendezvousStore> store;
  if (flags.rank == 0) {
    std::string address;
    LL_ASSIGN_OR_RETURN(store, RendezvousStore::Listen(options, &address));
    session.events->Emit("rendezvous", {{"address", address}});
  } else {
    std::string address = flags.rendezvous;
    if (address.empty()) {
      LL_ASSIGN_OR_RETURN(address, session.control->WaitForRendezvous(options.rendezvous_timeout));
    }
    LL_ASSIGN_OR_RETURN(store, RendezvousStore::Connect(options, address));
  }
  WatchdogOptions watch;
  watch.silence = absl::Seconds(flags.peer_silence_seconds);
  watch.on_lost = [&session](const absl::Status& lost) { EndAtOnce(session, lost); };
  LL_ASSIGN_OR_RETURN(session.watch, Watchdog::Start(*store, options, watch));
  options.watch = session.watch;
  // A rank's GPU is the first that it sees.
  if (ProcessDevice().is_cuda()) return MakeNcclComm(std::move(store), options, 0);
  return MakeGlooComm(std::move(store), options);
}

absl::StatusOr<int> RunTrain(const JobSpec& spec, Session& session) {
  const RankFlags& flags = session.flags;
  PackPlace place{flags.out, flags.rank, {}};
  place.progress = [&session](int64_t done, int64_t total) {
    session.events->Phase("pack", {{"bytes_done", done}, {"bytes_total", total}});
  };
  LL_ASSIGN_OR_RETURN(Training training,
                      PrepareTraining(spec, flags.world_size, place, flags.random_weights));
  LL_RETURN_IF_ERROR(OpenOutput(session));
  LL_ASSIGN_OR_RETURN(session.comm, Rendezvous(session));
  // Until now there was nothing to keep.
  if (flags.heeds_ctrl_c) {
    StopOnInterrupt(
        "ll-trainer: interrupted: finishes this step, writes a checkpoint and ends; a second "
        "Ctrl-C ends it at once\n");
  }
  TrainOptions options;
  options.out = flags.out;
  options.epoch = flags.epoch;
  options.resume_from = flags.resume_from;
  options.resume_manifest_sha256 = flags.resume_manifest_sha256;
  options.peak_flops = flags.peak_tflops * 1e12;
  options.stop_requested = StopRequested;
  options.take_checkpoint_request = TakeCheckpointRequest;
  LL_ASSIGN_OR_RETURN(const TrainOutcome outcome,
                      Train(training, *session.comm, *session.events, options));
  session.comm->Close().IgnoreError();  // what counts has been done
  return outcome == TrainOutcome::kStopped ? kExitStopped : 0;
}

absl::StatusOr<int> RunVerify(const JobSpec& given, Session& session) {
  const RankFlags& flags = session.flags;
  LL_ASSIGN_OR_RETURN(const JobSpec asked, Resolve(given));
  if (!asked.adapter) return MakeFieldError({"adapter", "a checkpoint's folder", "nothing"});
  LL_ASSIGN_OR_RETURN(const VerifyWindow window,
                      FindVerifyWindow(*asked.adapter, asked.max_steps.value_or(0)));
  LL_ASSIGN_OR_RETURN(Training training, PrepareTraining(SpecToVerify(window), flags.world_size,
                                                         {flags.out, flags.rank, {}}));
  if (training.data_fingerprint != window.to_state.data_fingerprint) {
    return FieldStatus(
        absl::StatusCode::kFailedPrecondition, "data",
        absl::StrCat(*training.spec.data, " is not the file that ", window.to, " was trained on"));
  }
  LL_RETURN_IF_ERROR(OpenOutput(session));
  LL_ASSIGN_OR_RETURN(session.comm, Rendezvous(session));
  LL_RETURN_IF_ERROR(CheckSamePlan(window, PlanOf(training, *session.comm)));
  if (flags.rank == 0 && !window.changed.empty()) {
    session.events->Warning(
        absl::StrCat("taken to have changed at step ", window.from_step, ": ", window.changed));
  }
  TrainOptions options;
  options.out = flags.out;
  options.resume_from = window.from;
  options.verify_against = window.to;
  options.stop_at = window.to_step;
  options.stop_requested = StopRequested;
  LL_ASSIGN_OR_RETURN(const TrainOutcome outcome,
                      Train(training, *session.comm, *session.events, options));
  session.comm->Close().IgnoreError();  // what counts has been done
  return outcome == TrainOutcome::kStopped ? kExitStopped : 0;
}

absl::StatusOr<int> RunEval(const JobSpec& given, Session& session) {
  LL_ASSIGN_OR_RETURN(const JobSpec spec, Resolve(given));
  LL_ASSIGN_OR_RETURN(const EvalRequest request, EvalRequestOf(spec));
  LL_RETURN_IF_ERROR(OpenOutput(session));
  EndOnStop();
  LL_ASSIGN_OR_RETURN(session.comm, Rendezvous(session));
  LL_ASSIGN_OR_RETURN(nlohmann::ordered_json result,
                      Evaluate(request, *session.comm, *session.events));
  session.comm->Close().IgnoreError();  // what counts has been done
  if (session.flags.rank != 0) return 0;
  std::vector<GateOutcome> outcomes;
  if (spec.gate) {
    LL_ASSIGN_OR_RETURN(const std::vector<Gate> gates, ParseGates(*spec.gate));
    LL_ASSIGN_OR_RETURN(outcomes, HoldGates(gates, result));
    result["gates"] = GatesToJson(outcomes);
  }
  session.events->Emit("eval", result);
  session.events->Emit("done", {{"result", result}});
  // After the result is out: what was measured is worth having also where it is not enough.
  LL_RETURN_IF_ERROR(GateStatus(outcomes));
  return 0;
}

absl::StatusOr<int> RunGenerate(const JobSpec& given, Session& session) {
  LL_ASSIGN_OR_RETURN(const JobSpec spec, Resolve(given));
  LL_RETURN_IF_ERROR(OpenOutput(session));
  return ServeChat(spec, *session.control, *session.events, RealClock());
}

absl::StatusOr<int> RunMerge(const JobSpec& given, Session& session) {
  LL_ASSIGN_OR_RETURN(const JobSpec spec, Resolve(given));
  LL_RETURN_IF_ERROR(OpenOutput(session));
  LL_ASSIGN_OR_RETURN(const MergeRequest request, MergeRequestOf(spec, session.flags.out));
  if (session.flags.heeds_ctrl_c) StopOnInterrupt(kMergeInterrupted);
  const auto result = Merge(request, *session.events, StopRequested);
  if (absl::IsCancelled(result.status())) return kExitStopped;
  LL_RETURN_IF_ERROR(result.status());
  session.events->Emit("done", {{"result", *result}});
  return 0;
}

// No rank is waited for without an end. What is no number is no wait.
absl::Status CheckWait(absl::string_view flag, double seconds) {
  constexpr double kMost = 86'400;
  if (seconds >= 1 && seconds <= kMost) return absl::OkStatus();
  return MakeFieldError({flag, absl::StrCat("1 to ", kMost, " seconds"), absl::StrCat(seconds)});
}

absl::StatusOr<int> RunKind(const JobSpec& spec, Session& session) {
  LL_RETURN_IF_ERROR(CheckWait("--collective-timeout-s", session.flags.collective_timeout_seconds));
  LL_RETURN_IF_ERROR(CheckWait("--peer-silence-s", session.flags.peer_silence_seconds));
  const std::string kind = spec.kind.value_or("train");
  // A merge is the host's work; no GPU is opened for it.
  const std::string device = kind == "merge" ? "cpu" : session.flags.device;
  LL_RETURN_IF_ERROR(UseDevice(device, spec.deterministic.value_or(true)));
  if (kind == "train") return RunTrain(spec, session);
  if (kind == "verify") return RunVerify(spec, session);
  if (kind == "eval") return RunEval(spec, session);
  if (kind == "generate") return RunGenerate(spec, session);
  if (kind == "merge") return RunMerge(spec, session);
  return FieldStatus(absl::StatusCode::kUnimplemented, "kind",
                     absl::StrCat(kind, " is not available in this version"),
                     "use train, eval, merge, generate or verify");
}

}  // namespace

void SetThreads(int threads, int local_ranks) {
  if (threads <= 0 && std::getenv("OMP_NUM_THREADS") == nullptr) {
    threads = std::max(
        1, static_cast<int>(std::thread::hardware_concurrency()) / std::max(1, local_ranks));
  }
  if (threads > 0) at::set_num_threads(threads);
}

int ReportToStderr(const absl::Status& status) {
  const std::string hint = ErrorHint(status);
  std::string line = absl::StrCat("ll-trainer: ", status.message());
  if (!hint.empty() && line.find(hint) == std::string::npos) absl::StrAppend(&line, "; ", hint);
  std::fprintf(stderr, "%s\n", line.c_str());
  return ExitCodeOf(ErrorClassOf(status));
}

int RunRank(const JobSpec& spec, const RankFlags& flags) {
  SetThreads(flags.threads, flags.world_size);
  InstallSignalHandlers();
  Session session{flags};
  session.events = std::make_unique<EventSink>(
      RealClock(), flags.rank, flags.events_fd >= 0 ? flags.events_fd : STDOUT_FILENO);
  session.control = std::make_unique<ControlChannel>(flags.control_fd);
  int exit_code = 0;
  const absl::Status status = TorchTry([&]() -> absl::Status {
    LL_ASSIGN_OR_RETURN(exit_code, RunKind(spec, session));
    return absl::OkStatus();
  });
  if (status.ok()) return exit_code;
  if (session.watch != nullptr) session.watch->Fail(status);
  while (!session.MayReport()) pause();  // until EndAtOnce has ended the process
  session.events->Error(status);
  exit_code = ReportToStderr(status);
  if (ProcessDevice().is_cpu()) return exit_code;
  // A GPU that is lost takes nothing back, and what NCCL holds is given back by all ranks or not at
  // all: a destructor would wait for them or abort, and this exit code would be another.
  if (session.watch != nullptr) session.watch->Stop();
  _exit(exit_code);
}

}  // namespace ll
