// A stand-in for ll-trainer in tests of the service: the same command line, events, signals and
// exit codes, and steps of a few milliseconds. Its loss is a function of (seed, every step so far):
// a lost, repeated or reordered step, or a resume from the wrong state, shows in every later loss.
//
// What it is to do wrong stands in the spec's labels; they apply to `fake.rank` (default 0) in
// `fake.epoch` (default 1) at `fake.step` (default 5):
//   fake.fault: crash | segv | exit:N | hang | nan | garbage | long_line | child | ignore_term |
//     slow_exit
// and at any time:
//   fake.step_ms, fake.load_ms: time of a step (default 5) and of the load phase (default 0)
//   fake.until_stopped: "1" goes on past max_steps until told to stop
//   fake.hold_at: behind this step it waits until $HOME/go is there, or for a signal
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "base/ids.h"
#include "base/sha256.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

using Json = nlohmann::ordered_json;
constexpr int kPeerDeadlineMs = 30'000;

std::atomic<bool> g_stop = false, g_save = false;

[[noreturn]] void Exit(int code) {
  std::fflush(nullptr);
  _exit(code);
}

class Events {
 public:
  Events(int fd, int rank) : fd_(fd), rank_(rank) {}
  void Emit(const std::string& name, Json fields) {
    Json event = {
        {"event", name},
        {"time", absl::FormatTime("%Y-%m-%d%ET%H:%M:%E6SZ", absl::Now(), absl::UTCTimeZone())},
        {"rank", rank_}};
    event.update(fields);
    Raw(event.dump() + "\n");
  }
  void Raw(absl::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) Exit(30);
      bytes.remove_prefix(n);
    }
  }

 private:
  int fd_, rank_;
};

[[noreturn]] void Fail(Events& events, int code, const std::string& error_class,
                       const std::string& message) {
  events.Emit("error", {{"class", error_class}, {"field", ""}, {"message", message}, {"hint", ""}});
  std::fprintf(stderr, "fake_trainer: %s\n", message.c_str());
  Exit(code);
}

// What a rank adds at a step and what comes back, both as whole structs over TCP.
struct Contribution {
  uint64_t value;
  uint32_t stop, save;
};

// All ranks in step: rank 0 adds up and tells everyone. The loss of a peer ends this rank with 30.
class Group {
 public:
  Group(int rank, int world, Events& events) : rank_(rank), world_(world), events_(events) {}

  void Listen(const std::string& host, const std::string& nonce) {
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    inet_pton(AF_INET, host.c_str(), &address.sin_addr);
    socklen_t length = sizeof address;
    if (bind(listener, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
        listen(listener, 16) != 0) {
      Fail(events_, 30, "infrastructure", "cannot listen");
    }
    getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length);
    events_.Emit("rendezvous", {{"address", absl::StrCat(host, ":", ntohs(address.sin_port))}});
    while (static_cast<int>(peers_.size()) < world_ - 1) {
      pollfd wait{listener, POLLIN, 0};
      if (Again([&] { return poll(&wait, 1, kPeerDeadlineMs); }) <= 0)
        Fail(events_, 30, "infrastructure", "a rank did not join");
      const int peer = Again([&] { return accept(listener, nullptr, nullptr); });
      char hello[64] = {};
      Read(peer, hello, sizeof hello);
      if (nonce.substr(0, 63) != hello)
        Fail(events_, 30, "infrastructure", "a rank of another attempt joined");
      peers_.push_back(peer);
    }
  }

