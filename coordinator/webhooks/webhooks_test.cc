#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <optional>
#include <thread>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "coordinator/store/postgres_for_test.h"
#include "coordinator/store/postgres_schema.h"
#include "coordinator/webhooks/notifier.h"

namespace ll {
namespace {

absl::Status CheckText(const AddressRules& rules, const std::string& address) {
  addrinfo hints{}, *list = nullptr;
  hints.ai_flags = AI_NUMERICHOST;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(address.c_str(), nullptr, &hints, &list) != 0)
    return absl::InvalidArgumentError(address);
  const absl::Status status = rules.Check(list->ai_addr);
  freeaddrinfo(list);
  return status;
}

TEST(AddressRules, OnlyPublicUnicastPasses) {
  const AddressRules rules;
  for (const char* good :
       {"1.1.1.1", "8.8.8.8", "172.32.0.1", "172.15.255.255", "11.0.0.1", "192.169.0.1",
        "100.128.0.1", "223.255.255.255", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8"}) {
    EXPECT_THAT(CheckText(rules, good), IsOk()) << good;
  }
  for (const char* bad : {"127.0.0.1",
                          "127.255.0.9",
                          "2130706433",
                          "0x7f.1",
                          "0177.0.0.1",
                          "127.1",
                          "0.0.0.0",
                          "10.0.0.1",
                          "100.64.0.1",
                          "169.254.169.254",
                          "0xa9fea9fe",
                          "172.16.0.1",
                          "172.31.255.255",
                          "192.168.1.1",
                          "192.0.0.192",
                          "192.0.2.1",
                          "198.18.0.1",
                          "198.51.100.7",
                          "203.0.113.7",
                          "224.0.0.1",
                          "239.1.1.1",
                          "240.0.0.1",
                          "255.255.255.255",
                          "::",
                          "::1",
                          "::ffff:127.0.0.1",
                          "::ffff:169.254.169.254",
                          "::ffff:10.0.0.1",
                          "::127.0.0.1",
                          "64:ff9b::7f00:1",
                          "64:ff9b::a9fe:a9fe",
                          "2002:7f00:1::",
                          "2001::1",
                          "2001:db8::1",
                          "fe80::1",
                          "fc00::1",
                          "fd00:ec2::254",
                          "ff02::1",
                          "3fff::1",
                          "100::1",
                          "5f00::1"}) {
    EXPECT_THAT(CheckText(rules, bad), StatusIs(absl::StatusCode::kPermissionDenied, "refused"))
        << bad;
  }
}

TEST(AddressRules, WhatIsNamedPassesAndNothingBesides) {
  AddressRules rules;
  LL_ASSERT_OK(rules.Allow("10.1.0.0/16"));
  LL_ASSERT_OK(rules.Allow("fd00:1::/32"));
  LL_ASSERT_OK(rules.Allow("192.168.7.9"));
  for (const char* good : {"10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5", "192.168.7.9"})
    EXPECT_THAT(CheckText(rules, good), IsOk()) << good;
  for (const char* bad : {"10.2.0.1", "10.0.255.255", "fd00:2::5", "192.168.7.8", "127.0.0.1"})
    EXPECT_FALSE(CheckText(rules, bad).ok()) << bad;
  for (const char* wrong : {"", "10.1.0.0/33", "10.1.0.0/-1", "example.com", "10.1", "::/129"})
    EXPECT_FALSE(rules.Allow(wrong).ok()) << wrong;
  rules.AllowLoopback();
  LL_EXPECT_OK(CheckText(rules, "127.0.0.1"));
  LL_EXPECT_OK(CheckText(rules, "::1"));
  EXPECT_FALSE(CheckText(rules, "169.254.169.254").ok());
}

absl::Status Parse(const std::string& body) {
  return ParseWebhooks("endpoints:\n  ops: {secret-file: /s, " + body + "}").status();
}

TEST(Webhooks, EndpointsThatAreNotToBeAreRefusedAtTheStart) {
  LL_EXPECT_OK(Parse("url: 'https://hooks.example/x?y=1'"));
  LL_EXPECT_OK(Parse("url: 'http://localhost:9/', allow-loopback: true"));
  LL_EXPECT_OK(Parse("url: 'https://10.1.2.3/', allow: [10.1.0.0/16]"));
  const struct {
    const char *body, *words;
  } bad[] = {
      {"url: 'http://hooks.example/'", "https://"},
      {"url: 'http://127.0.0.1/'", "https://"},
      {"url: 'https://127.0.0.1/'", "loopback"},
      {"url: 'https://2130706433/'", "loopback"},
      {"url: 'https://0177.0.0.1/'", "loopback"},
      {"url: 'https://0x7f000001/'", "loopback"},
      {"url: 'https://[::ffff:127.0.0.1]/'", "loopback"},
      {"url: 'https://[::1]/'", "loopback"},
      {"url: 'https://169.254.169.254/latest/meta-data'", "link-local"},
      {"url: 'https://[::ffff:a9fe:a9fe]/'", "link-local"},
      {"url: 'http://8.8.8.8/', allow-loopback: true", "loopback alone"},
      {"url: 'ftp://hooks.example/'", "https://"},
      {"url: 'file:///etc/passwd'", "https://"},
      {"url: 'gopher://hooks.example/'", "https://"},
      {"url: 'https://user:pw@hooks.example/'", "without user"},
      {"url: 'https://hooks.example/', states: [gone]", "states of jobs"},
      {"url: 'https://hooks.example/', allow: [everything]", "ranges"},
      {"url: 'https://hooks.example/', timeout: 0", "seconds"},
      {"url: 'https://hooks.example/', secret: x", "secret-file"},
  };
  for (const auto& [body, words] : bad)
    EXPECT_THAT(Parse(body), StatusIs(absl::StatusCode::kInvalidArgument, words)) << body;
  EXPECT_FALSE(ParseWebhooks("endpoints: {ops: {url: 'https://a.example/'}}").ok());
  EXPECT_FALSE(ParseWebhooks("endpoints: {'a b': {url: 'https://a/', secret-file: x}}").ok());
  EXPECT_FALSE(ParseWebhooks("[").ok());
}

TEST(Webhooks, AJobNamesEndpointsOfItsTenantOnly) {
  const auto endpoints = ParseWebhooks(
      "endpoints:\n  ops: {url: 'https://a.example/', secret-file: /s}\n"
      "  red: {url: 'https://a.example/', secret-file: /s, tenants: [red]}");
  LL_ASSERT_OK(endpoints);
  LL_EXPECT_OK(CheckNotifyLabel("ops", "", *endpoints));
  LL_EXPECT_OK(CheckNotifyLabel("ops, red", "red", *endpoints));
  const std::string foreign(CheckNotifyLabel("red", "blue", *endpoints).message());
  const std::string absent(CheckNotifyLabel("tan", "blue", *endpoints).message());
  EXPECT_THAT(foreign, testing::StartsWith("labels.notify"));
  EXPECT_EQ(foreign.size(), absent.size());  // the same words
  EXPECT_FALSE(CheckNotifyLabel("", "", *endpoints).ok());
  EXPECT_FALSE(CheckNotifyLabel("https://evil.example/", "", *endpoints).ok());
}

class WebhookFolder : public testing::Test {
 protected:
  std::string Secret(const std::string& text, int mode = 0600) {
    const std::string path = dir_.path() + "/secret";
    EXPECT_THAT(WriteFileAtomic(path, text), IsOk());
    EXPECT_EQ(chmod(path.c_str(), mode), 0);
    return path;
  }
  const TempDir dir_;
};

TEST_F(WebhookFolder, SecretsAreReadInPrivateAndNeverRepeated) {
  const std::string key = "0123456789012345678901234567";
  EXPECT_THAT(*ReadWebhookSecrets(Secret(key + "\n")), testing::ElementsAre(key));
  EXPECT_THAT(*ReadWebhookSecrets(Secret("whsec_" + absl::Base64Escape(key) + "\n" + key + "b\n")),
              testing::ElementsAre(key, key + "b"));
  for (const std::string& text :
       {std::string(), std::string("short-one"), key + "\n" + key + "\n" + key,
        std::string("whsec_not*base64*at*all*but*long*enough")}) {
    const absl::Status status = ReadWebhookSecrets(Secret(text)).status();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, "secret-file"));
    EXPECT_THAT(std::string(status.message()), testing::Not(testing::HasSubstr("short-one")));
  }
  EXPECT_THAT(ReadWebhookSecrets(Secret(key, 0640)),
              StatusIs(absl::StatusCode::kFailedPrecondition, "others may read"));
}

