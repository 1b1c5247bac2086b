// A followed job on the screen: a live picture on a terminal, plain lines elsewhere, JSON lines
// with -o json.
#pragma once

#include <memory>
#include <string>

#include "llctl/follow.h"
#include "llctl/session.h"

namespace ll {

class LivePicture;

class ProgressPrinter : public JobEvents {
 public:
  // `quiet`: nothing but contact trouble (on stderr) is printed.
  explicit ProgressPrinter(Session& session, bool quiet = false);
  ~ProgressPrinter() override;
  void OnJob(const v1::Job& job) override;
  void OnStep(const v1::StepRecord& step) override;
  void OnEvent(const google::protobuf::Struct& event) override;
  void OnContact(const absl::Status& status) override;

 private:
  enum class Style { kQuiet, kLive, kPlain, kJsonLines };
  void Line(const std::string& text);  // a line that stays

  Session& session_;
  Style style_;
  int64_t max_steps_ = 0;
  std::unique_ptr<LivePicture> picture_;  // of kLive
};

// What `watch` and `submit --watch` do: follows, prints, returns the job's exit code or
// kExitDetached.
absl::StatusOr<int> WatchJob(Session& session, const std::string& job_id, int64_t from_step);

}  // namespace ll
