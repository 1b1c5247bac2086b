// What a submit comes down to: members, their order, their admission. Without a server.
#include "coordinator/api/submission.h"

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_matchers.h"
#include "coordinator/api/convert.h"
#include "gmock/gmock.h"

namespace ll {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

v1::JobSpec Spec(const std::string& yaml) {
  auto spec = ParseJobSpec(yaml);
  EXPECT_TRUE(spec.ok()) << spec.status();
  return SpecToProto(spec.value_or(JobSpec()));
}

class SubmissionTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::vector<AdmittedMember>> Admit(const SubmitPlan& plan) {
    return AdmitMembers(plan, sources_, view_, options_, absl::UnixEpoch(), random_);
  }
  absl::StatusOr<std::vector<AdmittedMember>> AdmitAll(
      const std::vector<std::pair<std::string, std::string>>& members) {
    v1::SubmitAllRequest request;
    for (const auto& [name, yaml] : members) {
      v1::SubmitMember* member = request.add_members();
      member->set_name(name);
      *member->mutable_spec() = Spec(yaml);
    }
    auto plan = PlanOf(request);
    if (!plan.ok()) return plan.status();
    return Admit(*plan);
  }

  SeededRandom random_{11};
  ClusterView view_;
  AdmissionOptions options_;
  std::map<JobId, SourceJob> sources_;
};

const char kTrain[] = "model: /m\ncontext_length: 1024\ndata: /d.bin\n";

TEST_F(SubmissionTest, NamesBecomeIdsAndMembersStandBehindWhatTheyNeed) {
  LL_ASSERT_OK_AND_ASSIGN(
      const auto got,
      AdmitAll({{"check", "kind: eval\nmodel: /m\njob: train\neval_data: /d.bin\n"},
                {"train", kTrain},
                {"last", absl::StrCat(kTrain, "after: [check, job-0123456789ab]\n")}}));
  ASSERT_THAT(got, SizeIs(3));
  EXPECT_EQ(got[0].index, 1u);
  EXPECT_EQ(got[1].index, 0u);
  EXPECT_EQ(got[2].index, 2u);
  // What it evaluates is the training's end, for which it waits without being told to.
  EXPECT_EQ(got[1].admitted.core.source, got[0].id);
  EXPECT_THAT(got[1].admitted.core.after, ElementsAre(got[0].id));
  EXPECT_EQ(got[1].spec.job(), got[0].id.value());
  EXPECT_EQ(got[1].admitted.resolved.eval_seq_len(), 1024);
  EXPECT_FALSE(got[1].admitted.resolved.has_adapter());
  EXPECT_THAT(got[2].admitted.core.after, ElementsAre(got[1].id, JobId("job-0123456789ab")));
}

TEST_F(SubmissionTest, ACircleIsNamed) {
  const auto got = AdmitAll({{"free", kTrain},
                             {"a", absl::StrCat(kTrain, "after: [c]\n")},
                             {"b", absl::StrCat(kTrain, "after_any: [a]\n")},
                             {"c", absl::StrCat(kTrain, "after: [free, b]\n")},
                             {"behind", absl::StrCat(kTrain, "after: [a]\n")}});
  EXPECT_THAT(got,
              StatusIs(kInvalid, "after: jobs wait for each other: a after c after b after a"));
  EXPECT_EQ(ErrorField(got.status()), "after");
  EXPECT_THAT(AdmitAll({{"self", absl::StrCat(kTrain, "after: [self]\n")}}),
              StatusIs(kInvalid, "after: jobs wait for each other: self after self"));
}

TEST_F(SubmissionTest, ARefusalNamesTheMemberAndTheField) {
  auto got = AdmitAll({{"good", kTrain}, {"bad", "model: /m\ncontext_length: 1\ndata: /d.bin\n"}});
  EXPECT_THAT(got, StatusIs(kInvalid, "bad: context_length: expected at least 2 tokens"));
  EXPECT_EQ(ErrorField(got.status()), "context_length");
  got = AdmitAll({{"eval", "kind: eval\njob: job-nowhere\n"}});
  EXPECT_THAT(got, StatusIs(absl::StatusCode::kNotFound, "eval: job: there is no job job-nowhere"));
}

