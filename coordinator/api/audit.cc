#include "coordinator/api/audit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/status_macros.h"

namespace ll {
namespace {

constexpr size_t kMaxFieldBytes = 200;
constexpr size_t kMaxPending = 1000;
constexpr size_t kTailBytes = 64 << 10;  // more than a line is long
constexpr double kBurstSeconds = 10;     // of refusals
constexpr absl::Duration kSyncEvery = absl::Seconds(1);
constexpr char kName[] = "audit.jsonl";
constexpr JsonLimits kLimits{.max_depth = 4, .max_values = 100};

// As JSON. What most values are, letters and digits, needs no library.
void AppendJson(absl::string_view text, std::string& out) {
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
  });
  if (plain) return absl::StrAppend(&out, "\"", text, "\"");
  out += nlohmann::json(std::string(text))
             .dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
}

std::string FirstHash() { return std::string(64, '0'); }

struct Link {
  int64_t number = 0;
  std::string previous;
};
absl::StatusOr<Link> LinkOf(absl::string_view line) {
  const auto json = ParseJsonObject(line, kLimits);
  if (!json.ok()) return absl::DataLossError("no JSON object");
  const auto number = json->find("n"), previous = json->find("prev");
  if (number == json->end() || !number->is_number_integer() || previous == json->end() ||
      !previous->is_string())
    return absl::DataLossError("no line of an audit log");
  return Link{number->get<int64_t>(), previous->get<std::string>()};
}

// At most kTailBytes of the file's beginning or end.
absl::StatusOr<std::string> Piece(const std::string& file, bool from_end) {
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", file);
  struct stat st {};
  fstat(fd, &st);
  std::string out(std::min<size_t>(kTailBytes, static_cast<size_t>(st.st_size)), '\0');
  const off_t at = from_end ? st.st_size - static_cast<off_t>(out.size()) : 0;
  const ssize_t n = pread(fd, out.data(), out.size(), at);
  const int error = errno;
  close(fd);
  if (n < 0) return ErrnoStatus(error, "cannot read", file);
  out.resize(static_cast<size_t>(n));
  return out;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AuditLog>> AuditLog::Open(Options options, Clock& clock) {
  auto out = std::unique_ptr<AuditLog>(new AuditLog(std::move(options), clock));
  {
    absl::MutexLock lock(&out->mu_);
    LL_RETURN_IF_ERROR(out->OpenFile());
  }
  out->syncer_ = std::thread([log = out.get()] { log->SyncOften(); });
  return out;
}

AuditLog::~AuditLog() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    stopped_.SignalAll();
  }
  if (syncer_.joinable()) syncer_.join();
  absl::MutexLock lock(&mu_);
  if (fd_ >= 0) close(fd_);
}

absl::Status AuditLog::OpenFile() {
  const std::string path = absl::StrCat(options_.dir, "/", kName);
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> files, AuditFiles(options_.dir));
  // The chain goes on from the newest line of all files: a new file may still be empty.
  last_hash_ = FirstHash();
  number_ = 0;
  for (auto file = files.rbegin(); file != files.rend() && number_ == 0; ++file) {
    LL_ASSIGN_OR_RETURN(const std::string text, Piece(*file, /*from_end=*/true));
    const size_t end = text.rfind('\n');
    if (*file == path) cut_bytes_ = static_cast<int64_t>(text.size() - (end + 1));
    if (end == std::string::npos) continue;
    const size_t begin = end == 0 ? 0 : text.rfind('\n', end - 1) + 1;  // npos + 1 is 0
    const absl::string_view line(text.data() + begin, end - begin);
    const auto link = LinkOf(line);
    if (!link.ok()) {
      return FieldStatus(absl::StatusCode::kDataLoss, *file,
                         "its last line is none of an audit log",
                         "look at it with ll-coordinator audit verify, and move it away");
    }
    number_ = link->number;
    last_hash_ = Sha256Hex(line);
    if (*file == path) {
      LL_ASSIGN_OR_RETURN(const std::string head, Piece(*file, /*from_end=*/false));
      const auto first = LinkOf(absl::string_view(head).substr(0, head.find('\n')));
      first_number_ = first.ok() ? first->number : 1;
    }
  }
  fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd_ < 0) return ErrnoStatus(errno, "cannot open", path);
  struct stat st;
  if (fstat(fd_, &st) != 0) return ErrnoStatus(errno, "cannot read", path);
  size_ = st.st_size - cut_bytes_;
  if (cut_bytes_ > 0 && ftruncate(fd_, size_) != 0) return ErrnoStatus(errno, "cannot cut", path);
  if (size_ == 0) first_number_ = number_ + 1;
  return absl::OkStatus();
}

