#include "coordinator/api/read_pool.h"

#include <utility>

namespace ll {

ReadPool::ReadPool(int threads, size_t most_waiting) : most_waiting_(most_waiting) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

ReadPool::~ReadPool() {
  {
    absl::MutexLock lock(&mu_);
    ending_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

bool ReadPool::Do(std::function<void()> read) {
  absl::MutexLock lock(&mu_);
  if (waiting_.size() >= most_waiting_) return false;
  waiting_.push_back(std::move(read));
  return true;
}

void ReadPool::Run() {
  while (true) {
    std::function<void()> read;
    {
      absl::MutexLock lock(&mu_);
      const auto work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return ending_ || !waiting_.empty();
      };
      mu_.Await(absl::Condition(&work));
      if (waiting_.empty()) return;
      read = std::move(waiting_.front());
      waiting_.pop_front();
    }
    read();
  }
}

}  // namespace ll
