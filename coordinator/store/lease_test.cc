#include "coordinator/store/lease.h"

#include <atomic>
#include <cstdio>
#include <deque>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/fake_clock.h"
#include "base/ids.h"
#include "base/leader_error.h"
#include "base/status_matchers.h"
#include "coordinator/store/leadership.h"

namespace ll {
namespace {

constexpr absl::Duration kMs = absl::Milliseconds(1);

class LeaseTest : public testing::Test {
 protected:
  LeaseAnswer Mine() { return {.mine = true}; }
  LeaseOptions options_;  // 2 s, renewed every 0.5 s, a fifth of margin
  Lease lease_{options_};
};

TEST_F(LeaseTest, LeadsFromTheAnswerUntilShortOfTheEndCountedFromTheQuestion) {
  EXPECT_FALSE(lease_.Leads(0 * kMs));
  lease_.OnAnswer(Mine(), 100 * kMs, 300 * kMs);
  EXPECT_TRUE(lease_.Leads(300 * kMs));
  EXPECT_TRUE(lease_.Leads(1699 * kMs));
  EXPECT_FALSE(lease_.Leads(1700 * kMs)) << "100 + 1600 ms, though others must wait until 2100";
  EXPECT_EQ(lease_.next_question(), 600 * kMs);
  EXPECT_EQ(lease_.generation(), 1);
}

TEST_F(LeaseTest, ARenewalGoesOnALapseBeginsAnew) {
  lease_.OnAnswer(Mine(), 0 * kMs, 1 * kMs);
  lease_.OnAnswer(Mine(), 500 * kMs, 501 * kMs);
  EXPECT_EQ(lease_.generation(), 1);
  lease_.OnNoAnswer(1500 * kMs);
  EXPECT_TRUE(lease_.Leads(2000 * kMs));
  EXPECT_FALSE(lease_.Leads(2100 * kMs));
  // Nobody took it meanwhile, as the table says; this coordinator cannot know what was decided.
  lease_.OnAnswer(Mine(), 2200 * kMs, 2201 * kMs);
  EXPECT_TRUE(lease_.Leads(2300 * kMs));
  EXPECT_EQ(lease_.generation(), 2);
}

TEST_F(LeaseTest, AnAnswerThatComesTooLateIsNoLead) {
  lease_.OnAnswer(Mine(), 0 * kMs, 1700 * kMs);
  EXPECT_FALSE(lease_.Leads(1700 * kMs));
}

TEST_F(LeaseTest, AStandbyAsksAgainWhenTheLeaseEnds) {
  lease_.OnAnswer({.address = "a:1", .ends_in = 1500 * kMs}, 0 * kMs, 1 * kMs);
  EXPECT_EQ(lease_.leader(), "a:1");
  EXPECT_EQ(lease_.next_question(), 201 * kMs);
  lease_.OnAnswer({.address = "a:1", .ends_in = 50 * kMs}, 1000 * kMs, 1001 * kMs);
  EXPECT_EQ(lease_.next_question(), 1061 * kMs);
  lease_.OnAnswer(Mine(), 1061 * kMs, 1062 * kMs);
  EXPECT_EQ(lease_.leader(), "");
}

TEST_F(LeaseTest, StepsAsideForAWhile) {
  lease_.OnAnswer(Mine(), 0 * kMs, 1 * kMs);
  lease_.StepAside(100 * kMs, 2000 * kMs);
  EXPECT_FALSE(lease_.Leads(100 * kMs));
  EXPECT_EQ(lease_.next_question(), 2100 * kMs);
}

// One row, as the database has it, by the database's clock, which runs beside the coordinators'.
struct Row {
  std::string holder, address;
  absl::Duration expires = absl::ZeroDuration();
};

// Three coordinators whose questions take long, get lost, or are answered and the answer is lost;
// whose processes stop for a while: at no moment do two take themselves for the leader, and the
// lease does not stay with nobody.
TEST(LeaseRace, NeverTwoAndNotLongNobody) {
  const uint64_t seed = SystemRandom().Next() % 1'000'000;
  std::printf("seed %d\n", static_cast<int>(seed));
  SeededRandom random(seed);
  struct Node {
    Lease lease{LeaseOptions{}};
    double rate = 1;            // of its clock
    absl::Duration busy_until;  // a question is under way, or the process is stopped
    absl::Duration asked;
    std::optional<LeaseAnswer> answer;
    bool waits = false;
  };
  Node nodes[3];
  for (Node& node : nodes) node.rate = 0.98 + 0.0002 * static_cast<double>(random.Below(200));
  Row row;
  absl::Duration nobody_since;
  absl::Duration longest;
  int handovers = 0;
  int last = -1;
  for (absl::Duration now; now < absl::Minutes(30); now += 5 * kMs) {
    int leading = 0;
    for (int i = 0; i < 3; ++i) {
      Node& node = nodes[i];
      const absl::Duration own = now * node.rate;
      if (now >= node.busy_until) {
        if (node.waits) {
          node.waits = false;
          if (node.answer.has_value()) {
            node.lease.OnAnswer(*node.answer, node.asked, own);
          } else {
            node.lease.OnNoAnswer(own);
          }
        } else if (own >= node.lease.next_question()) {
          node.asked = own;
          node.waits = true;
          node.answer.reset();
          node.busy_until = now + kMs * static_cast<int64_t>(random.Below(60));
          if (random.Below(200) == 0) node.busy_until += absl::Seconds(random.Below(6));
          if (random.Below(50) != 0) {  // the question arrives, at once
            const std::string name = absl::StrCat(i);
            if (row.holder == name || row.expires <= now) {
              row = {name, name, now + absl::Seconds(2)};
              node.answer = LeaseAnswer{.mine = true};
            } else {
              node.answer = LeaseAnswer{.address = row.address, .ends_in = row.expires - now};
            }
            if (random.Below(50) == 0) node.answer.reset();  // the answer does not
          }
        }
      }
      if (node.lease.Leads(own)) {
        ++leading;
        if (last != i) ++handovers;
        last = i;
      }
    }
    ASSERT_LE(leading, 1) << "at " << now;
    if (leading > 0) nobody_since = now;
    longest = std::max(longest, now - nobody_since);
  }
  EXPECT_GT(handovers, 5);
  EXPECT_LT(longest, absl::Seconds(10));
}

// Plays the database for one coordinator.
class FakeTable : public LeaseTable {
 public:
  explicit FakeTable(std::atomic<int>& state) : state_(state) {}
  absl::StatusOr<LeaseAnswer> Ask(const std::string& address) override {
    if (state_ == 2) return absl::UnavailableError("PostgreSQL: away");
    if (state_ == 0) return LeaseAnswer{.address = "b:1", .ends_in = absl::Seconds(1)};
    return LeaseAnswer{.mine = true};
  }
  void Release() override { state_ = 3; }

