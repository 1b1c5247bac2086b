// A conversation with a job of kind generate: messages go out with Jobs.Say, answers come back as
// events of Jobs.Watch.
#pragma once

#include <deque>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/steady_cond_var.h"
#include "llctl/follow.h"
#include "llctl/session.h"
#include "nlohmann/json.hpp"

namespace ll {

// Follows the job on a thread of its own from construction until the job has ended. Thread-safe.
class Conversation : public JobEvents {
 public:
  Conversation(Session& session, std::string job_id);
  // Cancels the job, unless it has ended, and waits for its end.
  ~Conversation() override;

  // Waits until the job listens. `on_wait` is told why it does not yet, whenever that changes.
  // Errors: the job's end; Cancelled on Ctrl-C.
  absl::Status AwaitReady(const std::function<void(const std::string& reason)>& on_wait);
  // One message and its answer. `on_text` gets the answer's text as it comes. Returns the `answer`
  // event. Errors: those of Say, InvalidArgument for what the model's side refuses, the job's end,
  // Aborted where its worker failed or the coordinator went away: the answer may be lost; Cancelled
  // on Ctrl-C, DeadlineExceeded where nothing comes for half an hour.
  absl::StatusOr<nlohmann::ordered_json> Ask(
      const nlohmann::json& message, const std::function<void(const std::string& text)>& on_text);

 private:
  void OnJob(const v1::Job& job) override;
  void OnStep(const v1::StepRecord&) override {}
  void OnEvent(const google::protobuf::Struct& event) override;
  void OnContact(const absl::Status& status) override;
  // Waits for the next event of this request; false: nothing yet. Errors: the job's end, or that of
  // the attempt that was asked.
  absl::StatusOr<bool> NextEvent(const std::string& request_id, int64_t epoch,
                                 nlohmann::ordered_json& event);

  Session& session_;
  const std::string job_id_;
  int64_t asked_ = 0;
  absl::Mutex mu_;
  SteadyCondVar news_;  // events_ or ended_ changed
  v1::Job job_ ABSL_GUARDED_BY(mu_);
  std::deque<nlohmann::ordered_json> events_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool lost_contact_ ABSL_GUARDED_BY(mu_) = false;  // since the message under way was sent
  absl::Status follow_status_ ABSL_GUARDED_BY(mu_);
  std::thread follower_;
};

}  // namespace ll
