#include "coordinator/core/preemption.h"

#include <algorithm>
#include <tuple>

#include "coordinator/core/backfill.h"
#include "coordinator/core/elastic.h"

namespace ll {

std::vector<const Job*> Borrowers(const Queue& queue, std::vector<const Job*> holding) {
  std::vector<const Job*> borrowers;
  if (!queue.record.quota_gpus.has_value()) return borrowers;
  std::sort(holding.begin(), holding.end(), JobQueue::Before());
  int gpus = 0;
  for (const Job* job : holding) {
    gpus += RanksOf(*job);
    if (gpus > *queue.record.quota_gpus) borrowers.push_back(job);
  }
  return borrowers;
}

void SortVictims(std::vector<VictimCandidate>& candidates) {
  std::sort(candidates.begin(), candidates.end(),
            [](const VictimCandidate& a, const VictimCandidate& b) {
              return std::make_tuple(a.job->spec.priority, -a.job->trains_since, -a.job->sequence) <
                     std::make_tuple(b.job->spec.priority, -b.job->trains_since, -b.job->sequence);
            });
}

namespace {

struct Trial {
  bool fits = false;
  std::vector<SlotId> slots;
};

Trial Try(const PlacementRequest& request, const SlotPool& pool,
          absl::Span<const VictimCandidate> gone,
          const std::function<bool(int, int)>& within_limits) {
  SlotPool freed = pool;
  int gpus = 0, jobs = 0;
  for (const VictimCandidate& victim : gone) {
    for (SlotId slot : SlotsOf(*victim.job, pool)) freed.Give(slot);
    if (!victim.same_queue) continue;
    gpus += victim.gpus;
    jobs += !victim.keeps.has_value();
  }
  if (!within_limits(gpus, jobs)) return {};
  Placement placement = Place(request, freed);
  if (placement.answer != Placement::Answer::kFit) return {};
  for (SlotId slot : placement.ranks) freed.Take(slot);
  for (const VictimCandidate& victim : gone) {
    if (!victim.keeps.has_value()) continue;
    const Placement kept = Place(*victim.keeps, freed);
    if (kept.answer != Placement::Answer::kFit) return {};
    for (SlotId slot : kept.ranks) freed.Take(slot);
  }
  return {true, std::move(placement.ranks)};
}

}  // namespace

Preemption ChooseVictims(const PlacementRequest& request, const SlotPool& pool,
                         absl::Span<const VictimCandidate> candidates,
                         const std::function<bool(int gpus, int jobs)>& within_limits) {
  if (Try(request, pool, {}, within_limits).fits) return {};  // nobody needs to yield
  if (candidates.empty() || !Try(request, pool, candidates, within_limits).fits) return {};
  // Monotone but for what shrinking gangs keep: the shortest front that suffices, or nearly.
  size_t too_few = 0, enough = candidates.size();
  while (enough - too_few > 1) {
    const size_t middle = too_few + (enough - too_few) / 2;
    (Try(request, pool, candidates.subspan(0, middle), within_limits).fits ? enough : too_few) =
        middle;
  }
  std::vector<VictimCandidate> chosen(candidates.begin(), candidates.begin() + enough);
  // Of a long front most are on other hosts: keep those whose slots the gang would take, where the
  // limits allow it, then drop what is not needed, the most valuable first.
  const Trial whole = Try(request, pool, chosen, within_limits);
  std::vector<VictimCandidate> touched;
  for (const VictimCandidate& victim : chosen) {
    const std::vector<SlotId> slots = SlotsOf(*victim.job, pool);
    const bool taken = std::any_of(slots.begin(), slots.end(), [&whole](SlotId slot) {
      return std::find(whole.slots.begin(), whole.slots.end(), slot) != whole.slots.end();
    });
    if (taken) touched.push_back(victim);
  }
  if (Try(request, pool, touched, within_limits).fits) chosen = std::move(touched);
  for (size_t i = chosen.size(); i-- > 0;) {
    std::vector<VictimCandidate> fewer = chosen;
    fewer.erase(fewer.begin() + i);
    if (!fewer.empty() && Try(request, pool, fewer, within_limits).fits) chosen = std::move(fewer);
  }
  Preemption preemption;
  preemption.slots = Try(request, pool, chosen, within_limits).slots;
  preemption.victims = std::move(chosen);
  return preemption;
}

}  // namespace ll
