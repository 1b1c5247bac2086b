#include "coordinator/api/job_reader.h"

#include <utility>

namespace ll {

void JobReader::Read(Wanted wanted, Driver::Reader read) {
  driver_.Read([this, wanted = std::move(wanted), read = std::move(read)](
                   const absl::Status& status, const Scheduler* view) {
    if (!status.ok()) return read(status, view);
    ReadFirst(*view, wanted(*view), read);
  });
}

void JobReader::Read(const JobId& job, const Access& access, Driver::Reader read) {
  const auto wanted = [job, access](const Scheduler& view) {
    const Job* found = view.Find(job, access);
    return found == nullptr ? std::vector<const Job*>() : std::vector<const Job*>{found};
  };
  Read(wanted, std::move(read));
}

void JobReader::Answer(const Scheduler& view, const Job& job, Driver::Reader then) {
  ReadFirst(view, {&job}, std::move(then));
}

void JobReader::ReadFirst(const Scheduler& view, const std::vector<const Job*>& jobs,
                          Driver::Reader then) {
  std::vector<JobId> ids;
  for (const Job* job : jobs) {
    if (job->epoch > 0) ids.push_back(job->id);
  }
  std::vector<JobId> unread = telemetry_.Unread(std::move(ids));
  if (unread.empty()) return then(absl::OkStatus(), &view);
  const bool taken = pool_.Do([this, unread = std::move(unread), then] {
    for (const JobId& job : unread) telemetry_.Newest(job);
    driver_.Read(then);
  });
  if (taken) return;
  then(absl::ResourceExhaustedError("too many histories are being read; try again"), nullptr);
}

}  // namespace ll