 private:
  std::atomic<int>& state_;
};

TEST(LeadershipTest, TellsWhoLeadsAndReleasesAtTheEnd) {
  std::atomic<int> state = 0, changes = 0;
  Leadership leadership({}, std::make_unique<FakeTable>(state), RealClock(), [&] { ++changes; });
  const auto await = [&](auto condition) {
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (!condition() && absl::Now() < deadline) absl::SleepFor(5 * kMs);
    return condition();
  };
  EXPECT_FALSE(leadership.leads());
  leadership.Start("a:1");
  EXPECT_TRUE(await([&] { return ErrorLeader(leadership.Check()) == "b:1"; }));
  EXPECT_THAT(leadership.Check(), StatusIs(absl::StatusCode::kUnavailable, "b:1 leads"));
  state = 1;
  EXPECT_TRUE(await([&] { return leadership.leads() && changes == 1; }));
  const int64_t generation = leadership.generation();
  LL_EXPECT_OK(leadership.Check(generation));
  EXPECT_FALSE(leadership.Check(generation - 1).ok());
  // The database is away: leads on until its own end of the lease, then says why not.
  state = 2;
  EXPECT_TRUE(await([&] { return changes == 2; }));
  EXPECT_THAT(leadership.Check(), StatusIs(absl::StatusCode::kUnavailable, "PostgreSQL: away"));
  EXPECT_EQ(ErrorLeader(leadership.Check()), "");
  state = 1;
  EXPECT_TRUE(await([&] { return leadership.leads(); }));
  EXPECT_FALSE(leadership.Check(generation).ok()) << "another might have led in between";
  leadership.Stop();
  EXPECT_EQ(state, 3);
  EXPECT_FALSE(leadership.leads());
}

}  // namespace
}  // namespace ll
