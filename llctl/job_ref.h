// The job that a person means.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "llctl/client.h"

namespace ll {

inline constexpr char kJobHelp[] = "Job id, or a name that one job has.";
inline constexpr char kJobsHelp[] = "Job ids, or names that one job has.";

// The id of the job that `text` names: an id ("job-" and 12 hex digits) is itself, without a call;
// anything else is a name, which has to be that of one job, or of one that has not ended. Errors
// (field "job"): NotFound, no job has that name; InvalidArgument, several have, and which.
absl::StatusOr<std::string> JobIdOf(const std::string& text, Client& client);
// Of all of them, in order; the first error.
absl::StatusOr<std::vector<std::string>> JobIdsOf(const std::vector<std::string>& texts,
                                                  Client& client);

}  // namespace ll
