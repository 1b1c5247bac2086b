#include "model/spec/stages.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/status_matchers.h"
#include "gmock/gmock.h"

namespace ll {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

JobSpec Parse(const std::string& text) {
  auto spec = ParseJobSpec(text);
  EXPECT_TRUE(spec.ok()) << spec.status();
  return spec.ok() ? *spec : JobSpec();
}

// "name < after,after (job)", one for each member.
std::vector<std::string> Shape(const std::vector<StageJob>& jobs) {
  std::vector<std::string> lines;
  for (const StageJob& job : jobs) {
    lines.push_back(absl::StrCat(job.name, " < ", absl::StrJoin(job.spec.after, ","), " (",
                                 job.spec.job.value_or(""), ")"));
  }
  return lines;
}

const char kTwoStages[] =
    "name: long\nmodel: 7b\ncontext_length: 16384\nstages: [8192, 16384]\nmax_steps: 101\n"
    "gate: passkey>=0.9,ppl<=12.5\ndata: books\nlabels: {team: nlp}\nqueue: night\ngpus: 8\n";

TEST(StagesTest, TrainsEvaluatesAndMergesInOrder) {
  LL_ASSERT_OK_AND_ASSIGN(const auto jobs, ExpandStages(Parse(kTwoStages)));
  EXPECT_THAT(Shape(jobs),
              ElementsAre("8192-train <  ()", "8192-passkey < 8192-train (8192-train)",
                          "8192-perplexity < 8192-train (8192-train)",
                          "16384-train < 8192-train,8192-passkey,8192-perplexity (8192-train)",
                          "16384-passkey < 16384-train (16384-train)",
                          "16384-perplexity < 16384-train (16384-train)",
                          "merge < 16384-train,16384-passkey,16384-perplexity (16384-train)"));
  for (const StageJob& job : jobs) {
    EXPECT_EQ(job.spec.name, "long-" + job.name);
    EXPECT_EQ(job.spec.labels.at("graph"), "long");
    EXPECT_EQ(job.spec.labels.at("team"), "nlp");
    EXPECT_EQ(job.spec.queue, "night");
    EXPECT_THAT(job.spec.stages, IsEmpty());
    LL_EXPECT_OK(Validate(job.spec)) << job.name;
    LL_EXPECT_OK(Resolve(job.spec).status()) << job.name;
  }
  EXPECT_EQ(jobs[0].spec.labels.at("stage"), "8192");
  EXPECT_EQ(jobs[6].spec.labels.at("stage"), "merge");
}

TEST(StagesTest, EveryStageHasItsOwnLengthAndItsPartOfTheSteps) {
  LL_ASSERT_OK_AND_ASSIGN(const auto jobs, ExpandStages(Parse(kTwoStages)));
  const JobSpec &first = jobs[0].spec, &second = jobs[3].spec;
  EXPECT_EQ(first.context_length, 8192);
  EXPECT_EQ(second.context_length, 16384);
  EXPECT_EQ(first.max_steps, 50);
  EXPECT_EQ(second.max_steps, 51);
  EXPECT_EQ(first.gpus, 8);
  EXPECT_FALSE(first.gate.has_value());
  const JobSpec &passkey = jobs[4].spec, &perplexity = jobs[5].spec;
  EXPECT_EQ(passkey.gate, "passkey>=0.9");
  EXPECT_THAT(passkey.passkey_lengths, ElementsAre(16384));
  EXPECT_EQ(passkey.eval_context_size, 16384);
  EXPECT_EQ(perplexity.gate, "ppl<=12.5");
  EXPECT_EQ(perplexity.eval_data, "books");
  EXPECT_EQ(perplexity.eval_seq_len, 16384);
  EXPECT_FALSE(jobs[6].spec.gpus.has_value());  // one process merges
}

TEST(StagesTest, ItStartsFromWhatTheUserNames) {
  JobSpec spec = Parse(
      "model: 7b\nstages: [64, 128]\nadapter: /a\nafter: [job-1]\n"
      "after_any: [job-2]\nmax_seq_length: 100\nstage_steps: [7, 3]\n");
  LL_ASSERT_OK_AND_ASSIGN(auto jobs, ExpandStages(spec));
  EXPECT_THAT(Shape(jobs), ElementsAre("64-train < job-1 ()", "128-train < 64-train (64-train)",
                                       "merge < 128-train (128-train)"));
  EXPECT_EQ(jobs[0].spec.adapter, "/a");
  EXPECT_FALSE(jobs[1].spec.adapter.has_value());
  EXPECT_THAT(jobs[0].spec.after_any, ElementsAre("job-2"));
  EXPECT_THAT(jobs[1].spec.after_any, IsEmpty());
  EXPECT_EQ(jobs[0].spec.max_seq_length, 64);
  EXPECT_EQ(jobs[1].spec.max_seq_length, 100);
  EXPECT_EQ(jobs[0].spec.max_steps, 7);
  EXPECT_EQ(jobs[1].spec.max_steps, 3);
  spec.adapter.reset();
  spec.job = "job-9";  // goes on from an earlier graph's stage
  LL_ASSERT_OK_AND_ASSIGN(jobs, ExpandStages(spec));
  EXPECT_EQ(jobs[0].spec.job, "job-9");
  EXPECT_EQ(jobs[1].spec.job, "64-train");
}

TEST(StagesTest, BadStagesNameTheKey) {
  const struct {
    const char* text;
    const char* message;
  } cases[] = {
      {"stages: [2, 1]", "stages: expected rising context lengths, found 1 after 2"},
      {"stages: [64, 64]", "stages: expected rising context lengths, found 64 after 64"},
      {"stages: [64, 128]\nctx: 256",
       "stages: expected context_length (256) as the last one, found 128"},
      {"stages: [1, 128]", "stages: expected at least 2 tokens"},
      {"stages: [64]\nkind: eval", "stages: expected nothing for a job of kind eval"},
      {"stage_steps: [64]", "stage_steps: expected nothing without stages"},
      {"stages: [64, 128]\nstage_steps: [1]",
       "stage_steps: expected as many numbers as stages (2), found 1"},
      {"stages: [64, 128]\nstage_steps: [1, 2]\nmax_steps: 4",
       "stage_steps: expected numbers that add up to max_steps (4), found 3"},
      {"stages: [64, 128]\nmax_steps: 1", "max_steps: expected at least one step for each of 2"},
      {"stages: [64]\nnum_train_epochs: 2", "num_train_epochs: expected nothing for a training in"},
      {"stages: [64]\nlabels: {graph: x}", "labels: expected none named graph"},
      {"stages: [64]\ngate: effective_context>=64", "gate: expected metrics of one length"},
      {"stages: [64]\ngate: loss<1", "gate: expected a metric"},
      {"stages: [64]\ngate: ppl<9\nsft: true", "eval_data: expected a token file, because gate"},
      {"gate: ppl<9", "gate: expected nothing for a job of kind train without stages"},
      {"kind: merge\ngate: ppl<9", "gate: expected nothing for a job of kind merge"},
      {"kind: eval\ngate: passkey>=1", "gate: expected what eval_task perplexity measures: ppl"},
  };
  for (const auto& c : cases) {
    const absl::Status status = Validate(Parse(c.text));
    EXPECT_THAT(status, StatusIs(kInvalid, c.message)) << c.text;
    EXPECT_EQ(ErrorField(status),
              std::string(c.message).substr(0, std::string(c.message).find(':')));
  }
  LL_EXPECT_OK(Validate(Parse("kind: eval\neval_task: passkey\ngate: passkey>=0.9")));
  LL_EXPECT_OK(Validate(Parse("stages: [64]\ngate: ppl<9\nsft: true\neval_data: f")));
}

}  // namespace
}  // namespace ll
