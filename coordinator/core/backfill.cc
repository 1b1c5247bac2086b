#include "coordinator/core/backfill.h"

#include <algorithm>

namespace ll {

std::vector<SlotId> SlotsOf(const Job& job, const SlotPool& pool) {
  std::vector<SlotId> slots;
  if (!job.attempt.has_value()) return slots;
  slots.reserve(job.attempt->ranks.size());
  for (const Rank& rank : job.attempt->ranks) {
    if (rank.phase == RankPhase::kExited) continue;
    const SlotId slot = pool.Find(rank.worker, rank.slot);
    if (slot >= 0) slots.push_back(slot);
  }
  return slots;
}

Reservation ReserveAll(const PlacementRequest& request, const SlotPool& pool) {
  Reservation reservation;
  for (SlotId id = 0; id < static_cast<SlotId>(pool.size()); ++id) {
    if (Eligible(request, pool, id)) reservation.slots.push_back(id);
  }
  return reservation;
}

Reservation Reserve(const PlacementRequest& request, const SlotPool& pool,
                    absl::Span<const ExpectedEnd> ends) {
  const auto give = [&ends](SlotPool& to, size_t from, size_t until) {
    for (size_t i = from; i < until; ++i) {
      for (SlotId slot : ends[i].slots) to.Give(slot);
    }
  };
  // Placing is monotone in the free slots: gallop to a number of ends that suffices, then halve.
  SlotPool base = pool;  // with the first `too_few` ends
  size_t too_few = 0, enough = 0;
  for (size_t step = 1; enough == 0; step *= 2) {
    if (too_few == ends.size()) return ReserveAll(request, pool);
    const size_t until = std::min(ends.size(), too_few + step);
    SlotPool trial = base;
    give(trial, too_few, until);
    if (Place(request, trial).answer == Placement::Answer::kFit) {
      enough = until;
    } else {
      base = std::move(trial);
      too_few = until;
    }
  }
  while (enough - too_few > 1) {
    const size_t middle = too_few + (enough - too_few) / 2;
    SlotPool trial = base;
    give(trial, too_few, middle);
    if (Place(request, trial).answer == Placement::Answer::kFit) {
      enough = middle;
    } else {
      base = std::move(trial);
      too_few = middle;
    }
  }
  give(base, too_few, enough);
  Reservation reservation;
  reservation.start = ends[enough - 1].end;
  reservation.last = ends[enough - 1].job;
  reservation.slots = Place(request, base).ranks;
  return reservation;
}

}  // namespace ll
