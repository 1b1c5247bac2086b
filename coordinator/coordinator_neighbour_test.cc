// This coordinator beside agents and clients of the last release: they know the fields, values and
// calls that proto/released.txt lists and no other. Two real releases side by side, with their
// stores: tests/upgrade/two_versions.py.
#include <google/protobuf/message.h>

#include <atomic>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "coordinator/coordinator_case.h"

namespace ll {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

class NeighbourTest : public CoordinatorTest {
 protected:
  void SetUp() override {
    CoordinatorTest::SetUp();
    LL_ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile("proto/released.txt"));
    for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      if (line[0] != '#') released_.emplace(line.substr(0, line.find_first_of(" :")));
    }
    ASSERT_TRUE(released_.contains("Hello.worker") && !released_.contains("Hello.calibration"));
    Start();
  }

  // Takes away what the last release does not know.
  void Strip(Message& message) {
    std::vector<const FieldDescriptor*> fields;
    const google::protobuf::Reflection& reflection = *message.GetReflection();
    reflection.ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
      if (!absl::StartsWith(field->full_name(), "ll.v1.")) continue;  // google.protobuf.*
      if (!released_.contains(absl::StripPrefix(field->full_name(), "ll.v1."))) {
        reflection.ClearField(&message, field);
        ++stripped_;
        continue;
      }
      if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_map()) continue;
      if (!field->is_repeated()) {
        Strip(*reflection.MutableMessage(&message, field));
        continue;
      }
      for (int i = 0; i < reflection.FieldSize(message, field); ++i)
        Strip(*reflection.MutableRepeatedMessage(&message, field, i));
    }
  }
  std::unique_ptr<ScriptedAgent> OldAgent() {
    auto agent = std::make_unique<ScriptedAgent>(under_test_.Channel(), "w1", "i1",
                                                 [this](Message& message) { Strip(message); });
    agent->AddSlots(1);
    // What only a newer one says.
    agent->hello().set_calibration("{}");
    return agent;
  }
  template <typename Response, typename Stub, typename Request>
  Response Old(Stub& stub,
               grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
               Request request) {
    Strip(request);
    auto response = CallOnce<Response>(stub, method, request);
    EXPECT_THAT(response, IsOk());
    if (!response.ok()) return {};
    Strip(*response);
    return *std::move(response);
  }

  std::set<std::string, std::less<>> released_;
  std::atomic<int> stripped_ = 0;
};

TEST_F(NeighbourTest, AnAgentAndAClientOfTheLastReleaseRunAJob) {
  auto agent = OldAgent();
  agent->SayHello();
  agent->TakeWelcome();
  const auto submitted =
      Old<v1::SubmitResponse>(*jobs_, &v1::Jobs::Stub::Submit, Request(1, "old-1"));
  const std::string id = submitted.job().job_id();
  const v1::StartGang gang = agent->TakeStart();
  EXPECT_EQ(gang.job_id(), id);
  EXPECT_EQ(gang.spec().model(), model());
  agent->ReportTraining(gang);
  AwaitState(id, v1::RUNNING);

  // The coordinator is upgraded: the same ranks, the same attempt.
  const int64_t durable = agent->sequence();
  under_test_.Stop();
  agent->End().IgnoreError();
  Start();
  agent = OldAgent();
  v1::HeldGang* held = agent->hello().add_gangs();
  held->set_job_id(gang.job_id());
  held->set_epoch(gang.epoch());
  held->add_ranks()->set_rank(0);
  agent->SayHello();
  const v1::Welcome welcome = agent->TakeWelcome();
  ASSERT_EQ(welcome.verdicts_size(), 1);
  EXPECT_TRUE(welcome.verdicts(0).keep());
  EXPECT_EQ(welcome.verdicts(0).report_sequence(), durable);
  agent->SendTelemetry(gang, v1::Telemetry::EVENTS, 0, StepLine(1));
  agent->TakeTelemetryAck();
  v1::AgentMessage exit;
  v1::Report* report = agent->NewReport(exit, gang, 0);
  report->set_sequence(durable + 1);
  report->mutable_exit()->set_exit_code(0);
  agent->Send(exit);
  AwaitState(id, v1::SUCCEEDED);

  v1::GetRequest get;
  get.set_job_id(id);
  get.set_history(true);
  const auto job = Old<v1::Job>(*jobs_, &v1::Jobs::Stub::Get, get);
  EXPECT_EQ(job.state(), v1::SUCCEEDED);
  EXPECT_EQ(job.epoch(), 1);
  EXPECT_EQ(job.steps_size(), 1);
  EXPECT_EQ(Old<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, v1::ListRequest()).jobs_size(), 1);
  const auto again = Old<v1::SubmitResponse>(*jobs_, &v1::Jobs::Stub::Submit, Request(1, "old-1"));
  EXPECT_TRUE(again.existed());
  EXPECT_EQ(again.job().job_id(), id);
  EXPECT_GT(stripped_, 0) << "the releases do not differ: nothing was shown";
}

TEST_F(NeighbourTest, AClientOfTheLastReleaseCancels) {
  auto agent = OldAgent();
  agent->SayHello();
  agent->TakeWelcome();
  const std::string id =
      Old<v1::SubmitResponse>(*jobs_, &v1::Jobs::Stub::Submit, Request()).job().job_id();
  const v1::StartGang gang = agent->TakeStart();
  agent->ReportTraining(gang);
  AwaitState(id, v1::RUNNING);
  v1::CancelRequest cancel;
  cancel.set_job_id(id);
  EXPECT_EQ(Old<v1::Job>(*jobs_, &v1::Jobs::Stub::Cancel, cancel).state(), v1::CANCELLING);
  EXPECT_EQ(agent->TakeStop().epoch(), gang.epoch());
  agent->ReportExit(gang, 10, /*ordered=*/true);
  AwaitState(id, v1::CANCELLED);
}

}  // namespace
}  // namespace ll