  void Join(const std::string& rendezvous, const std::string& nonce) {
    const size_t colon = rendezvous.rfind(':');
    sockaddr_in address{};
    address.sin_family = AF_INET;
    inet_pton(AF_INET, rendezvous.substr(0, colon).c_str(), &address.sin_addr);
    address.sin_port = htons(atoi(rendezvous.c_str() + colon + 1));
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      Fail(events_, 30, "infrastructure", absl::StrCat("cannot reach rank 0 at ", rendezvous));
    }
    char hello[64] = {};
    std::strncpy(hello, nonce.c_str(), 63);
    Write(fd, hello, sizeof hello);
    peers_.push_back(fd);
  }

  Contribution Reduce(Contribution mine) {
    if (world_ == 1) return mine;
    if (rank_ != 0) {
      Write(peers_[0], &mine, sizeof mine);
      Read(peers_[0], &mine, sizeof mine);
      return mine;
    }
    for (int peer : peers_) {
      Contribution theirs;
      Read(peer, &theirs, sizeof theirs);
      mine.value += theirs.value;  // wraps; the order of ranks does not matter
      mine.stop |= theirs.stop;
      mine.save |= theirs.save;
    }
    for (int peer : peers_) Write(peer, &mine, sizeof mine);
    return mine;
  }

 private:
  // Calls again what a signal interrupted: an order to stop arrives as one, at any moment.
  template <typename Call>
  static ssize_t Again(Call call) {
    ssize_t n;
    do n = call();
    while (n < 0 && errno == EINTR);
    return n;
  }
  void Read(int fd, void* bytes, size_t size) {
    Whole(bytes, size, [fd](char* at, size_t left) { return recv(fd, at, left, 0); });
  }
  void Write(int fd, void* bytes, size_t size) {
    Whole(bytes, size, [fd](char* at, size_t left) { return send(fd, at, left, MSG_NOSIGNAL); });
  }
  template <typename Move>
  void Whole(void* bytes, size_t size, Move move) {
    for (char* at = static_cast<char*>(bytes); size > 0;) {
      const ssize_t n = Again([&] { return move(at, size); });
      if (n <= 0) Fail(events_, 30, "infrastructure", "lost another rank");
      at += n;
      size -= n;
    }
  }

  int rank_, world_;
  Events& events_;
  std::vector<int> peers_;
};

uint64_t Mix(uint64_t a, uint64_t b) { return SeededRandom(a * 0x9e3779b97f4a7c15ull + b).Next(); }

class Trainer {
 public:
  explicit Trainer(std::map<std::string, std::string> flags)
      : flags_(std::move(flags)),
        rank_(Integer("rank")),
        world_(Integer("world")),
        epoch_(Integer("epoch")),
        events_(Integer("events-fd"), rank_),
        group_(rank_, world_, events_) {
    const auto text = ReadFile(flags_["spec"]);
    if (!text.ok()) Fail(events_, 20, "user", std::string(text.status().message()));
    spec_ = Json::parse(*text);
  }

  void Run() {
    WatchControl();
    events_.Emit("phase", {{"phase", "load"}});
    Sleep(Label("fake.load_ms", 0));
    if (spec_.value("model", "") == "missing")
      Fail(events_, 20, "user", "model: expected a folder, found missing");
    Restore();
    events_.Emit("phase", {{"phase", "rendezvous"}});
    if (rank_ == 0) {
      group_.Listen(flags_["listen-host"], flags_["nonce"]);
    } else {
      group_.Join(AwaitRendezvous(), flags_["nonce"]);
    }
    const std::string kind = spec_.value("kind", "train");
    if (kind == "eval") Evaluate();
    if (kind == "merge") Merge();
    Train();
  }

 private:
  int Integer(const std::string& flag) { return atoi(flags_[flag].c_str()); }
  std::string Text(const std::string& label) {
    return spec_.contains("labels") ? spec_["labels"].value(label, std::string()) : std::string();
  }
  int64_t Label(const std::string& label, int64_t otherwise) {
    int64_t value;
    return absl::SimpleAtoi(Text(label), &value) ? value : otherwise;
  }
  static void Sleep(int64_t ms) {
    const absl::Time until = absl::Now() + absl::Milliseconds(ms);
    while (absl::Now() < until)
      absl::SleepFor(std::min(until - absl::Now(), absl::Milliseconds(5)));
  }

  // The control descriptor's end means that the agent is gone.
  void WatchControl() {
    std::thread([this] {
      std::string line;
      char c;
      ssize_t n;
      while ((n = read(Integer("control-fd"), &c, 1)) == 1 || (n < 0 && errno == EINTR)) {
        if (n < 0) continue;
        if (c != '\n') {
          line += c;
          continue;
        }
        const Json message = Json::parse(line, nullptr, false);
        line.clear();
        if (!message.is_object() || !message.contains("rendezvous")) continue;
        auto* address = new std::string(message["rendezvous"].get<std::string>());
        rendezvous_.store(address);  // kept: read by the main thread until the end
      }
      Exit(30);
    }).detach();
  }

