// A long made-up conversation that goes from topic to topic, in the manner of LongChat's LongEval.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ll {

struct DialogueTurn {
  size_t topic = 0;  // 0-based, in order of appearance
  std::string user;
  std::string assistant;
};

// Topics without end, in a seeded order: (seed, turns_a_topic) decide every word, so that a shorter
// dialogue is the start of a longer one. The first turn of a topic names it.
class Dialogue {
 public:
  Dialogue(uint64_t seed, int64_t turns_a_topic);
  // The next turn.
  DialogueTurn Next();
  // Of what has been talked about so far.
  const std::vector<std::string>& topics() const { return topics_; }

 private:
  const uint64_t seed_;
  const int64_t turns_a_topic_;
  int64_t turn_ = 0;
  std::vector<size_t> order_;  // of the bundled topics
  std::vector<std::string> topics_;
};

}  // namespace ll