absl::Status AuditLog::RotateWhenFull() {
  if (size_ < options_.max_file_bytes) return absl::OkStatus();
  const std::string path = absl::StrCat(options_.dir, "/", kName);
  if (fdatasync(fd_) != 0) return ErrnoStatus(errno, "cannot sync", path);
  const int fresh = open((path + ".new").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fresh < 0) return ErrnoStatus(errno, "cannot open", path + ".new");
  const std::string full = absl::StrFormat("%s/audit-%012d.jsonl", options_.dir, first_number_);
  // Where it has gone already, an earlier try came no further, or somebody has put it elsewhere.
  const bool moved = rename(path.c_str(), full.c_str()) == 0 || errno == ENOENT;
  if (!moved || rename((path + ".new").c_str(), path.c_str()) != 0) {
    const int error = errno;
    close(fresh);
    return ErrnoStatus(error, "cannot rename", path);
  }
  close(fd_);
  fd_ = fresh;
  size_ = 0;
  first_number_ = number_ + 1;
  return SyncDir(options_.dir);
}

void AuditLog::Put(const AuditEntry& entry, int64_t suppressed) {
  if (pending_.size() >= kMaxPending) {
    ++lost_;
    return;
  }
  std::string line = absl::StrCat(
      "{\"n\":", number_ + 1, ",\"time\":\"",
      absl::FormatTime("%Y-%m-%d%ET%H:%M:%E6SZ", clock_.Now(), absl::UTCTimeZone()), "\"");
  const auto add = [&line](const char* key, const std::string& value) {
    if (value.empty()) return;
    absl::StrAppend(&line, ",\"", key, "\":");
    AppendJson(absl::string_view(value).substr(0, kMaxFieldBytes), line);
  };
  const auto count = [&line](const char* key, int64_t value) {
    if (value > 0) absl::StrAppend(&line, ",\"", key, "\":", value);
  };
  add("user", entry.user);
  add("tenant", entry.tenant);
  add("method", entry.method);
  add("object", entry.object);
  add("result", entry.result);
  add("peer", entry.peer);
  add("request_id", entry.request_id);
  count("refusals_not_shown", suppressed);
  count("lines_lost", std::exchange(lost_, 0));
  count("bytes_cut", std::exchange(cut_bytes_, 0));
  add("prev", last_hash_);
  line += '}';
  ++number_;
  last_hash_ = Sha256Hex(line);
  pending_.push_back(line + "\n");
  const bool was_well = failed_.ok();
  failed_ = Flush();
  if (was_well && !failed_.ok()) {
    LL_LOG(kError) << "the audit log cannot be written, so changes are refused: "
                   << failed_.message();
  }
}

absl::Status AuditLog::Flush() {
  while (!pending_.empty()) {
    LL_RETURN_IF_ERROR(RotateWhenFull());
    const std::string& line = pending_.front();
    ssize_t written;
    do {
      written = write(fd_, line.data(), line.size());
    } while (written < 0 && errno == EINTR);
    if (written != static_cast<ssize_t>(line.size())) {
      const int error = written < 0 ? errno : ENOSPC;
      (void)!ftruncate(fd_, size_);  // no half lines
      return ErrnoStatus(error, "cannot write", absl::StrCat(options_.dir, "/", kName));
    }
    size_ += written;
    dirty_ = true;
    pending_.pop_front();
  }
  return absl::OkStatus();
}

