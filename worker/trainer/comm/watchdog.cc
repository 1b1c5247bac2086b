#include "worker/trainer/comm/watchdog.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <type_traits>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "worker/trainer/comm/sockets.h"
#include "worker/trainer/error_class.h"

namespace ll {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(250);
// How long a failed operation waits for word of the culprit: rank 0 hears of a death at once.
constexpr absl::Duration kWord = absl::Seconds(2);
// Without a word from a rank until failures of others are no longer taken for their own: whoever
// spoke to a host that is gone hears of it before the silence is long enough.
constexpr absl::Duration kQuiet = absl::Seconds(1);

template <size_t N>
void Copy(absl::string_view from, char (&to)[N]) {
  const size_t n = std::min(from.size(), N - 1);
  std::memcpy(to, from.data(), n);
  to[n] = '\0';
}

absl::Duration Now() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::DurationFromTimespec(now);
}

}  // namespace

absl::StatusOr<std::shared_ptr<Watchdog>> Watchdog::Start(RendezvousStore& store,
                                                          const CommOptions& comm,
                                                          const WatchdogOptions& options) {
  static_assert(std::is_trivially_copyable_v<Message>);
  constexpr char kKey[] = "watch";
  uint64_t token = 0;
  ListeningSocket listening;
  int fd = -1;
  if (comm.rank == 0) {
    std::random_device random;
    token = uint64_t{random()} << 32 | random();
    LL_ASSIGN_OR_RETURN(listening, ListenOn(comm.host));
    LL_RETURN_IF_ERROR(store.Set(kKey, absl::StrCat(comm.host, ":", listening.port, " ", token)));
  } else {
    LL_ASSIGN_OR_RETURN(const std::string published, store.Get(kKey));
    const std::vector<std::string> parts = absl::StrSplit(published, ' ');
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[1], &token))
      return absl::UnavailableError("rendezvous: malformed address of the watch");
    LL_ASSIGN_OR_RETURN(fd, DialTo(parts[0]));
  }
  std::shared_ptr<Watchdog> watch(new Watchdog(comm, options, token));
  if (comm.rank == 0) {
    watch->listen_fd_ = listening.fd;
    fcntl(listening.fd, F_SETFL, O_NONBLOCK);
  } else {
    fcntl(fd, F_SETFL, O_NONBLOCK);
    Link& link = watch->links_[0];
    link.fd = fd;
    link.heard = link.known = true;
    Message hello;
    hello.token = token;
    hello.kind = Kind::kHello;
    hello.about.rank = comm.rank;
    watch->Send(link, hello);
  }
  if (pipe2(watch->wake_fds_, O_CLOEXEC | O_NONBLOCK) != 0) {
    return absl::UnavailableError(
        absl::StrCat("rendezvous: the watch has no pipe: ", std::strerror(errno)));
  }
  watch->thread_ = std::thread([raw = watch.get()] { raw->Run(); });
  return watch;
}

Watchdog::Watchdog(const CommOptions& comm, const WatchdogOptions& options, uint64_t token)
    : rank_(comm.rank), world_size_(comm.world_size), options_(options), token_(token) {
  mine_.rank = rank_;
}

void Watchdog::Stop() {
  {
    absl::MutexLock lock(&mu_);
    ending_ = true;
  }
  (void)!write(wake_fds_[1], "", 1);
  if (thread_.joinable()) thread_.join();
}

Watchdog::~Watchdog() {
  Stop();
  for (auto& [rank, link] : links_) {
    if (link.fd >= 0) close(link.fd);
  }
  for (Link& link : strangers_) close(link.fd);
  if (listen_fd_ >= 0) close(listen_fd_);
  for (const int fd : wake_fds_) close(fd);
}

void Watchdog::Enter(const char* phase) {
  absl::MutexLock lock(&mu_);
  Copy(phase, mine_.phase);
}

void Watchdog::Begin(const char* operation, const char* group, int64_t sequence) {
  absl::MutexLock lock(&mu_);
  Copy(operation, mine_.operation);
  Copy(group, mine_.group);
  mine_.sequence = sequence;
  mine_.waiting = 1;
  ++mine_.count;
}

void Watchdog::End() {
  absl::MutexLock lock(&mu_);
  mine_.waiting = 0;
}

void Watchdog::Fail(const absl::Status& error) {
  absl::MutexLock lock(&mu_);
  if (CausingRankOf(failed_) || CausingRankOf(error)) return;
  failure_ = absl::StrCat(ErrorClassName(ErrorClassOf(error)), ": ", error.message());
}

absl::Status Watchdog::Explain(absl::Status error) {
  absl::MutexLock lock(&mu_);
  if (!failed_.ok()) return failed_;
  const auto lost = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !lost_.ok(); };
  told_.AwaitFor(mu_, kWord, lost);
  told_.AwaitFor(mu_, options_.silence,
                 [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !lost_.ok() || !quiet_; });
  if (!lost_.ok()) return failed_ = lost_;
  std::string message(error.message());
  if (behind_ && behind_->count < mine_.count)
    absl::StrAppend(&message, "; furthest behind: ", Describe(*behind_));
  return failed_ = absl::Status(error.code(), absl::StrCat(message, "; this is ", Describe(mine_)));
}

