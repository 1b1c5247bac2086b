#include "tracker/mlflow.h"

#include <cmath>

#include "absl/strings/match.h"
#include "base/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tracker/test_http.h"

namespace ll {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

std::shared_ptr<const TrackedJob> MakeJob(int params) {
  TrackedJob job{.id = "job-000000000001",
                 .name = "long",
                 .user = "ann",
                 .queue = "default",
                 .kind = "train",
                 .submitted = absl::FromUnixSeconds(100)};
  for (int i = 0; i < params; ++i) job.params.emplace_back("key" + std::to_string(i), "value");
  job.labels = {{"team", "nlp"}};
  return std::make_shared<const TrackedJob>(job);
}

TrackerEvent StepOf(const std::shared_ptr<const TrackedJob>& job, int64_t step, double loss) {
  TrackerEvent event;
  event.kind = TrackerEvent::Kind::kStep;
  event.job = job;
  event.time = absl::FromUnixSeconds(200 + step);
  event.epoch = 1;
  event.step = step;
  event.values = {{"loss", loss}, {"grad_norm", 1}};
  return event;
}

TrackerEvent StateOf(const std::shared_ptr<const TrackedJob>& job, const std::string& state) {
  TrackerEvent event;
  event.job = job;
  event.time = absl::FromUnixSeconds(300);
  event.state = state;
  event.reason = "because";
  return event;
}

// Not MLflow: a stand-in that keeps what it is sent and refuses what MLflow's REST API refuses of
// it (unknown runs, too many values, a parameter given twice).
class StandIn : public FakeHttp {
 public:
  StandIn() {
    answer = [this](const HttpRequest& request) -> absl::StatusOr<HttpResponse> {
      const auto body = request.body.empty() ? nlohmann::json()
                                             : nlohmann::json::parse(std::string(request.body));
      return Answer(request.path, body);
    };
  }
  std::map<std::string, nlohmann::json> runs;  // tags, params, metrics, status
  bool experiment = false;

