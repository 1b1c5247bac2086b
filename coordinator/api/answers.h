// Answers leave on a thread of their own, so that the driver's goes on with the next transaction
// while gRPC encodes, encrypts and sends what the last one decided.
#pragma once

#include <functional>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"

namespace ll {

// Thread-safe.
class Answers {
 public:
  Answers() : thread_([this] { Run(); }) {}
  // After everything that was posted has run.
  ~Answers();

  // Runs `answer` on this object's thread, in the order of the calls. Does not wait.
  void Post(std::function<void()> answer);

 private:
  void Run();

  absl::Mutex mu_;
  absl::CondVar wake_;
  std::vector<std::function<void()>> waiting_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace ll
