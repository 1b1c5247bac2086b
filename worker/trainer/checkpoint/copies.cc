#include "worker/trainer/checkpoint/copies.h"

#include <filesystem>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "storage/object_store.h"
#include "worker/trainer/checkpoint/format.h"
#include "worker/trainer/checkpoint/remote.h"
#include "worker/trainer/error_class.h"

namespace ll {
namespace {

constexpr char kUriKey[] = "checkpoint_uri";

void WarnOfCheckpoint(EventSink& events, int64_t step, const std::string& what,
                      const std::string& message) {
  events.Emit("warning", {{"message", message}, {"about", what}, {"step", step}});
}

void ReportCopy(EventSink& events, const CopyReport& report) {
  if (report.status.ok()) {
    nlohmann::ordered_json event = {{"step", report.step},
                                    {"uri", report.uri},
                                    {"bytes", report.bytes},
                                    {"seconds", report.seconds}};
    if (!report.removed.empty()) event["removed"] = report.removed;
    events.Emit("checkpoint_copied", event);
    return;
  }
  const bool dropped = absl::IsAborted(report.status);
  WarnOfCheckpoint(events, report.step, dropped ? "checkpoint_copy_dropped" : "checkpoint_copy",
                   absl::StrCat("checkpoint of step ", report.step,
                                dropped ? " was not copied: " : " could not be copied: ",
                                report.status.message()));
}

// What was ordered, or a good one beside it; the reasons against others become warnings.
absl::StatusOr<StartingPoint> StartFromOrdered(const std::string& ordered,
                                               const std::string& manifest_sha256,
                                               EventSink& events) {
  const std::filesystem::path path(ordered);
  const std::string name = path.filename().string();
  StartingPoint start;
  const absl::Status verified = VerifyCheckpoint(ordered, manifest_sha256);
  if (verified.ok()) {
    LL_ASSIGN_OR_RETURN(const int64_t step, [&]() -> absl::StatusOr<int64_t> {
      if (const auto told = CheckpointStep(name)) return *told;
      return MakeFieldError({"--resume-from", "a folder named step-NNNNNN", ordered});
    }());
    return StartingPoint{ordered, step};
  }
  events.Warning(absl::StrCat("skipped damaged checkpoint ", ordered, ": ", verified.message()));
  LL_ASSIGN_OR_RETURN(
      const FoundCheckpoint found,
      FindNewestCheckpoint(path.parent_path().string(), CheckpointStep(name).value_or(0)));
  for (const std::string& reason : found.skipped)
    events.Warning("skipped damaged checkpoint " + reason);
  if (!found.path.empty()) start = {found.path, found.step};
  return start;
}

// A newer copy is fetched to `root`.
absl::Status PreferCopy(ObjectStore& store, const std::string& root, EventSink& events,
                        StartingPoint& start) {
  LL_RETURN_IF_ERROR(MakeDirs(root));
  LL_ASSIGN_OR_RETURN(const FetchedCheckpoint fetched,
                      FetchNewestCheckpoint(store, root, start.path.empty() ? -1 : start.step));
  for (const std::string& reason : fetched.skipped)
    events.Warning("skipped damaged copy " + reason);
  if (fetched.path.empty()) return absl::OkStatus();
  events.Phase("load", {{"fetched_from", store.uri()}, {"step", fetched.step}});
  start = {fetched.path, fetched.step};
  return absl::OkStatus();
}

}  // namespace

Retention RetentionOf(const JobSpec& spec) {
  return {*spec.save_total_limit, *spec.save_keep_every};
}

void ReportCheckpoint(EventSink& events, const WrittenCheckpoint& written) {
  if (!written.sealed.ok()) {
    WarnOfCheckpoint(events, written.step, "checkpoint",
                     absl::StrCat("checkpoint of step ", written.step,
                                  " could not be written: ", written.sealed.status().message()));
    return;
  }
  nlohmann::ordered_json event = {{"step", written.step},
                                  {"path", written.sealed->path},
                                  {"manifest_sha256", written.sealed->manifest_sha256},
                                  {"bytes", written.sealed->size_bytes},
                                  {"seconds", written.seconds}};
  if (!written.removed.empty()) event["removed_steps"] = written.removed;
  events.Emit("checkpoint", event);
}

absl::StatusOr<std::unique_ptr<CheckpointCopier>> OpenCopier(const JobSpec& spec, int64_t epoch,
                                                             EventSink& events) {
  if (!spec.checkpoint_uri) return std::unique_ptr<CheckpointCopier>();
  LL_ASSIGN_OR_RETURN(auto store, OpenObjectStore(kUriKey, *spec.checkpoint_uri));
  return std::make_unique<CheckpointCopier>(
      std::move(store), epoch, RetentionOf(spec), RealClock(),
      [&events](const CopyReport& report) { ReportCopy(events, report); });
}

void PruneAfterCopies(const std::string& root, int64_t newest_step, const Retention& retention,
                      EventSink& events) {
  const auto removed = PruneCheckpoints(root, newest_step, retention);
  if (removed.ok() && !removed->empty())
    events.Emit("checkpoint_removed", {{"step", newest_step}, {"removed_steps", *removed}});
}

absl::StatusOr<StartingPoint> FindStart(const JobSpec& spec, const std::string& root,
                                        const std::string& resume_from,
                                        const std::string& resume_manifest_sha256,
                                        EventSink& events) {
  StartingPoint start;
  if (!resume_from.empty()) {
    LL_ASSIGN_OR_RETURN(start, StartFromOrdered(resume_from, resume_manifest_sha256, events));
  } else {
    LL_ASSIGN_OR_RETURN(const FoundCheckpoint found, FindNewestCheckpoint(root));
    for (const std::string& reason : found.skipped)
      events.Warning("skipped damaged checkpoint " + reason);
    start = {found.path, found.step};
  }
  if (spec.checkpoint_uri) {
    const auto fetch = [&]() -> absl::Status {
      LL_ASSIGN_OR_RETURN(const auto store, OpenObjectStore(kUriKey, *spec.checkpoint_uri));
      return PreferCopy(*store, root, events, start);
    };
    const absl::Status fetched = fetch();
    // Without a checkpoint here nobody can say that there is none at all.
    if (!fetched.ok() && start.path.empty())
      return WithErrorClass(Annotate(fetched, kUriKey), ErrorClass::kInfrastructure);
    if (!fetched.ok())
      events.Warning(absl::StrCat("cannot look for newer copies: ", fetched.message()));
  }
  if (start.path.empty() && !resume_from.empty()) {
    return WithErrorClass(
        FieldStatus(absl::StatusCode::kFailedPrecondition, "--resume-from",
                    absl::StrCat("neither ", resume_from, " nor an earlier checkpoint beside it",
                                 spec.checkpoint_uri ? " nor a copy" : "", " is good")),
        ErrorClass::kInfrastructure);
  }
  return start;
}

}  // namespace ll