 private:
  static HttpResponse Ok(const nlohmann::json& json) {
    return {.status = 200, .body = json.dump()};
  }
  HttpResponse Answer(const std::string& path, const nlohmann::json& body) {
    const std::string what = path.substr(path.find("/mlflow/") + 8);
    if (what == "experiments/get-by-name") {
      if (!experiment) return {.status = 404, .body = "{}"};
      return Ok({{"experiment", {{"experiment_id", "7"}}}});
    }
    if (what == "experiments/create") {
      experiment = true;
      return Ok({{"experiment_id", "7"}});
    }
    if (what == "runs/search") {
      nlohmann::json found = nlohmann::json::array();
      for (const auto& [id, run] : runs) {
        const std::string wanted =
            "tags.`ll.job_id` = '" + run["tags"]["ll.job_id"].get<std::string>() + "'";
        if (body["filter"] == wanted) found.push_back({{"info", {{"run_id", id}}}});
      }
      return Ok({{"runs", found}});
    }
    if (what == "runs/create") {
      if (body["experiment_id"] != "7") return {.status = 400, .body = "no such experiment"};
      const std::string id = "run" + std::to_string(runs.size() + 1);
      for (const auto& tag : body["tags"]) runs[id]["tags"][tag["key"]] = tag["value"];
      runs[id]["name"] = body["run_name"];
      return Ok({{"run", {{"info", {{"run_id", id}}}}}});
    }
    const auto run = runs.find(body.value("run_id", ""));
    if (run == runs.end()) return {.status = 404, .body = "no such run"};
    if (what == "runs/log-batch") return LogBatch(run->second, body);
    if (what == "runs/update") run->second["status"] = body["status"];
    if (what == "runs/update" && body.contains("end_time"))
      run->second["end_time"] = body["end_time"];
    if (what == "runs/set-tag") run->second["tags"][body["key"]] = body["value"];
    return Ok(nlohmann::json::object());
  }
  HttpResponse LogBatch(nlohmann::json& run, const nlohmann::json& body) {
    if (body.value("metrics", nlohmann::json::array()).size() > 1000 ||
        body.value("params", nlohmann::json::array()).size() > 100)
      return {.status = 400, .body = "too many"};
    for (const auto& param : body.value("params", nlohmann::json::array())) {
      const std::string key = param["key"];
      if (run["params"].contains(key)) return {.status = 400, .body = "param given twice"};
      run["params"][key] = param["value"];
    }
    for (const auto& metric : body.value("metrics", nlohmann::json::array()))
      run["metrics"][metric["key"].get<std::string>()].push_back(metric);
    return Ok(nlohmann::json::object());
  }
};

MlflowTracker Make(StandIn& server) {
  auto target = MakeHttpTarget("mlflow", "http://127.0.0.1:5000", "", server);
  LL_EXPECT_OK(target.status());
  return {*target, "ll"};
}

TEST(MlflowTest, AJobBecomesARun) {
  StandIn server;
  MlflowTracker tracker = Make(server);
  const auto job = MakeJob(250);
  LL_ASSERT_OK(tracker.Take({StateOf(job, "QUEUED")}));
  std::vector<TrackerEvent> steps;
  for (int i = 1; i <= 1200; ++i) steps.push_back(StepOf(job, i, i == 3 ? std::nan("") : 2.0 / i));
  LL_ASSERT_OK(tracker.Take(steps));
  LL_ASSERT_OK(tracker.Take({StateOf(job, "SUCCEEDED")}));
  ASSERT_THAT(server.runs, SizeIs(1));
  const nlohmann::json& run = server.runs["run1"];
  EXPECT_EQ(run["name"], "long");
  EXPECT_EQ(run["params"].size(), 250u);
  EXPECT_EQ(run["tags"]["ll.label.team"], "nlp");
  EXPECT_EQ(run["tags"]["ll.reason"], "because");
  EXPECT_EQ(run["status"], "FINISHED");
  EXPECT_EQ(run["end_time"], 300'000);
  ASSERT_EQ(run["metrics"]["train/loss"].size(), 1200u);
  EXPECT_EQ(run["metrics"]["train/loss"][9]["value"], 0.2);
  EXPECT_EQ(run["metrics"]["train/loss"][9]["step"], 10);
  EXPECT_EQ(run["metrics"]["train/loss"][2]["value"], "NaN");
}

TEST(MlflowTest, AnotherProcessGoesOnWithTheRun) {
  StandIn server;
  const auto job = MakeJob(3);
  {
    MlflowTracker first = Make(server);
    LL_ASSERT_OK(first.Take({StateOf(job, "RUNNING"), StepOf(job, 1, 2)}));
  }
  MlflowTracker second = Make(server);
  TrackerEvent replayed = StateOf(job, "RUNNING");
  replayed.replayed = true;
  const size_t before = server.asked().size();
  LL_ASSERT_OK(second.Take({replayed}));
  EXPECT_EQ(server.asked().size(), before) << "nothing is sent of what was told before";
  LL_ASSERT_OK(second.Take({StepOf(job, 2, 1)}));
  ASSERT_THAT(server.runs, SizeIs(1));
  EXPECT_EQ(server.runs["run1"]["metrics"]["train/loss"].size(), 2u);
}

TEST(MlflowTest, LongAndOddTextsAreCut) {
  TrackedJob job{.id = "job-000000000001", .name = std::string(499, 'a') + "ä"};
  job.labels = {{"a\"b", "c"}};
  const auto run = MlflowRun(job, "7");
  EXPECT_EQ(run["run_name"].get<std::string>(), std::string(499, 'a'));
  EXPECT_EQ(run["tags"][1]["key"], "ll.label.a_b");
  EXPECT_EQ(MlflowStatus("CANCELLED"), "KILLED");
  EXPECT_EQ(MlflowStatus("RETRYING"), "SCHEDULED");
}

TEST(MlflowTest, AnswersOfOtherServersAreErrors) {
  StandIn server;
  server.experiment = true;
  server.answer = [](const HttpRequest&) { return HttpResponse{.status = 200, .body = "<html>"}; };
  MlflowTracker tracker = Make(server);
  EXPECT_FALSE(tracker.Take({StateOf(MakeJob(1), "QUEUED")}).ok());
  server.answer = [](const HttpRequest&) { return HttpResponse{.status = 200, .body = "{}"}; };
  EXPECT_THAT(tracker.Take({StateOf(MakeJob(1), "QUEUED")}).message(), HasSubstr("lacks"));
  server.answer = [](const HttpRequest&) { return absl::UnavailableError("no connection"); };
  EXPECT_TRUE(absl::IsUnavailable(tracker.Take({StateOf(MakeJob(1), "QUEUED")})));
}

}  // namespace
}  // namespace ll
