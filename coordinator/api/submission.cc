#include "coordinator/api/submission.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "coordinator/api/convert.h"
#include "coordinator/api/request_checks.h"
#include "coordinator/runtime/telemetry.h"
#include "model/spec/stages.h"

namespace ll {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;

absl::Status CheckMemberName(const std::string& field, const std::string& name,
                             std::set<std::string>& seen) {
  LL_RETURN_IF_ERROR(CheckPlainName(field, name));
  const std::string found = absl::StrCat("\"", name, "\"");
  if (LooksLikeJobId(name)) return MakeFieldError({field, "a name that is no job id", found});
  if (!seen.insert(name).second) return MakeFieldError({field, "names used once", found});
  return absl::OkStatus();
}

// The members a member refers to.
std::vector<size_t> Needs(const Member& member, const std::map<std::string, size_t>& by_name) {
  std::set<size_t> needs;
  const auto add = [&](const std::string& name) {
    if (auto it = by_name.find(name); it != by_name.end()) needs.insert(it->second);
  };
  for (const std::string& name : member.spec.after()) add(name);
  for (const std::string& name : member.spec.after_any()) add(name);
  add(member.spec.job());
  return {needs.begin(), needs.end()};
}

std::map<std::string, size_t> ByName(const std::vector<Member>& members) {
  std::map<std::string, size_t> by_name;
  for (size_t i = 0; i < members.size(); ++i) {
    if (!members[i].name.empty()) by_name[members[i].name] = i;
  }
  return by_name;
}

// Every member that is left waits for another one that is left: following them comes round.
std::string Circle(const std::vector<Member>& members,
                   const std::vector<std::vector<size_t>>& needs, const std::vector<bool>& placed) {
  size_t at = std::find(placed.begin(), placed.end(), false) - placed.begin();
  std::vector<size_t> path;
  while (std::find(path.begin(), path.end(), at) == path.end()) {
    path.push_back(at);
    at = *std::find_if(needs[at].begin(), needs[at].end(), [&](size_t i) { return !placed[i]; });
  }
  path.erase(path.begin(), std::find(path.begin(), path.end(), at));
  path.push_back(at);
  return absl::StrJoin(path, " after ", [&members](std::string* out, size_t i) {
    absl::StrAppend(out, members[i].name);
  });
}

// Puts ids in the place of members' names. A member whose weights come from another one waits for
// it.
v1::JobSpec WithIds(const v1::JobSpec& given, const std::map<std::string, JobId>& ids) {
  v1::JobSpec spec = given;
  const auto replace = [&ids](std::string& name) {
    if (auto it = ids.find(name); it != ids.end()) name = it->second.value();
  };
  for (std::string& name : *spec.mutable_after()) replace(name);
  for (std::string& name : *spec.mutable_after_any()) replace(name);
  if (ids.count(spec.job()) > 0) {
    replace(*spec.mutable_job());
    const auto& after = spec.after();
    if (std::find(after.begin(), after.end(), spec.job()) == after.end())
      spec.add_after(spec.job());
  }
  return spec;
}

}  // namespace

absl::StatusOr<SubmitPlan> PlanOf(const v1::SubmitRequest& request, Random& random) {
  LL_RETURN_IF_ERROR(CheckRequestId(request.request_id(), kMaxRequestIdBytes));
  LL_RETURN_IF_ERROR(CheckSpecSize(request.spec()));
  SubmitPlan plan;
  plan.request_id = request.request_id();
  plan.dry_run = request.dry_run();
  plan.body_sha256 = Sha256Hex(SerializeDeterministic(request.spec()));
  if (request.spec().stages().empty()) {
    plan.members.push_back({"", request.spec()});
    return plan;
  }
  plan.graph = true;
  JobSpec spec = SpecFromProto(request.spec());
  LL_RETURN_IF_ERROR(Validate(spec));
  if (!spec.name) spec.name = absl::StrCat("stages-", RandomHex(random, 3));
  LL_ASSIGN_OR_RETURN(std::vector<StageJob> jobs, ExpandStages(spec));
  for (const StageJob& job : jobs) plan.members.push_back({job.name, SpecToProto(job.spec)});
  return plan;
}

