#include "coordinator/api/gpu_types.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/gpu_kind.h"
#include "model/plan/devices.h"
#include "model/plan/memory_plan.h"

namespace ll {
namespace {

constexpr char kKey[] = "gpu_types";

std::set<std::string> KindsOfWorkers(const ClusterView& view) {
  std::set<std::string> kinds;
  for (const Worker& worker : view.workers) {
    for (const Slot& slot : worker.slots) kinds.insert(slot.kind);
  }
  return kinds;
}

// Why jobs can run on none of these kinds, as the planner has it; empty: on some they can.
std::string WhyUnsupported(const std::vector<std::string>& kinds) {
  std::string why;
  for (const std::string& kind : kinds) {
    const DeviceKind* known = FindDevice(kind);
    if (known == nullptr || known->unsupported.empty()) return "";
    why = known->unsupported;
  }
  return absl::StrCat("unsupported: ", absl::StrJoin(kinds, " and "), ": ", why);
}

bool IsGpu(const std::string& kind) { return Device{kind}.IsGpu(); }

}  // namespace

absl::Status ResolveGpuTypes(const ClusterView& view, JobSpec& spec) {
  if (spec.gpu_types.empty()) return absl::OkStatus();
  const std::set<std::string> there = KindsOfWorkers(view);
  std::set<std::string> known = there;
  known.insert("cpu");
  for (const DeviceKind& kind : DeviceCatalogue()) known.insert(kind.device.kind);
  std::vector<std::string> kinds;
  for (const std::string& type : spec.gpu_types) {
    bool found = false;
    for (const std::string& kind : known) {
      if (!IsOfGpuType(kind, type)) continue;
      found = true;
      if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) kinds.push_back(kind);
    }
    if (found) continue;
    return MakeFieldError(
        {kKey, absl::StrCat("types among ", absl::StrJoin(known, ", "), ", or a family as A100"),
         absl::StrCat("\"", type.substr(0, 80), "\""),
         "llctl workers list shows the kinds of this cluster's slots"});
  }
  if (std::string why = WhyUnsupported(kinds); !why.empty()) {
    return FieldStatus(absl::StatusCode::kFailedPrecondition, kKey, why,
                       "name another type, or none for any that holds the job");
  }
  spec.gpu_types = std::move(kinds);
  const bool any_there = std::any_of(there.begin(), there.end(), [&spec](const std::string& kind) {
    return MayRunOn(spec, kind);
  });
  if (any_there || there.empty()) return absl::OkStatus();
  return FieldStatus(
      absl::StatusCode::kFailedPrecondition, kKey,
      absl::StrCat("no worker has slots of kind ", absl::StrJoin(spec.gpu_types, " or "),
                   "; there are ", absl::StrJoin(there, ", ")),
      "name another type, or none for any that holds the job");
}

bool MayRunOn(const JobSpec& spec, absl::string_view kind) {
  const std::vector<std::string>& types = spec.gpu_types;
  return types.empty() || std::find(types.begin(), types.end(), kind) != types.end();
}

std::vector<std::string> KindsLeftOut(const ClusterView& view, const JobSpec& spec, int64_t bytes) {
  std::set<std::string> left_out;
  if (spec.gpu_types.empty()) return {};
  const bool gpus = std::any_of(spec.gpu_types.begin(), spec.gpu_types.end(), IsGpu);
  for (const Worker& worker : view.workers) {
    for (const Slot& slot : worker.slots) {
      const DeviceKind* known = FindDevice(slot.kind);
      if (MayRunOn(spec, slot.kind) || IsGpu(slot.kind) != gpus) continue;
      if (known != nullptr && !known->unsupported.empty()) continue;
      if (bytes <= UsableBytes({slot.kind, slot.memory_bytes})) left_out.insert(slot.kind);
    }
  }
  return {left_out.begin(), left_out.end()};
}

}  // namespace ll
