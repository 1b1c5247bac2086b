// The newest keys that were added, so many at most: those added first go first.
#pragma once

#include <deque>
#include <set>
#include <string>

namespace ll {

// Not thread-safe.
class RecentKeys {
 public:
  explicit RecentKeys(size_t most) : most_(most) {}
  bool Holds(const std::string& key) const { return keys_.count(key) > 0; }
  void Add(const std::string& key) {
    if (!keys_.insert(key).second) return;
    order_.push_back(key);
    if (order_.size() <= most_) return;
    keys_.erase(order_.front());
    order_.pop_front();
  }

 private:
  const size_t most_;
  std::set<std::string> keys_;
  std::deque<std::string> order_;
};

}  // namespace ll
