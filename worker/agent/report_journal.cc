#include "worker/agent/report_journal.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace ll {

std::string MessageToLine(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string text;
  // Fails only for a Struct holding a NaN, which JSON cannot write; the trainer's events are JSON
  // already.
  if (!google::protobuf::util::MessageToJsonString(message, &text, options).ok()) text = "{}";
  return text;
}

absl::Status LineToMessage(absl::string_view line, google::protobuf::Message& message) {
  const auto status = google::protobuf::util::JsonStringToMessage(std::string(line), &message);
  return status.ok() ? absl::OkStatus() : absl::DataLossError(std::string(status.message()));
}

absl::StatusOr<ReportJournal> ReportJournal::Open(const std::string& dir, Files& files) {
  ReportJournal journal(absl::StrCat(dir, "/reports.jsonl"), files);
  bool whole = true;
  if (files.Exists(journal.path_)) {
    LL_ASSIGN_OR_RETURN(std::string text, files.Read(journal.path_));
    for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      v1::Report report;
      if (!LineToMessage(line, report).ok() || report.sequence() <= journal.last_sequence_) {
        whole = false;
        break;
      }
      journal.last_sequence_ = report.sequence();
      if (report.what_case() != v1::Report::WHAT_NOT_SET) journal.unacknowledged_.push_back(report);
    }
    whole = whole && (text.empty() || text.back() == '\n');
  }
  if (!whole) {
    LL_LOG(kWarning) << journal.path_ << ": the last report was only half written; it is dropped";
    if (const absl::Status status = journal.Rewrite(); !status.ok()) journal.file_.reset();
  } else if (auto file = files.OpenAppend(journal.path_); file.ok()) {
    journal.file_ = *std::move(file);
  }
  return journal;
}

ReportJournal ReportJournal::Continue(const std::string& dir, std::deque<v1::Report> unacknowledged,
                                      int64_t last_sequence, Files& files) {
  ReportJournal journal(absl::StrCat(dir, "/reports.jsonl"), files);
  journal.unacknowledged_ = std::move(unacknowledged);
  journal.last_sequence_ = last_sequence;
  if (const absl::Status status = journal.Rewrite(); !status.ok()) {
    journal.file_.reset();
    LL_LOG(kWarning) << "reports are not on disk: " << status.message();
  }
  return journal;
}

absl::Status ReportJournal::Write(const v1::Report& report) {
  if (!file_) return Rewrite();
  LL_RETURN_IF_ERROR(file_->Append(absl::StrCat(MessageToLine(report), "\n")));
  return file_->Sync();
}

// The first line holds nothing but the number before the first kept report, so that numbers are
// never used twice.
absl::Status ReportJournal::Rewrite() {
  v1::Report mark;
  mark.set_sequence(unacknowledged_.empty() ? last_sequence_
                                            : unacknowledged_.front().sequence() - 1);
  std::string text;
  if (mark.sequence() > 0) text = absl::StrCat(MessageToLine(mark), "\n");
  for (const v1::Report& report : unacknowledged_)
    absl::StrAppend(&text, MessageToLine(report), "\n");
  LL_RETURN_IF_ERROR(files_->WriteAtomic(path_, text));
  LL_ASSIGN_OR_RETURN(file_, files_->OpenAppend(path_));
  return absl::OkStatus();
}

bool ReportJournal::Append(v1::Report report) {
  report.set_sequence(++last_sequence_);
  unacknowledged_.push_back(std::move(report));
  const absl::Status status = Write(unacknowledged_.back());
  if (status.ok()) return true;
  file_.reset();
  LL_LOG(kWarning) << "a report is not on disk: " << status.message();
  return false;
}

void ReportJournal::Acknowledge(int64_t sequence) {
  while (!unacknowledged_.empty() && unacknowledged_.front().sequence() <= sequence)
    unacknowledged_.pop_front();
}

void ReportJournal::SkipTo(int64_t sequence) {
  last_sequence_ = std::max(last_sequence_, sequence);
}

}  // namespace ll
