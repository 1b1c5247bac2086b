#include "coordinator/workers/path_checks.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"

namespace ll {

int64_t PathChecks::Begin(absl::Duration deadline, std::function<void(PathFindings)> done) {
  absl::MutexLock lock(&mu_);
  Question& question = questions_[++last_id_];
  question.deadline = deadline;
  question.done = std::move(done);
  return last_id_;
}

void PathChecks::Ask(int64_t id, uint64_t session) {
  absl::MutexLock lock(&mu_);
  const auto it = questions_.find(id);
  if (it != questions_.end()) it->second.waiting.insert(session);
}

void PathChecks::Asked(int64_t id) {
  {
    absl::MutexLock lock(&mu_);
    const auto it = questions_.find(id);
    if (it != questions_.end()) it->second.asked = true;
  }
  Finish([](const Question& q) { return q.asked && q.waiting.empty(); });
}

void PathChecks::OnAnswer(uint64_t session, const std::string& worker,
                          const v1::PathChecked& answer) {
  {
    absl::MutexLock lock(&mu_);
    const auto it = questions_.find(answer.id());
    if (it == questions_.end() || it->second.waiting.erase(session) == 0) return;
    PathFindings& findings = it->second.findings;
    ++findings.workers;
    if (!answer.refused().empty()) {
      findings.status = FieldStatus(absl::StatusCode::kFailedPrecondition, "path",
                                    absl::StrCat("worker ", worker, ": ", answer.refused()),
                                    "every worker must be able to read it");
    } else if (findings.config_json.empty()) {
      findings.config_json = answer.config_json();
    }
  }
  Finish(
      [](const Question& q) { return q.asked && (q.waiting.empty() || !q.findings.status.ok()); });
}

void PathChecks::OnSessionEnd(uint64_t session) {
  {
    absl::MutexLock lock(&mu_);
    for (auto& [id, question] : questions_) question.waiting.erase(session);
  }
  Finish([](const Question& q) { return q.asked && q.waiting.empty(); });
}

void PathChecks::OnTime(absl::Duration now) {
  Finish([now](const Question& q) { return q.asked && q.deadline <= now; });
}

void PathChecks::Finish(const std::function<bool(const Question&)>& over) {
  std::vector<Question> finished;
  {
    absl::MutexLock lock(&mu_);
    for (auto it = questions_.begin(); it != questions_.end();) {
      if (over(it->second)) {
        finished.push_back(std::move(it->second));
        it = questions_.erase(it);
      } else {
        ++it;
      }
    }
  }
  for (Question& question : finished) question.done(std::move(question.findings));
}

}  // namespace ll
