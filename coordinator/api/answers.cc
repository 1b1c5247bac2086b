#include "coordinator/api/answers.h"

#include <utility>

namespace ll {

Answers::~Answers() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    wake_.Signal();
  }
  thread_.join();
}

void Answers::Post(std::function<void()> answer) {
  absl::MutexLock lock(&mu_);
  waiting_.push_back(std::move(answer));
  if (waiting_.size() == 1) wake_.Signal();
}

void Answers::Run() {
  std::vector<std::function<void()>> batch;
  for (;;) {
    {
      absl::MutexLock lock(&mu_);
      while (waiting_.empty() && !stopping_) wake_.Wait(&mu_);
      if (waiting_.empty()) return;
      batch.swap(waiting_);
    }
    for (const std::function<void()>& answer : batch) answer();
    batch.clear();
  }
}

}  // namespace ll