  std::string AwaitRendezvous() {
    for (int i = 0; i < kPeerDeadlineMs / 2; ++i) {
      if (const std::string* address = rendezvous_.load()) return *address;
      absl::SleepFor(absl::Milliseconds(2));
    }
    Fail(events_, 30, "infrastructure", "rendezvous: no word of rank 0");
  }

  void Restore() {
    state_ = Mix(spec_.value("seed", int64_t{0}), 17);
    const std::string from = flags_["resume-from"];
    if (from.empty()) return;
    const auto text = ReadFile(from + "/state.json");
    if (!text.ok() || !FileExists(from + "/COMPLETE")) {
      Fail(events_, 30, "infrastructure", absl::StrCat("no complete checkpoint in ", from));
    }
    if (Sha256Hex(*text) != flags_["resume-manifest"])
      Fail(events_, 30, "infrastructure", "checkpoint's hash differs");
    const Json state = Json::parse(*text);
    step_ = state["step"].get<int64_t>();
    state_ = state["state"].get<uint64_t>();
  }

  void Checkpoint() {
    if (rank_ != 0 || step_ == saved_step_) return;
    const std::string name = absl::StrFormat("step-%06d", step_);
    const std::string folder = absl::StrCat(flags_["out"], "/checkpoints/", name);
    const std::string temporary = absl::StrCat(flags_["out"], "/checkpoints/.tmp-", name);
    const std::string text = Json{{"step", step_}, {"state", state_}}.dump();
    absl::Status status = MakeDirs(temporary);
    if (status.ok()) status = WriteFileAtomic(temporary + "/state.json", text);
    if (status.ok()) status = WriteFileAtomic(temporary + "/COMPLETE", "");
    if (status.ok()) status = RenameDurably(temporary, folder);
    if (!status.ok()) {
      RemoveTree(temporary).IgnoreError();
      events_.Emit(
          "warning",
          {{"message", absl::StrCat("checkpoint failed: ", std::string(status.message()))}});
      if (step_ >= spec_.value("max_steps", int64_t{100}))
        Fail(events_, 30, "infrastructure", "the final checkpoint");
      return;
    }
    saved_step_ = step_;
    events_.Emit("checkpoint", {{"step", step_},
                                {"path", folder},
                                {"manifest_sha256", Sha256Hex(text)},
                                {"bytes", text.size()},
                                {"seconds", 0.001}});
  }

  double Loss() const { return 2.0 + static_cast<double>(state_ >> 11) / 9007199254740992.0; }

  void Train() {
    const int64_t max_steps = spec_.value("max_steps", int64_t{100}),
                  save = spec_.value("save_steps", int64_t{0});
    const int64_t step_ms = Label("fake.step_ms", 5);
    const bool forever = Text("fake.until_stopped") == "1";
    events_.Emit("phase", {{"phase", "train"}, {"step", step_}});
    while (step_ < max_steps || forever) {
      Fault();
      Hold();
      Sleep(step_ms);
      const Contribution sum =
          group_.Reduce({Mix(spec_.value("seed", int64_t{0}), step_ * 64 + rank_),
                         ignore_term_ ? 0u : uint32_t{g_stop}, uint32_t{g_save.exchange(false)}});
      state_ = Mix(state_, sum.value);
      ++step_;
      EmitStep(step_ms);
      if (sum.save || (save > 0 && step_ % save == 0)) Checkpoint();
      if (sum.stop) {
        Checkpoint();
        events_.Emit("phase", {{"phase", "checkpoint"}, {"step", step_}});
        Exit(10);
      }
    }
    Checkpoint();
    if (rank_ == 0) {
      events_.Emit(
          "done",
          {{"result", {{"final_loss", Loss()}, {"steps", step_}, {"tokens", step_ * 1024}}}});
    }
    Exit(0);
  }

  void Hold() {
    if (step_ != Label("fake.hold_at", -1)) return;
    const char* home = getenv("HOME");
    const std::string go = absl::StrCat(home == nullptr ? "" : home, "/go");
    while (!FileExists(go) && !g_stop && !g_save) Sleep(5);
  }