// Answers each connection with the same bytes, after `delay`.
class OneAnswer {
 public:
  OneAnswer(std::string answer, absl::Duration delay)
      : answer_(std::move(answer)), delay_(delay), fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(fd_, 8), 0);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~OneAnswer() {
    stop_ = true;
    thread_.join();
    close(fd_);
  }
  int port() const { return port_; }
  int connections() const { return connections_; }

 private:
  void Serve() {
    while (!stop_) {
      pollfd wait{fd_, POLLIN, 0};
      if (poll(&wait, 1, 20) <= 0) continue;
      const int peer = accept(fd_, nullptr, nullptr);
      ++connections_;
      char buffer[8192];
      (void)!read(peer, buffer, sizeof buffer);
      const absl::Time until = absl::Now() + delay_;
      while (absl::Now() < until && !stop_) absl::SleepFor(absl::Milliseconds(5));
      (void)!send(peer, answer_.data(), answer_.size(), MSG_NOSIGNAL);
      close(peer);
    }
  }
  const std::string answer_;
  const absl::Duration delay_;
  const int fd_;
  int port_ = 0;
  std::atomic<bool> stop_ = false;
  std::atomic<int> connections_ = 0;
  std::thread thread_;
};

PostOutcome PostTo(const std::string& url, bool loopback, absl::Duration timeout) {
  WebhookEndpoint endpoint;
  endpoint.name = "t";
  endpoint.url = url;
  endpoint.timeout = timeout;
  if (loopback) {
    endpoint.rules.AllowLoopback();
    endpoint.plain = url.rfind("http://", 0) == 0;
  }
  const std::atomic<bool> stop = false;
  return PostWebhook(endpoint, {"k"}, {"id", "{}"}, absl::Now(), stop);
}

