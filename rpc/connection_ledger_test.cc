#include "rpc/connection_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

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

TEST(ConnectionLedger, ManyIdleCallsEndTheConnectionsThatOnlyTalk) {
  ConnectionLedger ledger({.calls_at_once = 10, .waiting_calls = 20, .idle_bytes = 1000});
  const char* const idle[] = {"ipv4:192.0.2.1:1", "ipv4:192.0.2.1:2", "ipv4:192.0.2.1:3"};
  const char kUser[] = "ipv4:192.0.2.9:1", kWatcher[] = "ipv4:192.0.2.9:2";
  const int identities[3] = {}, user = 0, watcher = 0;
  std::string peer;
  // Somebody who was served before, and somebody whose stream is at work.
  for (const auto& [who, name] : {std::pair(&user, kUser), std::pair(&watcher, kWatcher)}) {
    EXPECT_FALSE(ledger.CallArrived(who, &peer));
    ledger.ArrivedCallBegan(who, name);
    EXPECT_FALSE(ledger.CallBegan(name));
  }
  EXPECT_FALSE(ledger.CallEnded(kUser, false));
  const auto look = [&](int64_t talked) {
    return ledger.Look(
        {{idle[0], talked}, {idle[1], talked}, {idle[2], 900}, {kUser, 5000}, {kWatcher, 9000}});
  };
  EXPECT_THAT(look(500), IsEmpty());
  for (int i = 0; i < 10; ++i) {
    for (const int& identity : identities) EXPECT_FALSE(ledger.CallArrived(&identity, &peer));
    if (i < 6) {
      EXPECT_THAT(look(2000), IsEmpty()) << "there is room for as many";
    }
  }
  EXPECT_THAT(look(2000), ElementsAre(idle[0], idle[1]));
  // In time it is forgotten.
  ledger.Forgive();
  EXPECT_THAT(look(2000), IsEmpty());
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
