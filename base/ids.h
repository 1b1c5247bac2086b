// Identifiers that cannot be mixed up, and the injected source of randomness they are made from.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <utility>

namespace ll {

// A string that names one kind of thing. Compares, hashes and prints as its value.
template <typename Tag>
class StrongId {
 public:
  StrongId() = default;
  explicit StrongId(std::string value) : value_(std::move(value)) {}
  const std::string& value() const { return value_; }
  bool empty() const { return value_.empty(); }
  bool operator==(const StrongId&) const = default;
  auto operator<=>(const StrongId&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const StrongId& id) {
    return H::combine(std::move(h), id.value_);
  }
  friend std::ostream& operator<<(std::ostream& out, const StrongId& id) {
    return out << id.value_;
  }

 private:
  std::string value_;
};

using JobId = StrongId<struct JobIdTag>;        // "job-" + 12 hex digits, random, never reused
using WorkerId = StrongId<struct WorkerIdTag>;  // an agent's --name

// Randomness, injected. Not thread-safe unless the implementation says so.
class Random {
 public:
  virtual ~Random() = default;
  virtual uint64_t Next() = 0;
  // Uniform in [0, bound); bound > 0.
  uint64_t Below(uint64_t bound);
};

// splitmix64 (Steele, Lea, Flood 2014): one 64-bit state, the same sequence everywhere.
class SeededRandom : public Random {
 public:
  explicit SeededRandom(uint64_t seed) : state_(seed) {}
  uint64_t Next() override;

 private:
  uint64_t state_;
};

// The kernel's generator (getrandom). Thread-safe. Never deleted.
Random& SystemRandom();

JobId NewJobId(Random& random);
// 2·bytes lower-case hex digits.
std::string RandomHex(Random& random, int bytes);

}  // namespace ll
