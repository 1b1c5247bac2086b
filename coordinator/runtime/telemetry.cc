#include "coordinator/runtime/telemetry.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <tuple>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace ll {
namespace {

constexpr int kMaxRank = 4095;
constexpr int64_t kMaxEpoch = 999'999;
constexpr int64_t kReadPiece = 1 << 20;
// Holes are punched in whole blocks of the file system.
constexpr int64_t kBlock = 4096;

absl::Status CheckKey(const TelemetryKey& key) {
  if (!LooksLikeJobId(key.job.value()))
    return MakeFieldError({"job_id", "a job id", "something else"});
  return CheckTelemetryRange(key.epoch, key.rank);
}

std::string EpochDir(const std::string& job_dir, int64_t epoch) {
  return absl::StrFormat("%s/e%04d", job_dir, epoch);
}

int64_t SizeOf(const std::string& path) {
  struct stat st;
  return stat(path.c_str(), &st) == 0 ? st.st_size : 0;
}

int64_t AllocatedBytes(const std::string& path) {
  struct stat st;
  return stat(path.c_str(), &st) == 0 ? st.st_blocks * 512 : 0;
}

absl::Status WriteAll(int fd, absl::string_view data, int64_t offset, const std::string& path) {
  while (!data.empty()) {
    const ssize_t n = pwrite(fd, data.data(), data.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "write", path);
    data.remove_prefix(n);
    offset += n;
  }
  return absl::OkStatus();
}

// Files of a job's folder, all epochs.
std::vector<std::string> FilesOf(const std::string& job_dir) {
  std::vector<std::string> out;
  const auto epochs = ListDir(job_dir);
  if (!epochs.ok()) return out;
  for (const std::string& epoch : *epochs) {
    const auto names = ListDir(absl::StrCat(job_dir, "/", epoch));
    if (!names.ok()) continue;
    for (const std::string& name : *names)
      out.push_back(absl::StrCat(job_dir, "/", epoch, "/", name));
  }
  return out;
}

}  // namespace

bool LooksLikeJobId(absl::string_view text) {
  constexpr absl::string_view kPrefix = "job-";
  if (text.size() < 8 || text.size() > 64 || text.substr(0, kPrefix.size()) != kPrefix)
    return false;
  return text.substr(kPrefix.size()).find_first_not_of("0123456789abcdef") ==
         absl::string_view::npos;
}

absl::Status CheckTelemetryRange(int64_t epoch, int rank) {
  if (epoch < 1 || epoch > kMaxEpoch)
    return MakeFieldError({"epoch", "1 to 999999", absl::StrCat(epoch)});
  if (rank < 0 || rank > kMaxRank) return MakeFieldError({"rank", "0 to 4095", absl::StrCat(rank)});
  return absl::OkStatus();
}

int64_t FreeBytes(const std::string& path) {
  struct statvfs fs;
  if (statvfs(path.c_str(), &fs) != 0) return std::numeric_limits<int64_t>::max();
  return static_cast<int64_t>(fs.f_bavail) * static_cast<int64_t>(fs.f_frsize);
}

std::string Telemetry::PathOf(const TelemetryKey& key) const {
  return absl::StrFormat("%s/%s/e%04d/rank-%02d.%s", options_.dir, key.job.value(), key.epoch,
                         key.rank, key.stream == TelemetryStream::kEvents ? "events.jsonl" : "log");
}

absl::StatusOr<int64_t> Telemetry::Append(const TelemetryKey& key, int64_t offset,
                                          absl::string_view data) {
  LL_RETURN_IF_ERROR(CheckKey(key));
  if (FreeBytes(options_.dir) < options_.min_free_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the disk of ", options_.dir, " is nearly full"));
  }
  TelemetryNews news;
  absl::StatusOr<int64_t> end;
  const std::shared_ptr<JobFacts> facts = FactsOf(key.job);
  {
    absl::MutexLock lock(&facts->mu);
    if (facts->removed) return offset + static_cast<int64_t>(data.size());
    ReadOnce(key.job, *facts);
    end = Write(key, offset, data, *facts, news);
  }
  for (const Listener& listener : listeners_) listener(key.job, news);
  return end;
}

