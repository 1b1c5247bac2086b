#include "coordinator/core/backfill.h"

#include <algorithm>

namespace ll {

std::vector<SlotId> SlotsOf(const Job& job, const SlotPool& pool) {
  std::vector<SlotId> slots;
  if (!job.attempt.has_value()) return slots;
  slots.reserve(job.attempt->ranks.size());
  const WorkerId* worker = nullptr;  // whose slots `on_worker` are: ranks of a host come together
  SlotPool::WorkerSlots on_worker;
  for (const Rank& rank : job.attempt->ranks) {
    if (rank.phase == RankPhase::kExited) continue;
    if (worker == nullptr || *worker != rank.worker) {
      worker = &rank.worker;
      on_worker = pool.SlotsOn(rank.worker);
    }
    const SlotId slot = SlotPool::Pick(on_worker, rank.slot);
    if (slot >= 0) slots.push_back(slot);
  }
  return slots;
}

Reservation ReserveAll(const PlacementRequest& request, const SlotPool& pool) {
  Reservation reservation;
  reservation.slots = UsableFor(request, pool);
  return reservation;
}

Reservation Reserve(const PlacementRequest& request, const SlotPool& pool,
                    absl::Span<const ExpectedEnd> ends) {
  SlotPool freed = pool;  // with the first `too_few` ends
  std::vector<SlotId> given;
  // Whether it fits with the ends up to `until`; they stay given back where it does not.
  const auto fits = [&](size_t from, size_t until) {
    given.clear();
    for (size_t i = from; i < until; ++i) {
      for (SlotId slot : ends[i].slots) {
        if (freed.Give(slot)) given.push_back(slot);
      }
    }
    if (Place(request, freed).answer != Placement::Answer::kFit) return false;
    for (SlotId slot : given) freed.Take(slot);
    return true;
  };
  // Placing is monotone in the free slots: gallop to a number of ends that suffices, then halve.
  size_t too_few = 0, enough = 0;
  for (size_t step = 1; enough == 0; step *= 2) {
    if (too_few == ends.size()) return ReserveAll(request, pool);
    const size_t until = std::min(ends.size(), too_few + step);
    (fits(too_few, until) ? enough : too_few) = until;
  }
  while (enough - too_few > 1) {
    const size_t middle = too_few + (enough - too_few) / 2;
    (fits(too_few, middle) ? enough : too_few) = middle;
  }
  for (size_t i = too_few; i < enough; ++i) {
    for (SlotId slot : ends[i].slots) freed.Give(slot);
  }
  Reservation reservation;
  reservation.start = ends[enough - 1].end;
  reservation.last = ends[enough - 1].job;
  reservation.slots = Place(request, freed).ranks;
  return reservation;
}

}  // namespace ll
