// The simulated outside: time, randomness, the record of what happened, and the list of broken
// promises.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/ids.h"
#include "base/sha256.h"

namespace ll::sim {

// Deterministic: actions of the same moment run in the order in which they were planned.
class World {
 public:
  explicit World(uint64_t seed, bool print) : random(seed), print_(print) {}

  SeededRandom random;

  absl::Duration now() const { return now_; }
  void After(absl::Duration delay, std::function<void()> action) {
    actions_.push_back({now_ + delay, next_++, std::move(action)});
    std::push_heap(actions_.begin(), actions_.end());
  }
  // Runs everything planned up to `until`, or until `done` says so. False: time ran out, or the run
  // does not come to rest: parties that answer each other without end would never let time pass.
  template <typename Done>
  bool RunUntil(absl::Duration until, Done done) {
    while (!actions_.empty() && actions_.front().at <= until) {
      if (done()) return true;
      std::pop_heap(actions_.begin(), actions_.end());
      const Action next = std::move(actions_.back());
      actions_.pop_back();
      now_ = next.at;
      next.run();
      if (++ran_ <= kMostActions) continue;
      Violation(absl::StrCat("the run does not come to rest: ", ran_, " actions"));
      actions_.clear();
    }
    now_ = until;
    return done();
  }

  // Uniform in [low, high].
  absl::Duration Between(absl::Duration low, absl::Duration high) {
    return low + absl::Nanoseconds(
                     static_cast<int64_t>(random.Below(absl::ToInt64Nanoseconds(high - low) + 1)));
  }
  bool Chance(double probability) {
    return static_cast<double>(random.Below(1'000'000)) < probability * 1e6;
  }

  // What happened, in order; `digest` tells whether two runs were the same.
  void Trace(const std::string& line) {
    const std::string text = absl::StrCat(absl::FormatDuration(now_), " ", line);
    hash_ = Sha256Hex(absl::StrCat(hash_, text));
    if (print_) std::printf("%s\n", text.c_str());
  }
  const std::string& digest() const { return hash_; }

  void Violation(const std::string& what) {
    Trace(absl::StrCat("VIOLATION: ", what));
    violations.push_back(absl::StrCat("at ", absl::FormatDuration(now_), ": ", what));
  }
  std::vector<std::string> violations;

  void Struck(const std::string& fault) { ++faults[fault]; }
  std::map<std::string, int64_t> faults;  // kind → how often it struck

  uint64_t ran() const { return ran_; }  // actions

  // Of one run; the longest of seeds 1 to 120 takes 289,000.
  static constexpr uint64_t kMostActions = 5'000'000;

 private:
  const bool print_;
  absl::Duration now_ = absl::ZeroDuration();
  uint64_t next_ = 0, ran_ = 0;
  struct Action {
    absl::Duration at;
    uint64_t number;  // in the order of planning
    std::function<void()> run;
    // The first is the largest, as heaps have it.
    bool operator<(const Action& other) const {
      return std::tie(other.at, other.number) < std::tie(at, number);
    }
  };
  std::vector<Action> actions_;  // a heap
  std::string hash_;
};

// Deliberate mistakes, to prove that the simulator notices them.
enum class Bug {
  kNone,
  kStoreDropsACommit,  // the disk said that it had written
  kDiskIgnoresSyncs,   // and so it said of a sync
};

}  // namespace ll::sim
