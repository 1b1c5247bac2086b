#include "worker/trainer/eval/dialogue.h"

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/types/span.h"
#include "base/check.h"
#include "base/ids.h"

namespace ll {
namespace {

constexpr const char* kTopics[] = {
    "the history of paper making",
    "keeping bees in a city garden",
    "how lighthouses work",
    "training for a first marathon",
    "the migration of arctic terns",
    "baking bread with wild yeast",
    "the design of suspension bridges",
    "learning to play the cello",
    "growing tomatoes on a balcony",
    "the rings of Saturn",
    "repairing old bicycles",
    "the art of letter writing",
    "volcanoes of Iceland",
    "choosing a first telescope",
    "the invention of the steam engine",
    "teaching children to swim",
    "the life of octopuses",
    "restoring wooden furniture",
    "night trains across Europe",
    "the origins of chess",
    "brewing green tea",
    "how glaciers shape valleys",
    "the grammar of sign languages",
    "planning a vegetable garden",
    "the physics of sailing",
    "collecting vinyl records",
    "the desert plants of Namibia",
    "medieval map making",
    "caring for an old dog",
    "the sounds of whales",
    "building a garden pond",
    "the economics of recycling",
    "street photography",
    "the rules of cricket",
    "making cheese at home",
    "the colours of autumn leaves",
    "long-distance hiking",
    "how vaccines are tested",
    "the history of the umbrella",
    "writing short stories",
    "the navigation of homing pigeons",
    "solar panels for a small house",
    "the theatre of ancient Greece",
    "learning to knit",
    "the formation of pearls",
    "riding a horse for the first time",
    "the poetry of winter",
    "how compilers work",
    "tidal power stations",
    "the training of guide dogs",
    "mushrooms of the northern forests",
    "a week without a telephone",
    "the making of violins",
    "coral reefs and their fish",
    "the first flight across the ocean",
    "cooking with lentils",
    "the language of maps",
    "organising a village library",
    "meteor showers in August",
    "the history of calendars",
};

constexpr const char* kQuestions[] = {
    "What should a beginner know first about {}?",
    "What surprised you most about {}?",
    "Which mistakes do people often make when it comes to {}?",
    "How has {} changed over the last fifty years?",
    "Could you give me an example from everyday life that has to do with {}?",
    "How much time would it take me to understand {} well?",
    "What would an expert say is the hardest part of {}?",
    "Is there a book or a museum you would recommend on {}?",
    "How would you explain {} to a ten-year-old?",
    "What does {} cost, in money or in patience?",
};

constexpr const char* kReplies[] = {
    "A good way to begin with {} is to watch somebody who has done it for years, to write down "
    "what "
    "they do without thinking, and only then to ask why.",
    "There are three things that matter: the material, the weather and the people. Most accounts "
    "of "
    "{} speak of the first and forget the other two.",
    "It depends on where you live. In the north the season is short and everyone hurries; in the "
    "south there is time, and that changes how people look at {}.",
    "I would start small. One afternoon a week is enough to get a feeling for {}, and after a "
    "month "
    "you will know whether you want to go on.",
    "Many people believe that {} is a matter of talent. The records show otherwise: those who kept "
    "a "
    "notebook and went back to it did better than those who did not.",
    "An old rule says that the first attempt is for learning, the second for pleasure and the "
    "third "
    "for others. With {} this is truer than one would think.",
    "The oldest description that we have is about two hundred years old. It is short, it is exact, "
    "and it still holds for most of what is known about {}.",
    "Think of a workshop in which every tool has its place. Somebody who knows {} has such a "
    "workshop in the head, and that is why it looks so easy from outside.",
    "There is no single answer, but a careful one is this: measure before you decide, change one "
    "thing at a time, and be honest about what did not work.",
    "What helped me was a conversation with a retired teacher. She had spent thirty years on {} "
    "and "
    "could name, for each year, one thing that she would do in another way now.",
};

std::string Fill(const char* text, const std::string& topic) {
  return absl::StrReplaceAll(text, {{"{}", topic}});
}

// A stream of its own for each place of the dialogue.
SeededRandom RandomOf(uint64_t seed, uint64_t place) {
  SeededRandom mixer(seed);
  return SeededRandom(mixer.Next() ^ SeededRandom(place + 1).Next());
}

}  // namespace

Dialogue::Dialogue(uint64_t seed, int64_t turns_a_topic)
    : seed_(seed), turns_a_topic_(turns_a_topic), order_(std::size(kTopics)) {
  LL_CHECK(turns_a_topic >= 1);
  std::iota(order_.begin(), order_.end(), size_t{0});
  SeededRandom random = RandomOf(seed, 0);
  for (size_t i = order_.size() - 1; i > 0; --i) std::swap(order_[i], order_[random.Below(i + 1)]);
}

DialogueTurn Dialogue::Next() {
  const int64_t topic_index = turn_ / turns_a_topic_;
  const bool opens = turn_ % turns_a_topic_ == 0;
  turn_ += 1;
  SeededRandom random = RandomOf(seed_, static_cast<uint64_t>(turn_));
  if (opens) {
    // Beyond the bundled topics they come again, told apart by a number.
    const size_t round = static_cast<size_t>(topic_index) / order_.size();
    const char* name = kTopics[order_[static_cast<size_t>(topic_index) % order_.size()]];
    topics_.push_back(round == 0 ? name : absl::StrCat(name, ", part ", round + 1));
  }
  const std::string& topic = topics_.back();
  DialogueTurn turn;
  turn.topic = static_cast<size_t>(topic_index);
  const char* question = kQuestions[random.Below(std::size(kQuestions))];
  turn.user = opens ? absl::StrCat("I would like to discuss the topic of ", topic, ". ",
                                   Fill(question, "it"))
                    : Fill(question, topic);
  turn.assistant = absl::StrCat(Fill(kReplies[random.Below(std::size(kReplies))], topic), " ",
                                Fill(kReplies[random.Below(std::size(kReplies))], topic));
  return turn;
}

}  // namespace ll
