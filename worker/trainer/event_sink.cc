#include "worker/trainer/event_sink.h"

#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <optional>
#include <utility>

#include "base/field_error.h"
#include "base/status_macros.h"
#include "worker/trainer/error_class.h"

namespace ll {
namespace {

void WriteLine(int fd, absl::string_view line) {
  while (!line.empty()) {
    const ssize_t n = write(fd, line.data(), line.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return;
    line.remove_prefix(n);
  }
}

// An empty file does.
bool EndsALine(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  file.seekg(-1, std::ios::end);
  return !file || file.get() == '\n';
}

}  // namespace

EventSink::EventSink(Clock& clock, int rank, int fd) : clock_(clock), rank_(rank), fd_(fd) {}

absl::StatusOr<std::unique_ptr<EventSink>> EventSink::WithFile(Clock& clock, int rank, int fd,
                                                               const std::string& path) {
  auto sink = std::make_unique<EventSink>(clock, rank, fd);
  absl::MutexLock lock(&sink->mu_);
  sink->path_ = path;
  LL_RETURN_IF_ERROR(sink->OpenFile());
  return sink;
}

absl::Status EventSink::OpenFile() {
  LL_ASSIGN_OR_RETURN(AppendOnlyFile file, AppendOnlyFile::Open(path_));
  // A line that a kill or a full disk cut short must not spoil the next one.
  if (!EndsALine(path_)) LL_RETURN_IF_ERROR(file.Append("\n"));
  file_ = std::make_unique<AppendOnlyFile>(std::move(file));
  return absl::OkStatus();
}

void EventSink::Emit(absl::string_view name, const nlohmann::ordered_json& fields) {
  nlohmann::ordered_json event = {
      {"event", std::string(name)},
      {"time", absl::FormatTime("%Y-%m-%d%ET%H:%M:%E6SZ", clock_.Now(), absl::UTCTimeZone())},
      {"rank", rank_}};
  event.update(fields);
  const std::string line =
      event.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  absl::MutexLock lock(&mu_);
  WriteLine(fd_, line);
  if (path_.empty()) return;
  // A disk that is full now may not be so at the next event.
  if (file_ == nullptr) OpenFile().IgnoreError();
  if (file_ != nullptr && !file_->Append(line).ok()) file_.reset();
}

void EventSink::Phase(absl::string_view phase, nlohmann::ordered_json fields) {
  nlohmann::ordered_json event = {{"phase", std::string(phase)}};
  event.update(fields);
  Emit("phase", event);
}

void EventSink::Warning(absl::string_view message) {
  Emit("warning", {{"message", std::string(message)}});
}

void EventSink::Error(const absl::Status& status) { Emit("error", ErrorToJson(status)); }

nlohmann::ordered_json ErrorToJson(const absl::Status& status) {
  nlohmann::ordered_json error = {{"class", std::string(ErrorClassName(ErrorClassOf(status)))},
                                  {"field", ErrorField(status)},
                                  {"message", std::string(status.message())},
                                  {"hint", ErrorHint(status)}};
  if (const std::optional<int> rank = CausingRankOf(status)) error["caused_by_rank"] = *rank;
  return error;
}

}  // namespace ll
