// What a submit asks for, before the scheduler sees it: one job, several that refer to each other
// by name, or a training in stages, which becomes several. Pure functions, thread-safe.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/api/admission.h"
#include "coordinator/core/events.h"
#include "proto/jobs.pb.h"

namespace ll {

inline constexpr int kMaxMembers = 1000;

// A job of a request. Its spec's `after`, `after_any` and `job` may name other members.
struct Member {
  std::string name;  // unique within the request; empty: the only one
  v1::JobSpec spec;
};

struct SubmitPlan {
  std::vector<Member> members;
  std::string request_id;
  std::string body_sha256;  // of what the user sent
  bool dry_run = false;
  bool graph = false;  // of a training in stages
};

// The request's members. Errors name the field: of the spec, of request_id, or members[I].name.
absl::StatusOr<SubmitPlan> PlanOf(const v1::SubmitRequest& request, Random& random);
absl::StatusOr<SubmitPlan> PlanOf(const v1::SubmitAllRequest& request);

// Indexes of the members so that each comes behind those it refers to, otherwise in their order.
// InvalidArgument (field `after`) where they wait for each other, with the circle named.
absl::StatusOr<std::vector<size_t>> MemberOrder(const std::vector<Member>& members);

// The jobs outside the request that members name in `job`.
std::vector<JobId> OutsideSources(const std::vector<Member>& members);

struct AdmittedMember {
  size_t index = 0;  // of SubmitPlan::members
  JobId id;
  v1::JobSpec spec;  // with ids instead of names
  Admitted admitted;
};
// Admits all of them, as submitted at `now`, in MemberOrder, each with a new id. `sources` holds
// what exists of OutsideSources. Errors are Admit's with the member's name in front.
absl::StatusOr<std::vector<AdmittedMember>> AdmitMembers(
    const SubmitPlan& plan, const std::map<JobId, SourceJob>& sources, const ClusterView& view,
    const AdmissionOptions& options, absl::Time now, Random& random, const Access& access = {});

}  // namespace ll