absl::Status Watchdog::Failed() {
  absl::MutexLock lock(&mu_);
  return failed_;
}

void Watchdog::Check(std::function<absl::Status()> check) {
  absl::MutexLock lock(&mu_);
  checks_.push_back(std::move(check));
}

// A transport that failed is as good as a lost rank: this one would wait for it for ever.
void Watchdog::RunChecks() {
  std::vector<std::function<absl::Status()>> checks;
  {
    absl::MutexLock lock(&mu_);
    checks = checks_;
  }
  for (const auto& check : checks) {
    const absl::Status status = check();
    if (status.ok()) continue;
    if (check_failed_at_ == absl::InfiniteDuration()) check_failed_at_ = Now();
    absl::MutexLock lock(&mu_);
    // As in Explain: word of the culprit comes first.
    if (!lost_.ok() || ending_ || quiet_ || Now() - check_failed_at_ < kWord) return;
    lost_ = WithErrorClass(
        absl::Status(status.code(), absl::StrCat(status.message(), "; this is ", Describe(mine_))),
        ErrorClass::kInfrastructure);
    told_.SignalAll();
  }
}

std::string Watchdog::Describe(const State& s) {
  std::string text = absl::StrCat("rank ", s.rank, ", ");
  if (s.operation[0] == '\0') return absl::StrCat(text, "in phase ", s.phase);
  return absl::StrCat(text, s.waiting ? "waiting in " : "computing after ", s.operation, " ",
                      s.sequence, " of ", s.group, " in phase ", s.phase);
}

Watchdog::Message Watchdog::Verdict(const State& about, const std::string& reason) const {
  Message verdict;
  verdict.token = token_;
  verdict.kind = Kind::kLost;
  verdict.about = about;
  Copy(reason, verdict.reason);
  return verdict;
}

// The first verdict counts; what follows is its consequence.
void Watchdog::Lost(const Message& verdict) {
  absl::MutexLock lock(&mu_);
  if (!lost_.ok() || ending_) return;
  lost_ = CausedByRank(
      FieldStatus(absl::StatusCode::kUnavailable, absl::StrCat("rank ", verdict.about.rank),
                  absl::StrCat("is lost (", verdict.reason, "); last heard of: ",
                               Describe(verdict.about), "; this is ", Describe(mine_))),
      verdict.about.rank);
  told_.SignalAll();
  if (rank_ != 0) return;
  told_all_ = verdict;
  for (auto& [rank, link] : links_) {
    if (rank != verdict.about.rank && !link.ended) Send(link, verdict);
  }
}

