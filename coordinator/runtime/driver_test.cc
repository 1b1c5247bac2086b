#include "coordinator/runtime/driver.h"

#include <atomic>
#include <future>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/fake_clock.h"
#include "base/status_matchers.h"
#include "coordinator/store/mem_store.h"

namespace ll {
namespace {

// What a coordinator leaves behind and the next one finds; counts and fails commits on request.
struct Disk {
  MemStore store;
  std::atomic<int> commits{0};
  std::atomic<int> opened{0};
  std::atomic<int> fail_with{0};  // an absl::StatusCode for the next commits
};

class StoreOnDisk : public Store {
 public:
  explicit StoreOnDisk(Disk& disk) : disk_(disk) { ++disk_.opened; }
  absl::Status Commit(absl::Span<const Record> records) override {
    ++disk_.commits;
    if (poisoned_) return absl::InternalError("poisoned");
    const int code = disk_.fail_with;
    if (code == 0) return disk_.store.Commit(records);
    poisoned_ = code != static_cast<int>(absl::StatusCode::kResourceExhausted);
    return absl::Status(static_cast<absl::StatusCode>(code), "the disk says no");
  }
  absl::StatusOr<StoredState> LoadAll() override { return disk_.store.LoadAll(); }
  absl::StatusOr<int64_t> RaiseTerm(int64_t above) override { return disk_.store.RaiseTerm(above); }
  std::string Description() const override { return "test"; }

 private:
  Disk& disk_;
  bool poisoned_ = false;
};

class FakeGateway : public AgentGateway {
 public:
  void Deliver(const Send& send, int64_t term) override {
    absl::MutexLock lock(&mu_);
    sent_.push_back(send);
  }
  void EndAllSessions(const absl::Status&) override { ++ended_; }
  size_t sent() {
    absl::MutexLock lock(&mu_);
    return sent_.size();
  }
  std::atomic<int> ended_{0};

 private:
  absl::Mutex mu_;
  std::vector<Send> sent_ ABSL_GUARDED_BY(mu_);
};

class DriverTest : public ::testing::Test {
 protected:
  std::unique_ptr<Driver> Start(DriverOptions options = {}) {
    options.open_store = [this]() -> absl::StatusOr<std::unique_ptr<Store>> {
      return std::make_unique<StoreOnDisk>(disk_);
    };
    options.tick = absl::Milliseconds(40);
    auto driver = std::make_unique<Driver>(std::move(options), RealClock());
    driver->SetGateway(&gateway_);
    const absl::Status started = driver->Start();
    EXPECT_TRUE(started.ok()) << started;
    return driver;
  }

  static SubmitEvent SubmitOf(const std::string& id, const std::string& request_id = "") {
    SubmitEvent event;
    event.job = JobId(id);
    event.request_id = request_id;
    event.body_sha256 = "body";
    event.user = "u";
    event.payload = std::make_shared<JobPayload>();
    return event;
  }

  static Reply Ask(Driver& driver, Event event) {
    std::promise<Reply> promise;
    driver.Request(std::move(event),
                   [&](const Reply& reply, const Scheduler*) { promise.set_value(reply); });
    return promise.get_future().get();
  }

  static bool Knows(Driver& driver, const std::string& id) {
    std::promise<bool> promise;
    driver.Read([&](const absl::Status& status, const Scheduler* view) {
      promise.set_value(view != nullptr && view->Find(JobId(id)) != nullptr);
    });
    return promise.get_future().get();
  }

