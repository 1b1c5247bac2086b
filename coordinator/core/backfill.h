// A reservation for the first job that does not fit, so that later ones may fill the holes before
// it without delaying it: EASY backfill (Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995).
#pragma once

#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "coordinator/core/placement.h"

namespace ll {

// When a running gang is expected to give back its slots.
struct ExpectedEnd {
  absl::Duration end;  // in the scheduler's own time; infinite: unknown
  const Job* job = nullptr;
  std::vector<SlotId> slots;
};

struct Reservation {
  absl::Duration start = absl::InfiniteDuration();  // infinite: nobody knows
  std::vector<SlotId> slots;                        // that it will, or might, take
  const Job* last = nullptr;  // whose end it waits for; null where start is infinite
};

// The earliest moment at which the request fits when the running gangs end as expected, and its
// slots then. Where no such moment is known (a gang that must end first has no forecast), every
// usable slot that the request could have: kept at each pass, they grow until it fits. `ends` are
// in order of time, none infinite; the request does not fit now but would on an empty cluster.
Reservation Reserve(const PlacementRequest& request, const SlotPool& pool,
                    absl::Span<const ExpectedEnd> ends);

// The second case above.
Reservation ReserveAll(const PlacementRequest& request, const SlotPool& pool);

// The slots of the job's current attempt that are known to the pool.
std::vector<SlotId> SlotsOf(const Job& job, const SlotPool& pool);

}  // namespace ll