absl::StatusOr<int64_t> Telemetry::Write(const TelemetryKey& key, int64_t offset,
                                         absl::string_view data, JobFacts& facts,
                                         TelemetryNews& news) {
  const std::string path = PathOf(key);
  const int64_t size = SizeOf(path);
  if (offset > size) return size;
  const int64_t end = offset + static_cast<int64_t>(data.size());
  if (end <= size) return size;
  data.remove_prefix(size - offset);
  LL_RETURN_IF_ERROR(
      MakeDirs(EpochDir(absl::StrCat(options_.dir, "/", key.job.value()), key.epoch)));
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return ErrnoStatus(errno, "open", path);
  absl::Cleanup close_fd = [fd] { close(fd); };
  const absl::Status written = WriteAll(fd, data, size, path);
  if (!written.ok()) {
    // What is not acknowledged comes again from `size`; a torn tail would count as received.
    if (ftruncate(fd, size) != 0) {
      LL_LOG(kWarning) << "cannot cut " << path << " back to " << size << " bytes";
    }
    return written;
  }
  facts.bytes += static_cast<int64_t>(data.size());
  if (key.stream == TelemetryStream::kEvents && key.rank == 0) {
    ForEachLine(data, [&](absl::string_view line) ABSL_NO_THREAD_SAFETY_ANALYSIS {
      const auto event = ParseEvent(line);
      if (!event.has_value()) return;
      if (auto step = ParseStep(*event, key.epoch)) news.steps.push_back(std::move(*step));
      if (auto guard = ParseGuard(*event)) news.guards.push_back(std::move(*guard));
      facts.notes.Take(*event, key.epoch);
      const EvalFacts eval = ParseEval(*event);
      if (eval.perplexity) news.eval_perplexity = eval.perplexity;
      if (eval.effective_context_length)
        news.eval_effective_context_length = eval.effective_context_length;
    });
    NoteSteps(key.job, news.steps, facts);
  }
  if (facts.bytes > options_.cap_bytes_per_job) EnforceCap(key.job, facts);
  return end;
}

int64_t Telemetry::Size(const TelemetryKey& key) const {
  return CheckKey(key).ok() ? SizeOf(PathOf(key)) : 0;
}

absl::StatusOr<Telemetry::Piece> Telemetry::Read(const TelemetryKey& key, int64_t offset,
                                                 int64_t max_bytes) const {
  LL_RETURN_IF_ERROR(CheckKey(key));
  Piece piece;
  piece.offset = std::max<int64_t>(offset, 0);
  const std::string path = PathOf(key);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0 && errno == ENOENT) return piece;
  if (fd < 0) return ErrnoStatus(errno, "open", path);
  absl::Cleanup close_fd = [fd] { close(fd); };
  // Skips what was punched out; at the end of the file there is no data (ENXIO).
  const off_t start = lseek(fd, piece.offset, SEEK_DATA);
  if (start < 0) return piece;
  piece.offset = start;
  piece.data.resize(max_bytes);
  const ssize_t n = pread(fd, piece.data.data(), max_bytes, start);
  if (n < 0) return ErrnoStatus(errno, "read", path);
  piece.data.resize(n);
  return piece;
}

std::vector<int64_t> Telemetry::Epochs(const JobId& job) const {
  std::vector<int64_t> out;
  if (!LooksLikeJobId(job.value())) return out;
  const auto names = ListDir(absl::StrCat(options_.dir, "/", job.value()));
  if (!names.ok()) return out;
  for (const std::string& name : *names) {
    if (name.size() > 1 && name[0] == 'e')
      out.push_back(std::strtoll(name.c_str() + 1, nullptr, 10));
  }
  std::sort(out.begin(), out.end());
  return out;
}