  Disk disk_;
  FakeGateway gateway_;
};

TEST_F(DriverTest, AnsweredMeansStored) {
  auto driver = Start();
  LL_EXPECT_OK(Ask(*driver, SubmitOf("job-1")).status);
  driver.reset();
  auto next = Start();
  EXPECT_TRUE(Knows(*next, "job-1"));
}

TEST_F(DriverTest, TermRisesWithEveryStart) {
  EXPECT_EQ(Start()->term(), 1);
  EXPECT_EQ(Start()->term(), 2);
}

TEST_F(DriverTest, ManyWaitingRequestsShareACommit) {
  auto driver = Start();
  // Holds the loop so that all requests wait together.
  absl::Notification held, go;
  driver->Read([&](const absl::Status&, const Scheduler*) {
    held.Notify();
    go.WaitForNotification();
  });
  held.WaitForNotification();
  const int before = disk_.commits;
  std::atomic<int> answered{0};
  for (int i = 0; i < 100; ++i) {
    driver->Request(SubmitOf(absl::StrCat("job-", i)), [&](const Reply& reply, const Scheduler*) {
      if (reply.status.ok()) ++answered;
    });
  }
  go.Notify();
  EXPECT_TRUE(Knows(*driver, "job-99"));  // behind them in the queue
  EXPECT_EQ(answered, 100);
  EXPECT_LE(disk_.commits - before, 3);
}

TEST_F(DriverTest, FullDiskFailsTheBatchAndForgetsIt) {
  auto driver = Start();
  LL_ASSERT_OK(Ask(*driver, SubmitOf("job-1", "r1")).status);
  disk_.fail_with = static_cast<int>(absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Ask(*driver, SubmitOf("job-2", "r2")).status,
              StatusIs(absl::StatusCode::kResourceExhausted, "the disk says no"));
  EXPECT_EQ(gateway_.ended_, 1);
  disk_.fail_with = 0;
  EXPECT_FALSE(Knows(*driver, "job-2"));
  EXPECT_TRUE(Knows(*driver, "job-1"));
  // The same request works once there is space, and makes one job.
  const Reply again = Ask(*driver, SubmitOf("job-3", "r2"));
  LL_EXPECT_OK(again.status);
  EXPECT_FALSE(again.existed);
  EXPECT_EQ(disk_.opened, 1);
}

TEST_F(DriverTest, PoisonedStoreIsOpenedAgain) {
  auto driver = Start();
  disk_.fail_with = static_cast<int>(absl::StatusCode::kInternal);
  EXPECT_THAT(Ask(*driver, SubmitOf("job-1")).status,
              StatusIs(absl::StatusCode::kUnavailable, "could not write"));
  disk_.fail_with = 0;
  LL_EXPECT_OK(Ask(*driver, SubmitOf("job-2")).status);
  EXPECT_EQ(disk_.opened, 2);
}

TEST_F(DriverTest, NothingIsSentBeforeItIsStored) {
  auto driver = Start();
  AgentHelloEvent hello;
  hello.session = 1;
  hello.worker = WorkerId("w");
  hello.incarnation = "i";
  disk_.fail_with = static_cast<int>(absl::StatusCode::kResourceExhausted);
  absl::Notification done;
  driver->AgentEvent(hello, [&] { done.Notify(); });
  done.WaitForNotification();
  EXPECT_EQ(gateway_.sent(), 0u);
  disk_.fail_with = 0;
  hello.session = 2;
  absl::Notification again;
  driver->AgentEvent(hello, [&] { again.Notify(); });
  again.WaitForNotification();
  EXPECT_EQ(gateway_.sent(), 1u);  // Welcome
}

TEST_F(DriverTest, TooManyWaitingRequestsAreRefusedAtOnce) {
  auto driver = Start({.max_waiting_requests = 4});
  absl::Notification held, go;
  driver->Read([&](const absl::Status&, const Scheduler*) {
    held.Notify();
    go.WaitForNotification();
  });
  held.WaitForNotification();
  std::atomic<int> refused{0}, accepted{0};
  for (int i = 0; i < 10; ++i) {
    driver->Request(SubmitOf(absl::StrCat("job-", i)), [&](const Reply& reply, const Scheduler*) {
      ++(reply.status.code() == absl::StatusCode::kResourceExhausted ? refused : accepted);
    });
  }
  EXPECT_EQ(refused, 6);
  go.Notify();
  driver->Stop();
  EXPECT_EQ(refused + accepted, 10);
}

TEST_F(DriverTest, StoppingAnswersEverybody) {
  auto driver = Start();
  driver->Stop();
  EXPECT_THAT(Ask(*driver, SubmitOf("job-1")).status,
              StatusIs(absl::StatusCode::kUnavailable, "stopping"));
}

}  // namespace
}  // namespace ll
