#include "coordinator/web/http.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

TEST(WorkersDiscoveryTest, TellsWhoCanBeReached) {
  ClusterView view;
  const auto add = [&view](const char* name, const char* host, const char* http) {
    Worker worker;
    worker.name = WorkerId(name);
    worker.host = host;
    worker.http_address = http;
    view.workers.push_back(worker);
  };
  add("far", "b", "10.0.0.2:7072");
  add("six", "c", "[2001:db8::1]:7072");
  add("here", "a", "127.0.0.1:7072");
  add("hidden", "b", "127.0.0.1:7072");
  add("silent", "b", "");
  EXPECT_EQ(nlohmann::json::parse(WorkersDiscoveryJson(view, "a")), nlohmann::json::parse(R"([
    {"targets": ["10.0.0.2:7072"], "labels": {"worker": "far"}},
    {"targets": ["[2001:db8::1]:7072"], "labels": {"worker": "six"}},
    {"targets": ["127.0.0.1:7072"], "labels": {"worker": "here"}}])"));
  EXPECT_EQ(WorkersDiscoveryJson({}, "a"), "[]\n");
}

}  // namespace
}  // namespace ll
