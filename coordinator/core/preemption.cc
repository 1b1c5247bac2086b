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

using WithinLimits = std::function<bool(int gpus, int jobs)>;

// A growing front of candidates that are gone. Their slots are given back once, not at each try.
class Front {
 public:
  Front(const PlacementRequest& request, const SlotPool& pool, const WithinLimits& within_limits)
      : request_(request), pool_(pool), freed_(pool), within_limits_(within_limits) {}

  void Add(const VictimCandidate& victim) {
    for (SlotId slot : SlotsOf(*victim.job, pool_)) {
      if (freed_.Give(slot)) given_.push_back(slot);
    }
    if (victim.keeps.has_value()) keep_.push_back(&victim);
    if (!victim.same_queue) return;
    gpus_ += victim.gpus;
    jobs_ += !victim.keeps.has_value();
  }
  // Where the request fits beside what those gone keep; empty: it does not.
  std::vector<SlotId> Fit() const {
    if (!within_limits_(gpus_, jobs_)) return {};
    Placement placement = Place(request_, freed_);
    if (placement.answer != Placement::Answer::kFit || keep_.empty())
      return std::move(placement.ranks);
    SlotPool left = freed_;
    for (SlotId slot : placement.ranks) left.Take(slot);
    for (const VictimCandidate* victim : keep_) {
      const Placement kept = Place(*victim->keeps, left);
      if (kept.answer != Placement::Answer::kFit) return {};
      for (SlotId slot : kept.ranks) left.Take(slot);
    }
    return std::move(placement.ranks);
  }

  struct Mark {
    size_t given, kept;
    int gpus, jobs;
  };
  Mark mark() const { return {given_.size(), keep_.size(), gpus_, jobs_}; }
  // Those added since are there again.
  void BackTo(const Mark& mark) {
    while (given_.size() > mark.given) {
      freed_.Take(given_.back());
      given_.pop_back();
    }
    keep_.resize(mark.kept);
    gpus_ = mark.gpus;
    jobs_ = mark.jobs;
  }

 private:
  const PlacementRequest& request_;
  const SlotPool& pool_;
  SlotPool freed_;
  const WithinLimits& within_limits_;
  std::vector<SlotId> given_;                 // in order
  std::vector<const VictimCandidate*> keep_;  // who only shrink
  int gpus_ = 0, jobs_ = 0;                   // that the own queue gets back
};

}  // namespace

Preemption ChooseVictims(const PlacementRequest& request, const SlotPool& pool,
                         absl::Span<const VictimCandidate> candidates,
                         const WithinLimits& within_limits) {
  if (candidates.empty()) return {};
  Front front(request, pool, within_limits);
  const Front::Mark none = front.mark();
  const auto fits = [&](const auto& victims) {
    front.BackTo(none);
    for (const VictimCandidate& victim : victims) front.Add(victim);
    return !front.Fit().empty();
  };
  if (!front.Fit().empty()) return {};  // nobody needs to yield
  if (!fits(candidates)) return {};
  // Monotone but for what shrinking gangs keep: the shortest front that suffices, or nearly.
  front.BackTo(none);
  size_t too_few = 0, enough = candidates.size();  // `too_few` are gone
  while (enough - too_few > 1) {
    const size_t middle = too_few + (enough - too_few) / 2;
    const Front::Mark before = front.mark();
    for (size_t i = too_few; i < middle; ++i) front.Add(candidates[i]);
    if (front.Fit().empty()) {
      too_few = middle;
    } else {
      enough = middle;
      front.BackTo(before);
    }
  }
  std::vector<VictimCandidate> chosen(candidates.begin(), candidates.begin() + enough);
  // Of a long front most are on other hosts: keep those whose slots the gang would take, where the
  // limits allow it, then drop what is not needed, the most valuable first.
  fits(chosen);
  std::vector<SlotId> whole = front.Fit();
  std::sort(whole.begin(), whole.end());
  std::vector<VictimCandidate> touched;
  for (const VictimCandidate& victim : chosen) {
    const std::vector<SlotId> slots = SlotsOf(*victim.job, pool);
    const bool taken = std::any_of(slots.begin(), slots.end(), [&whole](SlotId slot) {
      return std::binary_search(whole.begin(), whole.end(), slot);
    });
    if (taken) touched.push_back(victim);
  }
  if (fits(touched)) chosen = std::move(touched);
  for (size_t i = chosen.size(); i-- > 0;) {
    std::vector<VictimCandidate> fewer = chosen;
    fewer.erase(fewer.begin() + i);
    if (!fewer.empty() && fits(fewer)) chosen = std::move(fewer);
  }
  Preemption preemption;
  fits(chosen);
  preemption.slots = front.Fit();
  preemption.victims = std::move(chosen);
  return preemption;
}

}  // namespace ll
