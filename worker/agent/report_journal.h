// The facts about one gang that the coordinator has not acknowledged yet, kept across a kill of the
// agent.
//
// One JSON line a report in DIR/reports.jsonl, synced before the report is sent: what the
// coordinator once saw is never contradicted by the next agent process, and a rank that ended well
// while nobody listened is not run again. Where the disk refuses (full), the report is kept in
// memory and sent all the same, and each later call tries to write the whole journal anew; losing
// such a report costs one repeated attempt at worst. Not thread-safe.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/files.h"
#include "proto/workers.pb.h"

namespace ll {

class ReportJournal {
 public:
  // Reads what an earlier process left; a half last line (the process was killed while writing) is
  // dropped. Errors: a journal is there and cannot be read. One that cannot be written shows at
  // Append.
  static absl::StatusOr<ReportJournal> Open(const std::string& dir, Files& files = RealFiles());

  // What another program in this process's place went on with: the reports that an agent which is
  // re-executed had in memory, whether they had reached the disk or not.
  static ReportJournal Continue(const std::string& dir, std::deque<v1::Report> unacknowledged,
                                int64_t last_sequence, Files& files = RealFiles());

  // Gives `report` the next sequence number and keeps it until it is acknowledged. False: it is not
  // on disk.
  bool Append(v1::Report report);
  // Everything up to and including `sequence` is durable at the coordinator.
  void Acknowledge(int64_t sequence);
  // Later reports get higher numbers than `sequence`, which the coordinator has seen.
  void SkipTo(int64_t sequence);

  const std::deque<v1::Report>& unacknowledged() const { return unacknowledged_; }
  int64_t last_sequence() const { return last_sequence_; }

 private:
  ReportJournal(std::string path, Files& files) : path_(std::move(path)), files_(&files) {}
  absl::Status Write(const v1::Report& report);
  absl::Status Rewrite();

  std::string path_;
  Files* files_;
  std::unique_ptr<GrowingFile> file_;  // absent after a failed write, until a rewrite succeeded
  std::deque<v1::Report> unacknowledged_;
  int64_t last_sequence_ = 0;
};

// Protobuf's JSON of any message on one line, with the proto's field names; and back. For files of
// the agent.
std::string MessageToLine(const google::protobuf::Message& message);
absl::Status LineToMessage(absl::string_view line, google::protobuf::Message& message);

}  // namespace ll