TEST_F(SubmissionTest, BadRequestsNameTheirField) {
  const auto refused = [this](const std::vector<std::pair<std::string, std::string>>& members) {
    return std::string(AdmitAll(members).status().message());
  };
  EXPECT_EQ(refused({}), "members: expected 1 to 1000 jobs, found 0");
  EXPECT_THAT(refused({{"a", kTrain}, {"a", kTrain}}),
              HasSubstr("members[1].name: expected names"));
  EXPECT_THAT(refused({{"", kTrain}}), HasSubstr("members[0].name: expected 1 to 64"));
  EXPECT_THAT(refused({{"a b", kTrain}}), HasSubstr("members[0].name"));
  EXPECT_THAT(refused({{"job-0123456789ab", kTrain}}), HasSubstr("no job id"));
  EXPECT_THAT(refused({{"a", absl::StrCat(kTrain, "stages: [512, 1024]\n")}}),
              HasSubstr("a: stages: expected nothing in one of several jobs"));
  std::vector<std::pair<std::string, std::string>> many;
  for (int i = 0; i < kMaxMembers + 1; ++i) many.emplace_back(absl::StrCat("m", i), kTrain);
  EXPECT_THAT(refused(many), HasSubstr("members: expected 1 to 1000 jobs, found 1001"));
}

TEST_F(SubmissionTest, StagesBecomeMembersThatStartFromEachOther) {
  v1::SubmitRequest request;
  *request.mutable_spec() = Spec(
      "model: /m\ndata: /d.bin\nstages: [512, 1024]\nmax_steps: 4\ngate: ppl<=20\n"
      "name: long\nmethod: lora\nlora_rank: 4\n");
  LL_ASSERT_OK_AND_ASSIGN(const SubmitPlan plan, PlanOf(request, random_));
  EXPECT_TRUE(plan.graph);
  LL_ASSERT_OK_AND_ASSIGN(const auto got, Admit(plan));
  ASSERT_THAT(got, SizeIs(5));
  const auto core = [&](int i) { return got[i].admitted.core; };
  EXPECT_EQ(core(0).name, "long-512-train");
  EXPECT_TRUE(core(0).source.empty());
  EXPECT_EQ(core(1).source, got[0].id);
  EXPECT_EQ(core(2).source, got[0].id);
  EXPECT_THAT(core(2).after, ElementsAre(got[0].id, got[1].id));
  EXPECT_EQ(got[2].admitted.resolved.lora_rank(), 4);
  EXPECT_EQ(got[2].admitted.resolved.context_length(), 1024);
  EXPECT_EQ(core(4).source, got[2].id);
  EXPECT_EQ(core(4).kind, "merge");
  EXPECT_EQ(core(4).labels.at("graph"), "long");
  EXPECT_EQ(core(4).labels.at("stage"), "merge");
}

TEST_F(SubmissionTest, AGraphWithoutANameGetsOne) {
  v1::SubmitRequest request;
  *request.mutable_spec() = Spec("model: /m\ndata: /d.bin\nstages: [512]\n");
  LL_ASSERT_OK_AND_ASSIGN(const SubmitPlan plan, PlanOf(request, random_));
  EXPECT_THAT(plan.members[0].spec.name(), ::testing::MatchesRegex("stages-[0-9a-f]{6}-512-train"));
  LL_ASSERT_OK_AND_ASSIGN(const SubmitPlan again, PlanOf(request, random_));
  EXPECT_EQ(again.body_sha256, plan.body_sha256);
}

