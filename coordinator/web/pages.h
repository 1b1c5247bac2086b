// The pages. Each asks the services for what it shows and is complete without a script. Errors are
// the services'.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "coordinator/web/job_charts.h"
#include "coordinator/web/page.h"

namespace ll {

absl::StatusOr<Page> JobListPage(const PageRequest& request);
absl::StatusOr<Page> JobPage(const PageRequest& request, const std::string& id, JobCharts& charts);
absl::StatusOr<Page> LogPage(const PageRequest& request, const std::string& id);
absl::StatusOr<Page> QueuesPage(const PageRequest& request);
absl::StatusOr<Page> WorkersPage(const PageRequest& request);
absl::StatusOr<Page> SchedulesPage(const PageRequest& request);
absl::StatusOr<Page> SchedulePage(const PageRequest& request, const std::string& name);

}  // namespace ll