absl::Status AuditLog::Writable() {
  absl::MutexLock lock(&mu_);
  if (failed_.ok()) return failed_;
  failed_ = Flush();
  if (failed_.ok()) return failed_;
  const bool full = absl::IsResourceExhausted(failed_);
  return FieldStatus(full ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kUnavailable,
                     "audit", "changes are refused while the audit log cannot be written",
                     "an administrator has to make room on the coordinator's disk");
}

void AuditLog::Change(const AuditEntry& entry) {
  absl::MutexLock lock(&mu_);
  Put(entry, 0);
}

void AuditLog::Refusal(const AuditEntry& entry) {
  absl::MutexLock lock(&mu_);
  const absl::Duration now = clock_.Steady();
  const double rate = options_.refusals_per_second;
  refusals_ = std::max(0.0, refusals_ - absl::ToDoubleSeconds(now - refused_at_) * rate);
  refused_at_ = now;
  if (refusals_ + 1 > rate * kBurstSeconds) {
    ++suppressed_;  // strangers must not fill the disk
    return;
  }
  refusals_ += 1;
  Put(entry, std::exchange(suppressed_, 0));
}

void AuditLog::SyncOften() {
  while (true) {
    int copy = -1;
    {
      absl::MutexLock lock(&mu_);
      if (!stopping_) stopped_.WaitFor(mu_, kSyncEvery);
      if (std::exchange(dirty_, false)) copy = dup(fd_);
      if (copy < 0 && stopping_) return;
    }
    if (copy < 0) continue;
    if (fdatasync(copy) != 0) {
      LL_LOG(kError) << "the audit log cannot be synced: "
                     << ErrnoStatus(errno, "sync", kName).message();
    }
    close(copy);
  }
}

absl::StatusOr<std::vector<std::string>> AuditFiles(const std::string& dir) {
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(dir));
  std::vector<std::string> out;
  for (const std::string& name : names) {  // sorted, and the numbers have leading zeros
    if (absl::StartsWith(name, "audit-") && absl::EndsWith(name, ".jsonl"))
      out.push_back(absl::StrCat(dir, "/", name));
  }
  const std::string newest = absl::StrCat(dir, "/", kName);
  if (FileExists(newest)) out.push_back(newest);
  return out;
}

absl::StatusOr<AuditSummary> VerifyAudit(const std::vector<std::string>& files) {
  AuditSummary out;
  for (const std::string& file : files) {
    LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
    int64_t number = 0;
    std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
    const bool whole = lines.back().empty();
    if (whole) lines.pop_back();
    for (const absl::string_view line : lines) {
      ++number;
      const auto broken = [&](absl::string_view why) {
        return FieldStatus(absl::StatusCode::kDataLoss, file,
                           absl::StrCat(file, ":", number, ": ", why));
      };
      const auto link = LinkOf(line);
      if (!link.ok()) return broken(link.status().message());
      if (out.lines == 0) {
        out.first = link->number;
        if (out.first == 1 && link->previous != FirstHash())
          return broken("the first line of all must follow nothing");
      } else if (link->number != out.last + 1) {
        return broken(absl::StrCat("line ", out.last + 1, " of the log is missing; this is line ",
                                   link->number));
      } else if (link->previous != out.last_sha256) {
        return broken("the line before it was changed, or this one was put in");
      }
      ++out.lines;
      out.last = link->number;
      out.last_sha256 = Sha256Hex(line);
    }
    if (!whole) {
      return FieldStatus(absl::StatusCode::kDataLoss, file,
                         absl::StrCat(file, ":", number, ": the line has no end"));
    }
  }
  return out;
}

}  // namespace ll