  void EmitStep(int64_t step_ms) {
    if (rank_ != 0) return;
    std::printf("step %lld loss %.17g\n", static_cast<long long>(step_), Loss());
    std::fflush(stdout);
    events_.Emit("step", {{"step", step_},
                          {"loss", Loss()},
                          {"grad_norm", 1.0},
                          {"learning_rate", 2e-5},
                          {"tokens", 1024},
                          {"step_seconds", step_ms / 1e3},
                          {"tokens_per_second", 1024e3 / std::max<int64_t>(step_ms, 1)},
                          {"mfu", nullptr},
                          {"peak_bytes", 1 << 20}});
  }

  void Evaluate() {
    events_.Emit("phase", {{"phase", "eval"}});
    const Contribution sum = group_.Reduce({Mix(spec_.value("seed", int64_t{0}), rank_), 0, 0});
    Sleep(Label("fake.step_ms", 5));
    if (rank_ == 0) {
      const double nll = 2.0 + static_cast<double>(sum.value >> 11) / 9007199254740992.0;
      events_.Emit("done",
                   {{"result", {{"perplexity", std::exp(nll)}, {"nll", nll}, {"tokens", 1024}}}});
    }
    Exit(0);
  }

  // The folder that a merge leaves, as far as the service sees it.
  void Merge() {
    events_.Emit("phase", {{"phase", "merge"}});
    const std::string out = absl::StrCat(flags_["out"], "/", spec_.value("merge_out", ""));
    const bool made = MakeDirs(out).ok() && FileExists(spec_.value("adapter", "")) &&
                      WriteFileAtomic(out + "/config.json", "{}").ok();
    if (!made) Fail(events_, 20, "user", "merge: no adapter");
    events_.Emit("done", {{"result", {{"out", out}}}});
    Exit(0);
  }

  void Fault() {
    const std::string fault = Text("fake.fault");
    const int64_t epoch = Label("fake.epoch", 1);
    if (fault.empty() || Label("fake.rank", 0) != rank_ || (epoch != 0 && epoch != epoch_)) return;
    if (fault == "ignore_term") ignore_term_ = true;
    if (step_ != Label("fake.step", 5)) return;
    if (fault == "crash") raise(SIGKILL);
    if (fault == "segv") {
      signal(SIGSEGV, SIG_DFL);  // a sanitizer has its own idea of it
      raise(SIGSEGV);
    }
    if (fault.rfind("exit:", 0) == 0) {
      std::fprintf(stderr, "the last words of rank %d\n", rank_);
      Exit(atoi(fault.c_str() + 5));
    }
    if (fault == "hang") Sleep(3'600'000);
    if (fault == "nan")
      Fail(events_, 50, "nan", absl::StrCat("the loss is not finite at step ", step_));
    if (fault == "garbage") events_.Raw("not json at all \xff\xfe\n{\"half\": \n[1,2]\n\n");
    if (fault == "long_line") events_.Raw(std::string(3 << 20, 'x') + "\n");
    if (fault == "child") LeaveChild();
  }

  // A grandchild that leaves the process group and ignores polite signals.
  static void LeaveChild() {
    if (fork() != 0) return;
    setsid();
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    execl("/bin/sleep", "sleep", "3600", nullptr);
    _exit(127);
  }

  std::map<std::string, std::string> flags_;
  int rank_, world_, epoch_;
  Events events_;
  Group group_;
  Json spec_;
  std::atomic<const std::string*> rendezvous_ = nullptr;
  int64_t step_ = 0, saved_step_ = -1;
  uint64_t state_ = 0;
  bool ignore_term_ = false;
};

int Main(int argc, char** argv) {
  if (argc < 2 || std::strcmp(argv[1], "run") != 0) {
    std::fprintf(stderr, "usage: fake_trainer run --spec F --out DIR ...\n");
    return 20;
  }
  std::map<std::string, std::string> flags;
  for (int i = 2; i + 1 < argc; i += 2) flags[argv[i] + 2] = argv[i + 1];
  signal(SIGTERM, [](int) { g_stop = true; });
  signal(SIGUSR1, [](int) { g_save = true; });
  signal(SIGPIPE, SIG_IGN);
  Trainer(flags).Run();
  return 0;
}

}  // namespace
}  // namespace ll

int main(int argc, char** argv) { return ll::Main(argc, argv); }
