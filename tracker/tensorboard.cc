#include "tracker/tensorboard.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "tracker/tfevents.h"

namespace ll {

absl::StatusOr<std::string> TensorBoardTracker::FileOf(const TrackerEvent& event) {
  const auto key = std::make_pair(event.job->id, event.epoch);
  if (const auto found = files_.find(key); found != files_.end()) return found->second;
  const std::string folder = absl::StrCat(dir_, "/", event.job->id);
  LL_RETURN_IF_ERROR(MakeDirs(folder));
  // Not the file of an earlier process: a record that was cut there would hide all behind it.
  const std::string file = absl::StrCat(
      folder, "/", TfEventsFileName(event.time, absl::StrFormat("ll-e%04d", event.epoch)));
  LL_RETURN_IF_ERROR(AppendFile(file, TfEventsHeader(event.time), /*sync=*/false));
  files_[key] = file;
  return file;
}

absl::Status TensorBoardTracker::Take(const std::vector<TrackerEvent>& batch) {
  std::map<std::string, std::string> bytes;  // by file
  for (const TrackerEvent& event : batch) {
    if (event.replayed) continue;
    if (event.kind == TrackerEvent::Kind::kState) {
      if (IsEndState(event.state)) {
        std::erase_if(files_, [&](const auto& file) { return file.first.first == event.job->id; });
      }
      continue;
    }
    const char* group = event.kind == TrackerEvent::Kind::kStep ? "train/" : "eval/";
    std::vector<std::pair<std::string, double>> values;
    for (const auto& [name, value] : event.values) values.emplace_back(group + name, value);
    for (const auto& [name, seconds] : event.phases)
      values.emplace_back(absl::StrCat("phase_seconds/", name), seconds);
    LL_ASSIGN_OR_RETURN(const std::string file, FileOf(event));
    bytes[file] += TfScalars(event.time, event.step, values);
  }
  for (const auto& [file, data] : bytes) LL_RETURN_IF_ERROR(AppendFile(file, data, /*sync=*/false));
  return absl::OkStatus();
}

}  // namespace ll
