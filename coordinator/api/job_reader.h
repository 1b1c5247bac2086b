// Reads for answers that tell how far jobs are. What the telemetry knows of a job is read from its
// files when it is first asked for in a process: of a page of jobs that takes seconds, which the
// driver's thread does not have.
#pragma once

#include <functional>
#include <vector>

#include "coordinator/api/read_pool.h"
#include "coordinator/runtime/driver.h"
#include "coordinator/runtime/telemetry.h"

namespace ll {

// Thread-safe.
class JobReader {
 public:
  // Both outlive it.
  JobReader(Driver& driver, const Telemetry& telemetry) : driver_(driver), telemetry_(telemetry) {}

  // As Driver::Read, when the telemetry has read what it knows of the jobs that `wanted` names.
  // Both are called on the driver's thread.
  using Wanted = std::function<std::vector<const Job*>(const Scheduler& view)>;
  void Read(Wanted wanted, Driver::Reader read);
  // Of one job, where `access` sees it.
  void Read(const JobId& job, const Access& access, Driver::Reader read);
  // Calls `then` at once, with `view`, where that has been done of the job; else as Read.
  void Answer(const Scheduler& view, const Job& job, Driver::Reader then);
  // As ReadPool::Do.
  bool Do(std::function<void()> read) { return pool_.Do(std::move(read)); }

 private:
  void ReadFirst(const Scheduler& view, const std::vector<const Job*>& jobs, Driver::Reader then);

  Driver& driver_;
  const Telemetry& telemetry_;
  ReadPool pool_{/*threads=*/2, /*most_waiting=*/256};
};

}  // namespace ll
