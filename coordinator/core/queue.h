// The order in which waiting jobs are considered: priority (high first), then arrival.
//
// No starvation of big gangs: the first job that waits for slots reserves every slot it could use;
// a job behind it may only take slots of no use to it (another kind, too little memory, another
// host). Later jobs that would fit in between wait; filling such holes needs forecast ends and is
// not done.
#pragma once

#include <cstddef>
#include <set>

#include "coordinator/core/types.h"

namespace ll {

// Holds pointers to jobs it does not own. priority and sequence of a queued job must not change.
class JobQueue {
 public:
  struct Before {
    bool operator()(const Job* a, const Job* b) const {
      if (a->spec.priority != b->spec.priority) return a->spec.priority > b->spec.priority;
      return a->sequence < b->sequence;
    }
  };
  using Set = std::set<Job*, Before>;

  void Insert(Job* job) { jobs_.insert(job); }
  void Erase(Job* job) { jobs_.erase(job); }
  bool Contains(const Job* job) const { return jobs_.count(const_cast<Job*>(job)) > 0; }
  size_t size() const { return jobs_.size(); }
  Set::const_iterator begin() const { return jobs_.begin(); }
  Set::const_iterator end() const { return jobs_.end(); }

 private:
  Set jobs_;
};

}  // namespace ll
