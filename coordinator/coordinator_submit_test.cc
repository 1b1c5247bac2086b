// Several jobs in one request, and jobs that start from others.
#include "coordinator/coordinator_case.h"

namespace ll {
namespace {

using ::testing::HasSubstr;

TEST_F(CoordinatorTest, SeveralJobsComeTogetherOrNotAtAll) {
  Start();
  v1::SubmitAllRequest request;
  request.set_request_id("both");
  for (const char* name : {"second", "first"}) {
    v1::SubmitMember* member = request.add_members();
    member->set_name(name);
    *member->mutable_spec() = Request().spec();
    member->mutable_spec()->set_name(name);
    (*member->mutable_spec()->mutable_labels())["array"] = "pair";
  }
  request.mutable_members(0)->mutable_spec()->add_after("first");
  const auto submit = [&] {
    return CallOnce<v1::SubmitAllResponse>(*jobs_, &v1::Jobs::Stub::SubmitAll, request);
  };
  request.mutable_members(0)->mutable_spec()->set_queue("nowhere");
  EXPECT_THAT(submit(), StatusIs(absl::StatusCode::kNotFound, "second: queue: there is no queue"));
  EXPECT_EQ(CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, v1::ListRequest())
                .value()
                .jobs_size(),
            0);
  request.mutable_members(0)->mutable_spec()->clear_queue();
  LL_ASSERT_OK_AND_ASSIGN(const v1::SubmitAllResponse made, submit());
  EXPECT_FALSE(made.existed());
  ASSERT_EQ(made.jobs_size(), 2);
  EXPECT_EQ(made.jobs(0).spec().name(), "second");
  EXPECT_EQ(made.jobs(0).state(), v1::BLOCKED);
  EXPECT_THAT(made.jobs(0).reason(), HasSubstr(made.jobs(1).job_id()));
  EXPECT_EQ(made.jobs(1).state(), v1::QUEUED);
  Restart();
  LL_ASSERT_OK_AND_ASSIGN(const v1::SubmitAllResponse again, submit());
  EXPECT_TRUE(again.existed());
  ASSERT_EQ(again.jobs_size(), 2);
  for (int i : {0, 1}) EXPECT_EQ(again.jobs(i).job_id(), made.jobs(i).job_id());
  request.mutable_members(1)->mutable_spec()->set_max_steps(9);
  EXPECT_THAT(submit(), StatusIs(absl::StatusCode::kAlreadyExists, "both"));

  LL_ASSERT_OK(Submit(Request()));
  v1::ListRequest list;
  (*list.mutable_labels())["array"] = "pair";
  LL_ASSERT_OK_AND_ASSIGN(const v1::ListResponse found,
                          CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, list));
  EXPECT_EQ(found.jobs_size(), 2);
  EXPECT_EQ(found.jobs(0).spec().labels().at("array"), "pair");
  (*list.mutable_labels())["array"] = "other";
  EXPECT_EQ(CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, list).value().jobs_size(), 0);
  (*list.mutable_labels())["array"] = "";
  EXPECT_EQ(CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, list).value().jobs_size(), 2);
}

TEST_F(CoordinatorTest, StagesStartFromEachOthersCheckpoints) {
  Start();
  auto agent = Agent("w1", 1);
  agent->SayHello();
  agent->TakeWelcome();
  v1::SubmitRequest request = Request(1, "graph");
  request.mutable_spec()->set_name("long");
  request.mutable_spec()->add_stages(512);
  request.mutable_spec()->add_stages(1024);
  LL_ASSERT_OK_AND_ASSIGN(const v1::SubmitResponse made, Submit(request));
  ASSERT_EQ(made.members_size(), 3);
  EXPECT_EQ(made.job().job_id(), made.members(2).job_id());
  EXPECT_EQ(made.members(2).spec().name(), "long-merge");

  v1::StartGang gang = agent->TakeStart();
  EXPECT_EQ(gang.job_id(), made.members(0).job_id());
  EXPECT_EQ(gang.spec().context_length(), 512);
  EXPECT_EQ(gang.spec().max_steps(), 1);
  EXPECT_FALSE(gang.spec().has_adapter());
  agent->ReportTraining(gang);
  ReportCheckpoint(*agent, gang, "/jobs/a/step-3");
  agent->ReportExit(gang, 0);
  gang = agent->TakeStart();
  EXPECT_EQ(gang.job_id(), made.members(1).job_id());
  EXPECT_EQ(gang.spec().context_length(), 1024);
  EXPECT_EQ(gang.spec().max_steps(), 2);
  EXPECT_EQ(gang.spec().model(), model());
  EXPECT_EQ(gang.spec().adapter(), "/jobs/a/step-3");
  agent->ReportTraining(gang);
  ReportCheckpoint(*agent, gang, "/jobs/b/step-3");
  agent->ReportExit(gang, 0);
  gang = agent->TakeStart();
  EXPECT_EQ(gang.spec().kind(), "merge");
  EXPECT_EQ(gang.spec().adapter(), "/jobs/b/step-3");
  agent->ReportTraining(gang);
  agent->ReportExit(gang, 0);
  AwaitState(made.job().job_id(), v1::SUCCEEDED);
  LL_ASSERT_OK_AND_ASSIGN(const v1::SubmitResponse again, Submit(request));
  EXPECT_TRUE(again.existed());
  EXPECT_EQ(again.members(0).job_id(), made.members(0).job_id());
}

TEST_F(CoordinatorTest, AFullTrainingGoesOnWithTheWeightsThemselves) {
  Start();
  auto agent = Agent("w1", 1);
  agent->SayHello();
  agent->TakeWelcome();
  v1::SubmitRequest request = Request();
  request.mutable_spec()->set_method("full");
  request.mutable_spec()->add_stages(512);
  request.mutable_spec()->add_stages(1024);
  LL_ASSERT_OK(Submit(request));
  v1::StartGang gang = agent->TakeStart();
  EXPECT_EQ(gang.spec().model(), model());
  agent->ReportTraining(gang);
  ReportCheckpoint(*agent, gang, "/jobs/a/step-3");
  agent->ReportExit(gang, 0);
  gang = agent->TakeStart();
  EXPECT_EQ(gang.spec().model(), "/jobs/a/step-3");
  EXPECT_FALSE(gang.spec().has_adapter());
}

TEST_F(CoordinatorTest, ADeadlineCountsFromTheSubmit) {
  Start();
  v1::SubmitRequest request = Request();
  request.mutable_spec()->set_deadline(1);
  LL_ASSERT_OK_AND_ASSIGN(const v1::SubmitResponse made, Submit(request));
  AwaitState(made.job().job_id(), v1::FAILED);
  LL_ASSERT_OK_AND_ASSIGN(const v1::Job job, Get(made.job().job_id()));
  EXPECT_THAT(job.reason(), HasSubstr("its deadline"));
}

}  // namespace
}  // namespace ll
