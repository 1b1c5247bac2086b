#include "coordinator/api/follow.h"

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "coordinator/api/convert.h"

namespace ll {

namespace {

// Ten thousand steps a second keep about one core busy: this one's share in two. Short histories
// are told at once.
constexpr double kTurnsASecondOfTwoCores = 160, kSavedTurns = 40;

double TurnsASecond() {
  return kTurnsASecondOfTwoCores * std::max(1.0, std::thread::hardware_concurrency() / 2.0);
}

}  // namespace

FollowHub::FollowHub(const Telemetry& telemetry)
    : telemetry_(telemetry), turns_(TurnsASecond(), kSavedTurns) {}

JobSnapshot SnapshotOf(const Job& job, const Telemetry& telemetry) {
  const auto newest = job.epoch > 0 ? telemetry.Newest(job.id) : std::nullopt;
  return {std::make_shared<v1::Job>(JobToProto(job, newest, JobDetail::kHistory)), job.transitions};
}

absl::Status FollowHub::Add(const Scheduler& scheduler, const JobId& id, const Access& access,
                            const std::shared_ptr<Follower>& follower) {
  const Job* job = scheduler.Find(id, access);
  if (job == nullptr) {
    return FieldStatus(absl::StatusCode::kNotFound, "job_id",
                       absl::StrCat("there is no job ", id.value()), "llctl list shows the jobs");
  }
  {
    absl::MutexLock lock(&mu_);
    followers_[id].push_back(follower);
  }
  follower->OnJob(SnapshotOf(*job, telemetry_));
  return absl::OkStatus();
}

std::vector<std::shared_ptr<Follower>> FollowHub::FollowersOf(const JobId& job) {
  absl::MutexLock lock(&mu_);
  std::vector<std::shared_ptr<Follower>> out;
  auto it = followers_.find(job);
  if (it == followers_.end()) return out;
  auto& list = it->second;
  for (const auto& weak : list) {
    if (auto follower = weak.lock()) out.push_back(std::move(follower));
  }
  list.erase(
      std::remove_if(list.begin(), list.end(), [](const auto& weak) { return weak.expired(); }),
      list.end());
  if (list.empty()) followers_.erase(it);
  return out;
}

void FollowHub::OnNews(const JobId& job) {
  for (const auto& follower : FollowersOf(job)) follower->OnWake();
}

void FollowHub::OnChanged(const Scheduler& scheduler, const std::vector<JobId>& jobs) {
  for (const JobId& id : jobs) {
    const auto followers = FollowersOf(id);
    const Job* job = followers.empty() ? nullptr : scheduler.Find(id);
    if (job == nullptr) continue;
    const JobSnapshot snapshot = SnapshotOf(*job, telemetry_);
    for (const auto& follower : followers) follower->OnJob(snapshot);
  }
}

void FollowHub::OnDeleted(const JobId& job) {
  for (const auto& follower : FollowersOf(job)) follower->OnJobDeleted();
}

void FollowHub::OnServing(const absl::Status& status) {
  if (status.ok()) return;
  std::vector<JobId> jobs;
  {
    absl::MutexLock lock(&mu_);
    for (const auto& [job, list] : followers_) jobs.push_back(job);
  }
  for (const JobId& job : jobs) {
    for (const auto& follower : FollowersOf(job)) follower->OnNotServing(status);
  }
}

void FollowHub::OnTick(const Scheduler& scheduler) {
  std::vector<JobId> jobs;
  {
    absl::MutexLock lock(&mu_);
    for (const auto& [job, list] : followers_) jobs.push_back(job);
  }
  for (const JobId& job : jobs) OnNews(job);
}

}  // namespace ll
