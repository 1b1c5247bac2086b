#include "worker/agent/orders.h"

#include "base/field_error.h"
#include "base/status_matchers.h"

namespace ll {
namespace {

v1::StartGang Order(const std::string& job, int64_t epoch,
                    std::vector<std::pair<int, int>> places) {
  v1::StartGang order;
  order.set_job_id(job);
  order.set_epoch(epoch);
  order.set_world_size(static_cast<int>(places.size()));
  for (const auto& [rank, slot] : places) {
    order.add_ranks()->set_rank(rank);
    order.mutable_ranks(order.ranks_size() - 1)->set_slot(slot);
  }
  return order;
}

TEST(Orders, LowerTermIsRefusedAndSaysWhatToDo) {
  Orders orders({0}, 3);
  LL_EXPECT_OK(orders.AcceptTerm(3));
  LL_EXPECT_OK(orders.AcceptTerm(5));
  const absl::Status lower = orders.AcceptTerm(4);
  EXPECT_THAT(lower, StatusIs(absl::StatusCode::kFailedPrecondition, "term 4 is lower than 5"));
  EXPECT_THAT(ErrorHint(lower), testing::HasSubstr("agent.json"));
  EXPECT_EQ(orders.highest_term(), 5);
}

TEST(Orders, StartsOnFreeSlotsAndOnlyOnce) {
  Orders orders({0, 1}, 0);
  const auto order = Order("job-a", 1, {{0, 0}, {1, 1}});
  EXPECT_EQ(orders.DecideStart(order).kind, StartDecision::kStart);
  orders.Hold({"job-a", 1}, {0, 1});
  EXPECT_EQ(orders.DecideStart(order).kind, StartDecision::kHeld);
  // Also after its ranks have ended, and until it is forgotten.
  orders.Hold({"job-a", 1}, {});
  EXPECT_EQ(orders.DecideStart(order).kind, StartDecision::kHeld);
}

TEST(Orders, OlderEpochIsStaleAndNewerSupersedes) {
  Orders orders({0, 1}, 0);
  orders.Hold({"job-a", 2}, {0});
  EXPECT_EQ(orders.DecideStart(Order("job-a", 1, {{0, 1}})).kind, StartDecision::kStale);
  StartDecision newer = orders.DecideStart(Order("job-a", 3, {{0, 1}}));
  EXPECT_EQ(newer.kind, StartDecision::kWait);
  EXPECT_EQ(newer.supersedes, (std::vector<GangKey>{{"job-a", 2}}));
  orders.Hold({"job-a", 2}, {});
  EXPECT_EQ(orders.DecideStart(Order("job-a", 3, {{0, 1}})).kind, StartDecision::kStart);
}

TEST(Orders, BusySlotOfAnotherJobWaitsAndEndsNobody) {
  Orders orders({0, 1}, 0);
  orders.Hold({"job-a", 1}, {0});
  const StartDecision decision = orders.DecideStart(Order("job-b", 1, {{0, 0}}));
  EXPECT_EQ(decision.kind, StartDecision::kWait);
  EXPECT_TRUE(decision.supersedes.empty());
  EXPECT_THAT(decision.reason, testing::HasSubstr("slot 0 is still used by job-a/e1"));
  orders.Forget({"job-a", 1});
  EXPECT_EQ(orders.DecideStart(Order("job-b", 1, {{0, 0}})).kind, StartDecision::kStart);
}

TEST(Orders, OrdersThatCannotBeRight) {
  Orders orders({0, 1}, 0);
  EXPECT_EQ(orders.DecideStart(Order("job-a", 1, {{0, 7}})).failure_class, v1::CAPACITY);
  EXPECT_EQ(orders.DecideStart(Order("job-a", 1, {})).kind, StartDecision::kRefuse);
  EXPECT_EQ(orders.DecideStart(Order("job-a", 1, {{0, 0}, {0, 1}})).kind, StartDecision::kRefuse);
  EXPECT_EQ(orders.DecideStart(Order("job-a", 1, {{0, 1}, {1, 1}})).kind, StartDecision::kRefuse);
  EXPECT_EQ(orders.DecideStart(Order("job-a", 1, {{5, 0}})).kind, StartDecision::kRefuse);
  // Names that would lead out of the folder of jobs get no folder, not even for an answer.
  for (const char* name : {"", "..", "../x", "a/b", ".hidden"}) {
    EXPECT_EQ(orders.DecideStart(Order(name, 1, {{0, 0}})).kind, StartDecision::kStale) << name;
  }
  EXPECT_EQ(orders.DecideStart(Order("job-a", 0, {{0, 0}})).kind, StartDecision::kStale);
}

TEST(ContactLease, ExpiresAfterItsLengthOfSilence) {
  ContactLease lease(absl::Seconds(30));
  lease.Contact(absl::Seconds(100));
  EXPECT_FALSE(lease.Expired(absl::Seconds(130)));
  EXPECT_TRUE(lease.Expired(absl::Seconds(131)));
  EXPECT_EQ(lease.Silence(absl::Seconds(131)), absl::Seconds(31));
  lease.Contact(absl::Seconds(131));
  EXPECT_FALSE(lease.Expired(absl::Seconds(131)));
}

}  // namespace
}  // namespace ll