absl::StatusOr<SubmitPlan> PlanOf(const v1::SubmitAllRequest& request) {
  LL_RETURN_IF_ERROR(CheckRequestId(request.request_id(), kMaxRequestIdBytes));
  if (request.members().empty() || request.members_size() > kMaxMembers) {
    return MakeFieldError({"members", absl::StrCat("1 to ", kMaxMembers, " jobs"),
                           absl::StrCat(request.members_size())});
  }
  SubmitPlan plan;
  plan.request_id = request.request_id();
  plan.dry_run = request.dry_run();
  v1::SubmitAllRequest body = request;
  body.clear_request_id();
  plan.body_sha256 = Sha256Hex(SerializeDeterministic(body));
  std::set<std::string> names;
  for (int i = 0; i < request.members_size(); ++i) {
    const v1::SubmitMember& member = request.members(i);
    LL_RETURN_IF_ERROR(
        CheckMemberName(absl::StrCat("members[", i, "].name"), member.name(), names));
    absl::Status bad = CheckSpecSize(member.spec());
    if (bad.ok() && !member.spec().stages().empty())
      bad = MakeFieldError({"stages", "nothing in one of several jobs", "a list"});
    if (!bad.ok()) return Annotate(bad, member.name());
    plan.members.push_back({member.name(), member.spec()});
  }
  return plan;
}

absl::StatusOr<std::vector<size_t>> MemberOrder(const std::vector<Member>& members) {
  const std::map<std::string, size_t> by_name = ByName(members);
  std::vector<std::vector<size_t>> needs;
  std::vector<std::vector<size_t>> needed_by(members.size());
  std::vector<size_t> missing(members.size());
  std::set<size_t> ready;  // the smallest first: the user's order where nothing is against it
  for (size_t i = 0; i < members.size(); ++i) {
    needs.push_back(Needs(members[i], by_name));
    missing[i] = needs[i].size();
    for (size_t j : needs[i]) needed_by[j].push_back(i);
    if (missing[i] == 0) ready.insert(i);
  }
  std::vector<size_t> order;
  std::vector<bool> placed(members.size(), false);
  while (!ready.empty()) {
    const size_t i = *ready.begin();
    ready.erase(ready.begin());
    order.push_back(i);
    placed[i] = true;
    for (size_t j : needed_by[i]) {
      if (--missing[j] == 0) ready.insert(j);
    }
  }
  if (order.size() == members.size()) return order;
  return FieldStatus(absl::StatusCode::kInvalidArgument, "after",
                     absl::StrCat("jobs wait for each other: ", Circle(members, needs, placed)));
}

std::vector<JobId> OutsideSources(const std::vector<Member>& members) {
  const std::map<std::string, size_t> by_name = ByName(members);
  std::set<JobId> ids;
  for (const Member& member : members) {
    if (member.spec.has_job() && by_name.count(member.spec.job()) == 0)
      ids.insert(JobId(member.spec.job()));
  }
  return {ids.begin(), ids.end()};
}

absl::StatusOr<std::vector<AdmittedMember>> AdmitMembers(
    const SubmitPlan& plan, const std::map<JobId, SourceJob>& sources, const ClusterView& view,
    const AdmissionOptions& options, absl::Time now, Random& random, const Access& access) {
  LL_ASSIGN_OR_RETURN(const std::vector<size_t> order, MemberOrder(plan.members));
  std::map<JobId, SourceJob> known = sources;
  std::map<std::string, JobId> ids;
  std::vector<AdmittedMember> out;
  for (size_t index : order) {
    const Member& member = plan.members[index];
    const auto about = [&member](const absl::Status& status) {
      return member.name.empty() ? status : Annotate(status, member.name);
    };
    AdmissionRequest request;
    request.spec = WithIds(member.spec, ids);
    request.dry_run = plan.dry_run;
    request.now = now;
    request.access = access;
    if (request.spec.has_job()) {
      const auto source = known.find(JobId(request.spec.job()));
      if (source == known.end()) {
        return about(FieldStatus(absl::StatusCode::kNotFound, "job",
                                 absl::StrCat("there is no job ", request.spec.job())));
      }
      request.source = source->second;
    }
    absl::StatusOr<Admitted> admitted = Admit(request, view, options);
    if (!admitted.ok()) return about(admitted.status());
    const JobId id = NewJobId(random);
    if (!member.name.empty()) ids[member.name] = id;
    if (order.size() > 1)
      known[id] = SourceJob{id, SpecFromProto(admitted->resolved), std::nullopt, /*ended=*/false};
    out.push_back({index, id, std::move(request.spec), *std::move(admitted)});
  }
  return out;
}

}  // namespace ll
