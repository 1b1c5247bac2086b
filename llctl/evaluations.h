// What a job's trainer told of its evaluations.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/struct.pb.h"
#include "llctl/client.h"
#include "proto/job.pb.h"

namespace ll {

// The `eval` events so far, in order, by a stream of Watch that is read up to the step that `job`
// knows, or for three seconds: a running job's has no end. Errors: those of Watch.
absl::StatusOr<std::vector<google::protobuf::Struct>> ReadEvaluations(const v1::Job& job,
                                                                      Client& client);

}  // namespace ll