void Telemetry::ForEachEvent(
    const JobId& job,
    const std::function<void(const nlohmann::json& event, int64_t epoch)>& f) const {
  for (int64_t epoch : Epochs(job)) {
    const TelemetryKey key{job, epoch, 0, TelemetryStream::kEvents};
    std::string rest;
    int64_t offset = 0;
    for (;;) {
      const auto piece = Read(key, offset, kReadPiece);
      if (!piece.ok() || piece->data.empty()) break;
      if (piece->offset > offset) rest.clear();  // a hole: the line before it has no end
      rest += piece->data;
      offset = piece->offset + static_cast<int64_t>(piece->data.size());
      const size_t used = ForEachLine(rest, [&](absl::string_view line) {
        if (const auto event = ParseEvent(line)) f(*event, epoch);
      });
      rest.erase(0, used);
    }
  }
}

Telemetry::History Telemetry::HistoryOf(const JobId& job) const {
  History out;
  std::map<int64_t, StepFacts> by_step;
  int64_t newest_epoch = 0;
  ForEachEvent(job, [&](const nlohmann::json& event, int64_t epoch) {
    if (epoch != std::exchange(newest_epoch, epoch)) out.done = false;
    if (const EvalFacts eval = ParseEval(event); eval.perplexity.has_value())
      out.perplexity = eval.perplexity;
    const auto kind = event.find("event");
    if (kind != event.end() && *kind == "done") out.done = true;
    out.notes.Take(event, epoch);
    if (auto step = ParseStep(event, epoch)) {
      // A resumed attempt, or a rollback, repeats what came after its checkpoint: those steps as
      // they were before are void.
      by_step.erase(by_step.lower_bound(step->step), by_step.end());
      by_step.emplace(step->step, std::move(*step));
    }
  });
  const std::vector<int64_t> epochs = Epochs(job);
  if (!epochs.empty() && epochs.back() != newest_epoch) out.done = false;
  for (auto& [number, step] : by_step) out.steps.push_back(std::move(step));
  return out;
}

std::vector<CheckpointFacts> Telemetry::Checkpoints(const JobId& job) const {
  CheckpointHistory history;
  ForEachEvent(job,
               [&](const nlohmann::json& event, int64_t epoch) { history.Take(event, epoch); });
  return history.List();
}

std::optional<StepFacts> Telemetry::Newest(const JobId& job) const {
  const std::shared_ptr<JobFacts> facts = FactsOf(job);
  absl::MutexLock lock(&facts->mu);
  ReadOnce(job, *facts);
  return facts->newest;
}

std::shared_ptr<Telemetry::JobFacts> Telemetry::FactsOf(const JobId& job) const {
  absl::MutexLock lock(&mu_);
  if (removed_.Holds(job.value())) {
    auto gone = std::make_shared<JobFacts>();
    absl::MutexLock its_own(&gone->mu);
    gone->read = gone->removed = true;
    return gone;
  }
  std::shared_ptr<JobFacts>& facts = facts_[job];
  if (facts == nullptr) facts = std::make_shared<JobFacts>();
  return facts;
}

std::vector<JobId> Telemetry::Unread(std::vector<JobId> jobs) const {
  std::erase_if(jobs, [this](const JobId& job) {
    const std::shared_ptr<JobFacts> facts = FactsOf(job);
    // Held: somebody reads or writes the job's files at this moment.
    if (!facts->mu.TryLock()) return false;
    const bool read = facts->read;
    facts->mu.Unlock();
    return read;
  });
  return jobs;
}

void Telemetry::ReadOnce(const JobId& job, JobFacts& facts) const {
  if (std::exchange(facts.read, true) || !LooksLikeJobId(job.value())) return;
  for (const std::string& file : FilesOf(absl::StrCat(options_.dir, "/", job.value()))) {
    facts.bytes += AllocatedBytes(file);
  }
  if (facts.bytes == 0) return;
  int64_t tokens = 0;
  History history = HistoryOf(job);
  facts.notes = std::move(history.notes);
  std::vector<StepFacts> steps = std::move(history.steps);
  for (const StepFacts& step : steps) {
    tokens += step.tokens;
    facts.pace.Add(step.epoch, step.step, step.step_seconds, step.time);
  }
  if (!steps.empty()) {
    facts.newest = std::move(steps.back());
    facts.newest->tokens = tokens;
  }
}