TEST_F(SubmissionTest, ATrainingGoesOnWithTheMethodOfItsSource) {
  const JobId id("job-0123456789ab");
  SourceJob source{id,
                   SpecFromProto(Spec("kind: train\nmodel: /m\nmethod: lora\nlora_rank: 4\n"
                                      "lora_alpha: 8\ncontext_length: 512\nrope: yarn\n")),
                   Checkpoint{10, 1, "/jobs/x/step-10"}, /*ended=*/true};
  sources_[id] = source;
  v1::SubmitRequest request;
  *request.mutable_spec() =
      Spec(absl::StrCat("job: ", id.value(), "\ndata: /d.bin\nstages: [1024, 2048]\n"));
  LL_ASSERT_OK_AND_ASSIGN(const SubmitPlan plan, PlanOf(request, random_));
  EXPECT_THAT(OutsideSources(plan.members), ElementsAre(id));
  LL_ASSERT_OK_AND_ASSIGN(const auto got, Admit(plan));
  EXPECT_EQ(got[0].admitted.resolved.adapter(), "/jobs/x/step-10");
  EXPECT_TRUE(got[0].admitted.core.source.empty());
  for (int i : {0, 1}) {
    EXPECT_EQ(got[i].admitted.resolved.model(), "/m");
    EXPECT_EQ(got[i].admitted.resolved.lora_rank(), 4);
    EXPECT_EQ(got[i].admitted.resolved.lora_alpha(), 8);
    EXPECT_EQ(got[i].admitted.resolved.rope(), "yarn");
  }
}

TEST_F(SubmissionTest, AnAdapterDoesNotBecomeAFullTraining) {
  const JobId id("job-0123456789ab");
  sources_[id] = SourceJob{id, SpecFromProto(Spec("kind: train\nmodel: /m\nmethod: lora\n")),
                           Checkpoint{10, 1, "/jobs/x/step-10"}, /*ended=*/true};
  const std::string job = absl::StrCat(kTrain, "job: ", id.value(), "\n");
  EXPECT_THAT(AdmitAll({{"a", absl::StrCat(job, "method: full\n")}}),
              StatusIs(kInvalid, absl::StrCat("a: method: expected a method with an adapter, as ",
                                              id.value(), " has, found full")));
  sources_[id].resolved.method = "full";
  EXPECT_THAT(AdmitAll({{"a", absl::StrCat(job, "method: lora\n")}}),
              StatusIs(kInvalid, "a: method: expected full"));
  LL_ASSERT_OK_AND_ASSIGN(const auto got, AdmitAll({{"a", job}}));
  EXPECT_EQ(got[0].admitted.resolved.method(), "full");
  EXPECT_EQ(got[0].admitted.resolved.model(), "/jobs/x/step-10");
}

TEST_F(SubmissionTest, AnUnfinishedSourceIsTakenNowOrAtItsEnd) {
  const JobId id("job-0123456789ab");
  sources_[id] = SourceJob{id, SpecFromProto(Spec(absl::StrCat("kind: train\n", kTrain))),
                           std::nullopt, /*ended=*/false};
  const std::string eval = absl::StrCat("kind: eval\neval_data: /d.bin\njob: ", id.value(), "\n");
  EXPECT_THAT(AdmitAll({{"e", eval}}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       absl::StrCat("e: job: ", id.value(),
                                    " has no checkpoint yet; wait for its "
                                    "first one, or name the job in `after` too")));
  const std::string later = absl::StrCat(eval, "after: [", id.value(), "]\n");
  LL_ASSERT_OK_AND_ASSIGN(auto got, AdmitAll({{"e", later}}));
  EXPECT_EQ(got[0].admitted.core.source, id);
  sources_[id].checkpoint = Checkpoint{5, 1, "/jobs/x/step-5"};
  LL_ASSERT_OK_AND_ASSIGN(got, AdmitAll({{"e", eval}}));
  EXPECT_EQ(got[0].admitted.resolved.adapter(), "/jobs/x/step-5");
  EXPECT_TRUE(got[0].admitted.core.source.empty());
  LL_ASSERT_OK_AND_ASSIGN(got, AdmitAll({{"e", later}}));
  EXPECT_EQ(got[0].admitted.core.source, id);  // not step 5: what it ends with
  sources_[id].resolved.kind = "eval";
  EXPECT_THAT(AdmitAll({{"e", later}}), StatusIs(kInvalid, "e: job: expected a training, found"));
}

}  // namespace
}  // namespace ll
