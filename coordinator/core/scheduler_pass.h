// The working state of one pass over the queues. Private to the scheduler.
#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/core/scheduler.h"

namespace ll {

// Whether a job with the request `other` cannot fit where `failed` did not.
inline bool NoEasier(const PlacementRequest& failed, const PlacementRequest& other) {
  return other.ranks >= failed.ranks && other.required_slot_bytes >= failed.required_slot_bytes &&
         other.one_host == failed.one_host && other.slot_kinds == failed.slot_kinds &&
         other.hosts == failed.hosts;
}

struct Scheduler::Pass {
  // The rest of one queue.
  struct Line {
    explicit Line(Queue& of) : queue(&of), next(of.waiting) {}
    Queue* queue;
    JobQueue::Cursor next;
    KindSet waiting = 0;  // what its jobs so far wait for
    bool closed = false;
    double share = 0;                        // kept: it changes only with a start
    int claimed_gpus = 0, claimed_jobs = 0;  // of limits, by claims
  };

  // The first job that waits for slots of these kinds, which no head before it may use: who can
  // only run on one type of GPU neither waits behind a head that runs on another, nor is passed by
  // while that one waits.
  struct Head {
    Job* job = nullptr;
    KindSet kinds = 0;
    bool reserved = false;
    Reservation reservation;  // start infinite until then
  };

  SlotPool open;  // free and not claimed
  SlotPool shut;  // and not reserved
  std::deque<Head> heads;
  KindSet headed = 0;  // the kinds of all of them
  std::vector<Line> lines;
  Line* line = nullptr;       // of the job under consideration
  bool workers_news = false;  // whoever was told that it needs workers is told anew
  LimitAnswer::Kind limits = LimitAnswer::Kind::kOwn;  // of its queue for it
  std::vector<PlacementRequest> failed;       // did not fit into `shut`, which only shrinks
  std::vector<PlacementRequest> failed_open;  // nor into `open`
  std::map<JobId, WorkerId> ending;  // jobs whose given-up ranks an agent in contact is ending
  // What only the return of a worker helps, and the sentence that says so: jobs of a kind come in
  // thousands.
  std::vector<std::pair<PlacementRequest, std::string>> stuck;
  int stuck_jobs = 0;
  int behind = 0;      // jobs placed in vain behind a head
  int considered = 0;  // jobs looked at since there is one
  int preemption_tries = 0;
  // Elastic jobs that start with at least these slots. They hold them in their queues' counts.
  struct Planned {
    Job* job = nullptr;
    std::vector<SlotId> slots;
    std::string note;
    bool may_take_more = false;
  };
  std::vector<Planned> planned;
  bool served_all = false;  // no waiting job can use what is left

  void Take(const std::vector<SlotId>& slots) {
    for (SlotId slot : slots) {
      open.Take(slot);
      shut.Take(slot);
    }
  }
  void Give(const std::vector<SlotId>& slots) {
    for (SlotId slot : slots) {
      open.Give(slot);
      shut.Give(slot);
    }
  }
  bool KnownNotToFit(const PlacementRequest& request) const {
    return request.ranks > open.usable_total() || Fails(request, failed_open);
  }
  // Whether it cannot fit where one of `failed` did not.
  static bool Fails(const PlacementRequest& request, const std::vector<PlacementRequest>& failed) {
    return std::any_of(failed.begin(), failed.end(),
                       [&request](const PlacementRequest& f) { return NoEasier(f, request); });
  }
  // A list of the easiest of each kind says the same as one of all.
  static void NoteFailed(const PlacementRequest& request, std::vector<PlacementRequest>& failed) {
    if (!Fails(request, failed)) failed.push_back(request);
  }
  // The first one that waits for any of these; null: none.
  Head* HeadOf(KindSet kinds) {
    for (Head& head : heads) {
      if ((head.kinds & kinds) != 0) return &head;
    }
    return nullptr;
  }
  bool Within(KindSet kinds, bool free_only) const {
    for (int kind = 0; kind < static_cast<int>(open.kinds().size()); ++kind) {
      if ((KindBit(kind) & kinds) == 0 && (!free_only || open.usable_of(kind) > 0)) return false;
    }
    return true;
  }
  // Whether jobs of the line wait for every kind: no later one is the first of its kind there.
  bool WaitsForAll(const Line& of) const { return Within(of.waiting, /*free_only=*/false); }
  // Whether nothing comes of looking at the job, whose line it is: it waits for more slots than are
  // free, and there is nothing else to be said of it.
  bool MayGoBy(const JobQueue::Entry& entry) const {
    return !heads.empty() && entry.gpus > open.usable_total() && ending.empty() && stuck.empty() &&
           !(workers_news && entry.job->needs_workers) &&
           (limits == LimitAnswer::Kind::kOwn || limits == LimitAnswer::Kind::kBorrows) &&
           WaitsForAll(*line) && Within(headed, /*free_only=*/true);
  }
  const std::string* WhyStuck(const PlacementRequest& request) const {
    for (const auto& [known, why] : stuck) {
      if (known == request) return &why;
    }
    return nullptr;
  }
  Line* LineOf(const Queue& queue) {
    for (Line& line : lines) {
      if (line.queue == &queue) return &line;
    }
    return nullptr;
  }
  // The line whose turn it is; null: done.
  Line* Next() {
    Line* best = nullptr;
    std::pair<bool, double> best_key;
    for (Line& line : lines) {
      const JobQueue::Entry* next = line.closed ? nullptr : line.next.get();
      if (next == nullptr) continue;
      if (line.waiting != 0 && shut.usable_total() == 0 && open.usable_total() == 0 &&
          !workers_news && WaitsForAll(line))
        continue;
      const LimitAnswer answer =
          CheckLimits(*line.queue, next->gpus, line.claimed_gpus, line.claimed_jobs);
      const std::pair<bool, double> key(answer.kind != LimitAnswer::Kind::kOwn, line.share);
      if (best != nullptr && !(key < best_key)) continue;
      best = &line;
      limits = answer.kind;
      best_key = key;
    }
    return best;
  }
};

}  // namespace ll