TEST(PostWebhook, NoSpellingAndNoNameReachesTheHostItself) {
  OneAnswer server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", absl::ZeroDuration());
  for (const char* host : {"127.0.0.1", "localhost", "2130706433", "0177.0.0.1", "0x7f.0.0.1",
                           "127.1", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "169.254.169.254",
                           "[::ffff:a9fe:a9fe]", "10.0.0.1"}) {
    const PostOutcome outcome =
        PostTo(absl::StrCat("https://", host, ":", server.port(), "/"), false, absl::Seconds(5));
    EXPECT_FALSE(outcome.delivered) << host;
    EXPECT_THAT(outcome.why, testing::HasSubstr("is refused")) << host;
  }
  EXPECT_EQ(server.connections(), 0);
  // Nor where the environment names a proxy.
  setenv("https_proxy", absl::StrCat("http://127.0.0.1:", server.port()).c_str(), 1);
  EXPECT_FALSE(PostTo("https://127.0.0.1:1/", false, absl::Seconds(5)).delivered);
  unsetenv("https_proxy");
  EXPECT_EQ(server.connections(), 0);
}

TEST(PostWebhook, TakesAnAnswerAsItIs) {
  const auto post = [](const std::string& answer, absl::Duration delay = absl::ZeroDuration(),
                       absl::Duration timeout = absl::Seconds(5)) {
    OneAnswer server(answer, delay);
    return PostTo(absl::StrCat("http://127.0.0.1:", server.port(), "/"), true, timeout);
  };
  EXPECT_TRUE(post("HTTP/1.1 204 No Content\r\n\r\n").delivered);
  OneAnswer elsewhere("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", absl::ZeroDuration());
  const PostOutcome redirected = post(absl::StrCat(
      "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:", elsewhere.port(),
      "/\r\nContent-Length: 0\r\n\r\n"));
  EXPECT_FALSE(redirected.delivered);
  EXPECT_EQ(redirected.why, "redirected (307)");
  EXPECT_EQ(elsewhere.connections(), 0);
  EXPECT_EQ(post("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").why, "answered 500");
  // Endless answers are left at 64 KiB.
  EXPECT_TRUE(post("HTTP/1.1 200 OK\r\n\r\n" + std::string(4 << 20, 'x')).delivered);
  EXPECT_FALSE(post("HTTP/1.1 200 OK\r\nX: " + std::string(4 << 20, 'x')).delivered);
  const absl::Time began = absl::Now();
  EXPECT_FALSE(post("", absl::Seconds(30), absl::Milliseconds(300)).delivered);
  EXPECT_LT(absl::Now() - began, absl::Seconds(10));
}