void Telemetry::NoteSteps(const JobId& job, const std::vector<StepFacts>& steps, JobFacts& facts) {
  // A resume or a rollback went back: the tokens are counted again, from the files, which hold the
  // new lines by now. Steps between two are those that logging_steps leaves out.
  bool again = false;
  for (const StepFacts& step : steps) {
    const int64_t before = facts.newest.has_value() ? facts.newest->tokens : 0;
    again = again || (facts.newest.has_value() && step.step <= facts.newest->step);
    facts.newest = step;
    facts.newest->tokens += before;
    facts.pace.Add(step.epoch, step.step, step.step_seconds, step.time);
  }
  if (!again) return;
  facts.newest->tokens = 0;
  for (const StepFacts& known : Steps(job)) facts.newest->tokens += known.tokens;
}

void Telemetry::EnforceCap(const JobId& job, JobFacts& facts) {
  const std::vector<std::string> files = FilesOf(absl::StrCat(options_.dir, "/", job.value()));
  for (int round = 0; round < 64; ++round) {
    facts.bytes = 0;
    std::string largest;
    int64_t largest_bytes = 0;
    for (const std::string& file : files) {
      const int64_t bytes = AllocatedBytes(file);
      facts.bytes += bytes;
      if (bytes > largest_bytes) std::tie(largest, largest_bytes) = std::tie(file, bytes);
    }
    if (facts.bytes <= options_.cap_bytes_per_job || largest_bytes < 2 * kBlock) return;
    const int fd = open(largest.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return;
    absl::Cleanup close_fd = [fd] { close(fd); };
    const int64_t size = SizeOf(largest);
    const int64_t cut = (size - largest_bytes / 2) / kBlock * kBlock;
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, cut) != 0) {
      LL_LOG(kWarning) << "telemetry of " << job
                       << " is over its cap and this file system cannot punch holes";
      facts.bytes = 0;  // asked again after another cap's worth
      return;
    }
  }
}

StepPace Telemetry::Pace(const JobId& job) const {
  const std::shared_ptr<JobFacts> facts = FactsOf(job);
  absl::MutexLock lock(&facts->mu);
  ReadOnce(job, *facts);
  return facts->pace;
}

std::string Telemetry::Notes(const JobId& job) const {
  const std::shared_ptr<JobFacts> facts = FactsOf(job);
  absl::MutexLock lock(&facts->mu);
  ReadOnce(job, *facts);
  return facts->notes.Text();
}

void Telemetry::ForgetFacts() {
  absl::MutexLock lock(&mu_);
  facts_.clear();
}

void Telemetry::Remove(const JobId& job) {
  if (!LooksLikeJobId(job.value())) return;
  // Whoever writes at this moment comes first; whoever writes later is told that all is here.
  const std::shared_ptr<JobFacts> facts = FactsOf(job);
  absl::MutexLock lock(&facts->mu);
  facts->removed = true;
  facts->newest.reset();
  facts->pace = StepPace();
  facts->notes = JobNotes();
  facts->bytes = 0;
  {
    absl::MutexLock all(&mu_);
    facts_.erase(job);
    removed_.Add(job.value());
  }
  const absl::Status removed = RemoveTree(absl::StrCat(options_.dir, "/", job.value()));
  if (!removed.ok() && removed.code() != absl::StatusCode::kNotFound) {
    LL_LOG(kWarning) << removed.message();
  }
}

std::vector<JobId> Telemetry::Others(const std::function<bool(const JobId&)>& known) const {
  std::vector<JobId> others;
  const auto names = ListDir(options_.dir);
  if (!names.ok()) return others;
  for (const std::string& name : *names) {
    if (LooksLikeJobId(name) && !known(JobId(name))) others.emplace_back(name);
  }
  return others;
}

}  // namespace ll
