// A rank's telemetry on this host's disk, and how far it was sent.
//
// The files of the job's folder are the spool: nothing is queued in memory while the coordinator is
// away, and what was sent is found again by its byte offset. Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/files.h"
#include "proto/workers.pb.h"

namespace ll {

// Writes whole lines to the end of one file. Not synced: losing the last lines with the host is
// acceptable for telemetry. A write that fails (a full disk) leaves no half line: the file is cut
// back to the last whole one.
class LineFile {
 public:
  explicit LineFile(Files& files = RealFiles()) : files_(files) {}
  // Creates the file, or goes on after its last whole line.
  absl::Status Open(const std::string& path);
  bool is_open() const { return file_ != nullptr; }
  // `line` ends with '\n'. After an error the next call tries again.
  absl::Status Append(absl::string_view line);
  void Close() { file_.reset(); }

 private:
  Files& files_;
  std::unique_ptr<GrowingFile> file_;
};

// Reads a spool file piece by piece to send it, and starts again at the acknowledged offset after a
// reconnect.
class TelemetryCursor {
 public:
  // Not acknowledged bytes in flight, and the largest piece: a message must stay below the
  // coordinator's limit.
  static constexpr int64_t kWindowBytes = 4 << 20;
  static constexpr int64_t kPieceBytes = 256 << 10;
  // EVENTS pieces end with a line; a longer line than this never gets into the spool.
  static constexpr int64_t kMaxLineBytes = 1 << 20;
  static constexpr absl::Duration kPatience = absl::Seconds(10);

  TelemetryCursor(std::string path, v1::Telemetry::Stream stream, Files& files = RealFiles())
      : path_(std::move(path)), stream_(stream), files_(files) {}

  // Fills offset, stream and data of the next piece and counts it as sent. False when there is
  // nothing to send now: all sent, or the window is full. A file that is not there is empty.
  bool Next(v1::Telemetry& message);
  void Acknowledge(int64_t offset);
  // Goes back to the acknowledged offset where that has not grown for kPatience though more was
  // sent: a coordinator whose disk is full says nothing about what it does not take. `now` as
  // Clock::Steady; to be called before Next.
  void SendAgain(absl::Duration now);
  // After a reconnect: the coordinator has everything before `offset`.
  void Rewind(int64_t offset);

  // Everything that can be sent was sent (a half line at the end of an event file cannot).
  bool AllSent() const;
  bool AllAcknowledged() const;
  int64_t acknowledged() const { return acknowledged_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  v1::Telemetry::Stream stream_;
  Files& files_;
  int64_t sent_ = 0, acknowledged_ = 0;
  int64_t waits_at_ = 0;  // what was acknowledged at `waits_since_`
  absl::Duration waits_since_ = absl::ZeroDuration();
};

}  // namespace ll
