#include "coordinator/store/leadership.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/leader_error.h"
#include "base/log.h"

namespace ll {

absl::Status NotLeaderError(const std::string& leader) {
  absl::Status status =
      leader.empty()
          ? absl::UnavailableError("no coordinator leads at this moment; try again")
          : absl::UnavailableError(absl::StrCat("this coordinator is a standby; ", leader,
                                                " leads: name all coordinators, separated by "
                                                "commas, and the right one is found"));
  SetErrorLeader(status, leader.empty() ? "none" : leader);
  return status;
}

Leadership::Leadership(LeaseOptions options, std::unique_ptr<LeaseTable> table, Clock& clock,
                       std::function<void()> on_change)
    : table_(std::move(table)), clock_(clock), on_change_(std::move(on_change)), lease_(options) {}

Leadership::~Leadership() { Stop(); }

void Leadership::Start(std::string address) {
  address_ = std::move(address);
  thread_ = std::thread([this] { Run(); });
}

void Leadership::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    lease_.StepAside(clock_.Steady(), absl::ZeroDuration());
    wake_.SignalAll();
  }
  if (!thread_.joinable()) return;
  thread_.join();
  table_->Release();
}

absl::Status Leadership::CheckLocked() const {
  if (lease_.Leads(clock_.Steady())) return absl::OkStatus();
  return last_.ok() ? NotLeaderError(lease_.leader()) : last_;
}

absl::Status Leadership::Check() const {
  absl::MutexLock lock(&mu_);
  return CheckLocked();
}

absl::Status Leadership::Check(int64_t generation) const {
  absl::MutexLock lock(&mu_);
  const absl::Status status = CheckLocked();
  if (!status.ok() || lease_.generation() == generation) return status;
  return NotLeaderError("");
}

int64_t Leadership::generation() const {
  absl::MutexLock lock(&mu_);
  return lease_.generation();
}

void Leadership::StepAside(absl::Duration pause) {
  absl::MutexLock lock(&mu_);
  lease_.StepAside(clock_.Steady(), pause);
  release_ = true;
  wake_.SignalAll();
}

void Leadership::Run() {
  bool led = false;
  bool release = false;
  while (true) {
    const absl::Duration asked = clock_.Steady();
    bool due;
    {
      absl::MutexLock lock(&mu_);
      if (stopping_) return;
      release = std::exchange(release_, false);
      due = asked >= lease_.next_question();
    }
    if (release) table_->Release();
    if (due) {
      const absl::StatusOr<LeaseAnswer> answer = table_->Ask(address_);
      const absl::Duration now = clock_.Steady();
      absl::MutexLock lock(&mu_);
      if (last_.ok() != answer.ok() || !asked_) {
        if (answer.ok()) {
          LL_LOG(kInfo) << "the leader's lease is in sight";
        } else {
          LL_LOG(kError) << "the leader's lease is out of sight: " << answer.status().message()
                         << "; tried again and again: does the database run, and are host, user "
                            "and passfile of --store right?";
        }
      }
      asked_ = true;
      last_ = answer.status();
      if (!answer.ok()) {
        lease_.OnNoAnswer(now);
      } else if (!release_ && !stopping_) {
        lease_.OnAnswer(*answer, asked, now);
      }
    }
    bool leads;
    {
      absl::MutexLock lock(&mu_);
      leads = lease_.Leads(clock_.Steady());
    }
    if (leads != led) {
      LL_LOG(kInfo) << (leads ? "this coordinator leads" : "this coordinator no longer leads");
      led = leads;
      on_change_();
    }
    absl::MutexLock lock(&mu_);
    if (stopping_ || release_) continue;
    const absl::Duration left = lease_.next_question() - clock_.Steady();
    wake_.WaitFor(mu_, std::clamp(left, absl::ZeroDuration(), absl::Milliseconds(100)));
  }
}

}  // namespace ll