class DeliveryLogTest : public WebhookFolder, public testing::WithParamInterface<bool> {
 protected:
  std::unique_ptr<DeliveryLog> Open() {
    if (GetParam()) return MakePostgresDeliveryLog(PostgresForTest::Get().uri());
    return MakeSqliteDeliveryLog(dir_.path() + "/webhooks.db");
  }
};

TEST_P(DeliveryLogTest, RemembersAcrossOpeningsAndNeverGoesBack) {
  if (GetParam()) {
    auto connection = PostgresForTest::Get().Connect();
    LL_ASSERT_OK(PreparePostgres(*connection));
  }
  const absl::Time since = absl::FromUnixSeconds(1'800'000'000);
  {
    auto log = Open();
    LL_ASSERT_OK(log->Begin("ops", since));
    LL_ASSERT_OK(log->Begin("ops", since + absl::Hours(1)));  // the first holds
    LL_ASSERT_OK(log->Done("ops", "job-1", 7));
    LL_ASSERT_OK(log->Done("ops", "job-1", 3));
    LL_ASSERT_OK(log->Done("ops", "job-2", 1));
    LL_ASSERT_OK(log->Done("other", "job-2", 1));
    LL_ASSERT_OK(log->Forget("ops", {"job-2", "job-3"}));
    LL_ASSERT_OK(log->Forget("other", {"job-2"}));
    LL_ASSERT_OK(log->Keep({{"ops", "job-9", 3, since, "{3}"}, {"ops", "job-9", 4, since, "{4}"}}));
    LL_ASSERT_OK(log->Keep({{"ops", "job-9", 4, since, "{4}"}}));
    LL_ASSERT_OK(log->Done("ops", "job-9", 4));
    LL_ASSERT_OK(log->Forget("ops", {"job-9"}));
    LL_ASSERT_OK(log->Bury({"ops", "job-1", 9, since, "it \\ said 'no'"}));
    EXPECT_EQ(log->Dead()->back().why, "it \\ said 'no'");
  }
  auto log = Open();
  const auto state = log->Load();
  LL_ASSERT_OK(state);
  EXPECT_EQ(state->since.at("ops"), since);
  ASSERT_EQ(state->done.size(), 1u);
  EXPECT_EQ(state->done.at({"ops", "job-1"}), 7);
  ASSERT_EQ(state->kept.size(), 1u);
  EXPECT_EQ(state->kept[0].number, 4);
  EXPECT_EQ(state->kept[0].time, since);
  EXPECT_EQ(state->kept[0].body, "{4}");
  for (int i = 0; i < DeliveryLog::kMostDead + 5; ++i)
    LL_ASSERT_OK(log->Bury({"ops", "job-3", i, since + absl::Seconds(i + 1), ""}));
  const auto dead = log->Dead();
  LL_ASSERT_OK(dead);
  // The oldest went.
  EXPECT_EQ(static_cast<int>(dead->size()), DeliveryLog::kMostDead);
  EXPECT_EQ(dead->front().number, DeliveryLog::kMostDead + 4);
  EXPECT_EQ(dead->back().number, 5);
}
INSTANTIATE_TEST_SUITE_P(Stores, DeliveryLogTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Postgres" : "Sqlite"; });

// A job that has ended an hour ago, whose record goes with the next tick.
class NotifierTest : public WebhookFolder {
 protected:
  void SetUp() override {
    WebhookFolder::SetUp();
    LL_ASSERT_OK(log_()->Begin("ops", now_ - absl::Hours(2)));
    Job job;
    job.id = id_;
    job.sequence = job.transitions = 1;
    job.state = JobState::kSucceeded;
    job.finished = now_ - absl::Hours(1);
    job.spec.ttl_after_finished = absl::Minutes(1);
    job.history = {{job.finished, JobState::kSucceeded, "trained", 0}};
    job.payload = std::make_shared<JobPayload>();
    StoredState stored;
    stored.jobs = {job};
    auto scheduler = Scheduler::Recover(std::move(stored), {}, {RealClock().Steady(), now_});
    LL_ASSERT_OK(scheduler);
    scheduler_.emplace(*std::move(scheduler));
  }
  std::unique_ptr<DeliveryLog> log_() {
    return MakeSqliteDeliveryLog(dir_.path() + "/webhooks.db");
  }
  void Start(int port) {
    WebhookEndpoint endpoint;
    endpoint.name = "ops";
    endpoint.url = absl::StrCat("http://127.0.0.1:", port, "/");
    endpoint.plain = endpoint.all_jobs = true;
    endpoint.secret_file = Secret(std::string(32, 'k'));
    endpoint.rules.AllowLoopback();
    notifier_ = std::make_unique<Notifier>(
        NotifierOptions{.endpoints = {{"ops", endpoint}}}, log_(), RealClock(), [] { return true; },
        registry_);
    notifier_->OnRecovered(*scheduler_);
  }
  // As the driver's loop.
  void DeleteTheJob() {
    const Effects effects = scheduler_->Step(TickEvent{}, {RealClock().Steady(), now_});
    notifier_->OnStep(*scheduler_, effects, absl::ZeroDuration());
    notifier_->OnDeleted(id_);
    ASSERT_EQ(scheduler_->Find(id_), nullptr);
  }
  bool Await(const std::function<bool()>& true_now) {
    for (int i = 0; i < 1000 && !true_now(); ++i) absl::SleepFor(absl::Milliseconds(10));
    return true_now();
  }
  bool LogIsEmpty() {
    const auto state = log_()->Load();
    return state.ok() && state->done.empty() && state->kept.empty();
  }

  const absl::Time now_ = absl::Now();
  const JobId id_{"job-0123456789ab"};
  std::optional<Scheduler> scheduler_;
  prometheus::Registry registry_;
  std::unique_ptr<Notifier> notifier_;
};

constexpr char kGood[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

TEST_F(NotifierTest, WhatWaitsOfAJobWhoseRecordGoesIsToldAfterARestart) {
  OneAnswer refuses("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", absl::ZeroDuration());
  Start(refuses.port());
  ASSERT_TRUE(Await([&] { return refuses.connections() > 0; }));
  DeleteTheJob();
  notifier_.reset();
  OneAnswer takes(kGood, absl::ZeroDuration());
  Start(takes.port());
  EXPECT_TRUE(Await([&] { return takes.connections() == 1; }));
  EXPECT_TRUE(Await([&] { return LogIsEmpty(); }));
}

TEST_F(NotifierTest, TheLogForgetsJobsWhoseRecordsGo) {
  OneAnswer takes(kGood, absl::ZeroDuration());
  Start(takes.port());
  ASSERT_TRUE(Await([&] { return !LogIsEmpty(); }));
  DeleteTheJob();
  EXPECT_TRUE(Await([&] { return LogIsEmpty(); }));
  EXPECT_EQ(takes.connections(), 1);
}

}  // namespace
}  // namespace ll
