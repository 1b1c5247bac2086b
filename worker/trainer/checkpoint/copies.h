// A training's checkpoints and what its spec says of their copies: events, and where to go on from.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/spec/job_spec.h"
#include "worker/trainer/checkpoint/copier.h"
#include "worker/trainer/checkpoint/retention.h"
#include "worker/trainer/checkpoint/writer.h"
#include "worker/trainer/event_sink.h"

namespace ll {

// Of a resolved spec.
Retention RetentionOf(const JobSpec& spec);

// The event `checkpoint` with what retention let go, or a warning.
void ReportCheckpoint(EventSink& events, const WrittenCheckpoint& written);

// Copies to the spec's checkpoint_uri and tells of each copy: event `checkpoint_copied`, or a
// warning. Null without the key. Errors: no credentials.
absl::StatusOr<std::unique_ptr<CheckpointCopier>> OpenCopier(const JobSpec& spec, int64_t epoch,
                                                             EventSink& events);

// Lets go what retention had to leave while it was copied; event `checkpoint_removed`.
void PruneAfterCopies(const std::string& root, int64_t newest_step, const Retention& retention,
                      EventSink& events);

// Where rank 0 goes on from; the others hear of it.
struct StartingPoint {
  std::string path;  // a checkpoint whose hashes hold; empty: from the beginning
  int64_t step = 0;
};
// The newest good checkpoint of what was ordered (`resume_from` with that manifest, else an earlier
// one beside it), of `root`, and, where the spec has a checkpoint_uri, of there, from where it is
// fetched to `root`; a local one wins over a copy of the same step. Everything that is passed over
// is a warning with its reason. Errors (class infrastructure): something was ordered and nothing is
// good; nothing is here and the store cannot be read.
absl::StatusOr<StartingPoint> FindStart(const JobSpec& spec, const std::string& root,
                                        const std::string& resume_from,
                                        const std::string& resume_manifest_sha256,
                                        EventSink& events);

}  // namespace ll
