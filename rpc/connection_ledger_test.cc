#include "rpc/connection_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ll {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr char kPeer[] = "ipv4:192.0.2.1:4711";

TEST(ConnectionLedger, CallsThatAreAnsweredAreNoMisuse) {
  ConnectionLedger ledger({.calls_at_once = 3, .given_up = 5});
  for (int i = 0; i < 10'000; ++i) {
    EXPECT_FALSE(ledger.CallBegan(kPeer));
    EXPECT_FALSE(ledger.CallEnded(kPeer, false));
  }
}

TEST(ConnectionLedger, MoreCallsAtWorkThanStreamsAreAFlood) {
  ConnectionLedger ledger({.calls_at_once = 3});
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(ledger.CallBegan(kPeer));
  EXPECT_FALSE(ledger.CallBegan("ipv4:192.0.2.2:4711"));
  EXPECT_TRUE(ledger.CallBegan(kPeer));
}

TEST(ConnectionLedger, MostCallsGivenUpAreAFlood) {
  ConnectionLedger ledger({.given_up = 5});
  // Half of them is not "most".
  for (int i = 0; i < 20; ++i) {
    EXPECT_FALSE(ledger.CallBegan(kPeer));
    EXPECT_FALSE(ledger.CallEnded(kPeer, i % 2 == 1)) << i;
  }
  EXPECT_FALSE(ledger.CallBegan(kPeer));
  EXPECT_TRUE(ledger.CallEnded(kPeer, true));  // 11 of 21
}

TEST(ConnectionLedger, GivingUpIsForgivenInTime) {
  ConnectionLedger ledger({.given_up = 5});
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 2; ++i) {
      EXPECT_FALSE(ledger.CallBegan(kPeer));
      EXPECT_FALSE(ledger.CallEnded(kPeer, true)) << round;
    }
    ledger.Forgive();
  }
}

TEST(ConnectionLedger, CallsThatArriveAndDoNotBegin) {
  ConnectionLedger ledger({.calls_at_once = 3});
  const int here = 0, there = 0;
  std::string peer;
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(ledger.CallArrived(&here, &peer));
  EXPECT_FALSE(ledger.CallArrived(&there, &peer));
  EXPECT_TRUE(ledger.CallArrived(&here, &peer));
  EXPECT_EQ(peer, "");
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(ledger.CallArrived(&there, &peer));
    ledger.ArrivedCallBegan(&there, kPeer);
  }
  for (int i = 0; i < 2; ++i) EXPECT_FALSE(ledger.CallArrived(&there, &peer));
  EXPECT_TRUE(ledger.CallArrived(&there, &peer));
  EXPECT_EQ(peer, kPeer);
  // Calls that never begin, some now and then, are forgotten.
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(ledger.CallArrived(&there, &peer)) << i;
    ledger.Forgive();
  }
}

TEST(ConnectionLedger, BytesWithoutProgress) {
  ConnectionLedger ledger({.bytes_without_progress = 100});
  EXPECT_THAT(ledger.Look({{kPeer, 5000}}), IsEmpty());  // what came before the first look
  EXPECT_THAT(ledger.Look({{kPeer, 5100}}), IsEmpty());
  EXPECT_FALSE(ledger.CallBegan(kPeer));
  EXPECT_THAT(ledger.Look({{kPeer, 5190}}), IsEmpty());
  EXPECT_THAT(ledger.Look({{kPeer, 5280}}), IsEmpty());
  ledger.MessageCame(kPeer);
  EXPECT_THAT(ledger.Look({{kPeer, 9000}}), IsEmpty());
  EXPECT_THAT(ledger.Look({{"ipv4:192.0.2.2:1", 0}, {kPeer, 9101}}), ElementsAre(kPeer));
}

TEST(ConnectionLedger, ANewConnectionOfTheSameNameBeginsAnew) {
  ConnectionLedger ledger({.bytes_without_progress = 100});
  EXPECT_THAT(ledger.Look({{kPeer, 1000}}), IsEmpty());
  EXPECT_THAT(ledger.Look({{kPeer, 50}}), IsEmpty());
  EXPECT_THAT(ledger.Look({{kPeer, 160}}), ElementsAre(kPeer));
  EXPECT_THAT(ledger.Look({}), IsEmpty());
  EXPECT_THAT(ledger.Look({{kPeer, 700}}), IsEmpty());
}

}  // namespace
}  // namespace ll
