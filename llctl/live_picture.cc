#include "llctl/live_picture.h"

#include <utility>

namespace ll {
namespace {
constexpr absl::Duration kBetweenFrames = absl::Milliseconds(250);
// A picture that stands still is still compared with the terminal's size.
constexpr absl::Duration kLongestStill = absl::Seconds(1);
}  // namespace

LivePicture::LivePicture(Session& session) : session_(session), thread_([this] { Loop(); }) {}

LivePicture::~LivePicture() {
  {
    absl::MutexLock lock(&mu_);
    stop_ = true;
    news_.SignalAll();
  }
  thread_.join();
}

void LivePicture::TakeJob(const v1::Job& job) {
  absl::MutexLock lock(&mu_);
  frame_.TakeJob(job);
  changed_ = true;
  news_.SignalAll();
}

void LivePicture::TakeStep(const v1::StepRecord& step) {
  absl::MutexLock lock(&mu_);
  frame_.TakeStep(step);
  changed_ = true;
  news_.SignalAll();
}

void LivePicture::SetTrouble(const std::string& trouble) {
  absl::MutexLock lock(&mu_);
  frame_.SetTrouble(trouble);
  changed_ = true;
  news_.SignalAll();
}

void LivePicture::PrintAbove(const std::string& line) {
  absl::MutexLock lock(&mu_);
  above_.push_back(line);
  changed_ = true;
  news_.SignalAll();
}

void LivePicture::Loop() {
  LiveScreen screen(session_.environment().out);
  for (;;) {
    std::vector<std::string> above, lines;
    const TerminalSize size = session_.terminal_size();
    bool last;
    {
      absl::MutexLock lock(&mu_);
      news_.AwaitFor(mu_, kLongestStill,
                     [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return changed_ || stop_; });
      last = stop_;
      above.swap(above_);
      changed_ = false;
      lines = frame_.Lines(size, session_.utf8(), session_.output().color());
    }
    for (const std::string& line : above) screen.PrintAbove(line);
    screen.Show(lines, size);
    if (last) return;
    absl::MutexLock lock(&mu_);
    news_.AwaitFor(mu_, kBetweenFrames,
                   [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return stop_; });
  }
}

}  // namespace ll