void Watchdog::Send(Link& link, const Message& message) {
  if (link.fd < 0) return;
  // A peer that is stopped fills its buffer after minutes; it counts as silent long before.
  (void)!send(link.fd, &message, sizeof message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void Watchdog::Accept() {
  for (int fd; (fd = accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;) {
    strangers_.emplace_back();
    strangers_.back().fd = fd;
  }
  // Whoever waits goes on waiting (this process has no descriptor left): not to be asked again
  // before the next tick.
  accepts_ = errno == EAGAIN;
}

std::optional<Watchdog::Message> Watchdog::Handle(Link& link, const Message& message) {
  if (message.kind == Kind::kLost) {
    link.ended = link.ended || message.about.rank == link.state.rank;
    return message;
  }
  link.state = message.about;
  link.ended = link.ended || message.kind == Kind::kEnd;
  if (rank_ == 0 || message.kind != Kind::kState) return std::nullopt;
  told_silent_ticks_ = message.silent_ticks;
  absl::MutexLock lock(&mu_);
  behind_ = message.behind;
  return std::nullopt;
}

std::optional<Watchdog::Message> Watchdog::Read(Link& link) {
  std::optional<Message> verdict;
  char buffer[16 * sizeof(Message)];
  ssize_t n = 0;
  while ((n = recv(link.fd, buffer, sizeof buffer, 0)) > 0) {
    link.heard = true;
    link.input.append(buffer, static_cast<size_t>(n));
    size_t at = 0;
    for (; link.input.size() - at >= sizeof(Message); at += sizeof(Message)) {
      Message message;
      std::memcpy(&message, link.input.data() + at, sizeof message);
      if (message.token != token_) {  // nobody of this gang
        link.ended = true;
        continue;
      }
      for (State* s : {&message.about, &message.behind})
        for (char* text : {s->phase, s->operation, s->group}) text[31] = '\0';
      message.reason[sizeof message.reason - 1] = '\0';
      const std::optional<Message> told = Handle(link, message);
      if (!verdict) verdict = told;
    }
    link.input.erase(0, at);
  }
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return verdict;
  close(link.fd);
  link.fd = -1;
  if (!verdict && link.known && !link.ended) verdict = Verdict(link.state, "its connection closed");
  return verdict;
}

void Watchdog::Tick() {
  accepts_ = true;
  Message message;
  message.token = token_;
  message.silent_ticks = most_silent_ticks_;
  most_silent_ticks_ = told_silent_ticks_;
  {
    absl::MutexLock lock(&mu_);
    message.about = mine_;
    if (rank_ == 0) {
      behind_ = mine_;
      for (const auto& [rank, link] : links_) {
        if (link.state.count < behind_->count) behind_ = link.state;
      }
      message.behind = *behind_;
    }
  }
  for (auto& [rank, link] : links_) {
    if (link.ended || link.fd < 0) continue;
    Send(link, message);
    link.silent_ticks = link.heard ? 0 : link.silent_ticks + 1;
    link.heard = false;
    most_silent_ticks_ = std::max(most_silent_ticks_, link.silent_ticks);
    const absl::Duration silent = link.silent_ticks * kTick;
    if (silent >= options_.silence) {
      Lost(Verdict(link.state, absl::StrCat("no sign of life for ", absl::FormatDuration(silent))));
    }
  }
  absl::MutexLock lock(&mu_);
  quiet_ = most_silent_ticks_ * kTick >= kQuiet;
  if (!quiet_) told_.SignalAll();
}

void Watchdog::Poll(absl::Duration wait) {
  std::vector<pollfd> fds = {{wake_fds_[0], POLLIN, 0}};
  if (listen_fd_ >= 0) fds.push_back({accepts_ ? listen_fd_ : -1, POLLIN, 0});
  const size_t first = fds.size();
  std::vector<Link*> readers;
  for (Link& link : strangers_) readers.push_back(&link);
  for (auto& [rank, link] : links_) {
    if (link.fd >= 0) readers.push_back(&link);
  }
  for (const Link* link : readers) fds.push_back({link->fd, POLLIN, 0});
  poll(fds.data(), fds.size(), static_cast<int>(absl::ToInt64Milliseconds(wait)) + 1);
  std::vector<Message> verdicts;
  for (size_t i = 0; i < readers.size(); ++i) {
    if (fds[first + i].revents == 0) continue;
    if (const std::optional<Message> verdict = Read(*readers[i])) verdicts.push_back(*verdict);
  }
  // A watch that had no turn for a while hears all of it at once. Who was cut off without a word is
  // the cause, who had time to tell of an error has probably failed after it.
  std::stable_partition(verdicts.begin(), verdicts.end(),
                        [](const Message& verdict) { return verdict.error == 0; });
  for (const Message& verdict : verdicts) Lost(verdict);
  if (listen_fd_ >= 0 && fds[1].revents != 0) Accept();
}

void Watchdog::Introduce() {
  for (size_t i = 0; i < strangers_.size();) {
    Link& link = strangers_[i];
    const int rank = link.state.rank;
    if (link.fd >= 0 && !link.heard) {
      ++i;
      continue;
    }
    if (link.fd >= 0 && !link.ended && rank > 0 && rank < world_size_ && !links_.contains(rank)) {
      link.known = true;
      links_[rank] = std::move(link);
      if (told_all_) Send(links_[rank], *told_all_);
    } else if (link.fd >= 0) {
      close(link.fd);
    }
    strangers_.erase(strangers_.begin() + static_cast<ptrdiff_t>(i));
  }
}

void Watchdog::Leave() {
  Message last;
  last.token = token_;
  {
    absl::MutexLock lock(&mu_);
    last.about = mine_;
    last.kind = failure_.empty() ? Kind::kEnd : Kind::kLost;
    last.error = !failure_.empty();
    Copy("it ended with an error, " + failure_, last.reason);
  }
  for (auto& [rank, link] : links_) Send(link, last);
}

void Watchdog::Run() {
  absl::Duration next_tick = Now() + kTick, act_at = absl::InfiniteDuration();
  bool ends = false;
  while (true) {
    Poll(std::max(absl::ZeroDuration(), next_tick - Now()));
    Introduce();
    if (Now() >= next_tick) {
      Tick();
      RunChecks();
      next_tick = Now() + kTick;
    }
    absl::Status lost;
    {
      absl::MutexLock lock(&mu_);
      if (ending_) break;
      if (lost_.ok() && failed_.ok()) continue;
      lost = lost_.ok() ? failed_ : lost_;
      if (!failed_.ok() && !ends) {
        ends = true;
        act_at = Now() + options_.patience_ending;
      } else if (act_at == absl::InfiniteDuration()) {
        act_at = Now() + (mine_.waiting ? options_.patience_waiting : options_.patience_computing);
      }
    }
    if (Now() < act_at || !options_.on_lost) continue;
    Fail(lost);
    Leave();
    return options_.on_lost(lost);
  }
  Leave();
}

}  // namespace ll
