#include "coordinator/api/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/gpu_kind.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {
using ::testing::HasSubstr;

class AdmissionTest : public ::testing::Test {
 protected:
  AdmissionTest() {
    Worker worker;
    worker.name = WorkerId("w1");
    worker.slots = {{0, "cpu", 8'000'000'000}, {1, "cpu", 8'000'000'000}};
    view_.workers = {worker};
    view_.data["bible"] = {"bible", "/data/bible.bin", true};
    request_.spec.set_model("/models/tiny");
    request_.spec.set_context_length(8192);
  }
  absl::StatusOr<Admitted> Try() { return Admit(request_, view_, options_); }

  ClusterView view_;
  AdmissionRequest request_;
  AdmissionOptions options_;
};

TEST_F(AdmissionTest, AnElasticTrainingHasItsRangeAndItsRows) {
  request_.spec.set_gpus(1);
  request_.spec.set_max_gpus(2);
  LL_ASSERT_OK_AND_ASSIGN(Admitted got, Try());
  EXPECT_EQ(got.core.gpus, 1);
  EXPECT_EQ(got.core.max_gpus, 2);
  EXPECT_EQ(got.core.batch_rows, 8);  // 1 x 8 x the fewest ranks
  request_.spec.set_max_gpus(1);
  LL_ASSERT_OK_AND_ASSIGN(got, Try());
  EXPECT_EQ(got.core.max_gpus, 0);
  request_.spec.set_gpus(3);
  EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kInvalidArgument, "gpus"));
}

TEST_F(AdmissionTest, FillsInDefaultsAndTheClustersData) {
  LL_ASSERT_OK_AND_ASSIGN(Admitted got, Try());
  EXPECT_EQ(got.resolved.data(), "/data/bible.bin");
  EXPECT_EQ(got.resolved.method(), "longlora");
  EXPECT_EQ(got.core.gpus, 1);
  EXPECT_EQ(got.core.max_retries, 3);
  EXPECT_EQ(got.core.max_runtime, absl::InfiniteDuration());
  EXPECT_EQ(got.core.required_slot_bytes, 0);  // the model's shape is not known
  EXPECT_FALSE(request_.spec.has_data());      // what was submitted stays as it was
}

TEST_F(AdmissionTest, TheSchedulersKeysReachTheCore) {
  LL_ASSERT_OK_AND_ASSIGN(Admitted plain, Try());
  EXPECT_FALSE(plain.core.min_runtime.has_value());  // the coordinator's
  request_.spec.add_after("job-1");
  request_.spec.add_after_any("job-2");
  request_.spec.set_min_runtime(0);
  request_.spec.set_priority(7);
  request_.spec.set_queue("night");
  LL_ASSERT_OK_AND_ASSIGN(Admitted got, Try());
  EXPECT_EQ(got.core.after, std::vector<JobId>{JobId("job-1")});
  EXPECT_EQ(got.core.after_any, std::vector<JobId>{JobId("job-2")});
  EXPECT_EQ(got.core.min_runtime, absl::ZeroDuration());
  EXPECT_EQ(got.core.priority, 7);
  EXPECT_EQ(got.core.queue, "night");
}

TEST_F(AdmissionTest, KnownShapeWithoutWeightsSaysWhatToDo) {
  request_.spec.set_model("70b");
  const auto got = Try();
  EXPECT_THAT(got,
              StatusIs(absl::StatusCode::kFailedPrecondition, "weights of 70b are not registered"));
  EXPECT_THAT(ErrorHint(got.status()), HasSubstr("llctl models add 70b PATH"));
  EXPECT_EQ(ErrorField(got.status()), "model");
}

TEST_F(AdmissionTest, WhatNoWorkerHoldsIsRefusedWithTheReason) {
  request_.spec.set_model("70b");
  request_.spec.set_context_length(32768);
  request_.dry_run = true;  // weights may be missing, memory may not
  const auto got = Try();
  EXPECT_THAT(got, StatusIs(absl::StatusCode::kFailedPrecondition, "no worker can hold this job"));
  EXPECT_THAT(std::string(got.status().message()), HasSubstr("GB"));
}

TEST_F(AdmissionTest, FittingJobsTellTheSchedulerWhatTheyNeed) {
  view_.workers[0].slots = {{0, "H200", 141'000'000'000}, {1, "cpu", 1'000'000'000}};
  view_.models["7b"] = {"7b", "/models/7b", false, ""};
  LlamaConfig config;
  request_.spec.set_model("7b");
  request_.dry_run = true;
  view_.models.clear();  // the built-in shape
  LL_ASSERT_OK_AND_ASSIGN(Admitted got, Try());
  EXPECT_GT(got.forecast.bytes_per_rank(), 10'000'000'000);
  EXPECT_GT(got.core.required_slot_bytes, got.forecast.bytes_per_rank());
  EXPECT_LE(got.core.required_slot_bytes, 141'000'000'000);
  EXPECT_EQ(got.core.slot_kinds, std::vector<std::string>{"H200"});
}

TEST_F(AdmissionTest, TheUsersTypesOfGpus) {
  view_.workers[0].slots = {
      {0, "H200", 141'000'000'000}, {1, "A100-80", 80'000'000'000}, {2, "cpu", 512'000'000'000}};
  request_.spec.set_model("7b");
  request_.dry_run = true;
  LL_ASSERT_OK_AND_ASSIGN(const Admitted any, Try());
  EXPECT_FALSE(any.core.kinds_named);
  EXPECT_THAT(any.core.other_kinds, ::testing::IsEmpty());
  using Kinds = std::vector<std::string>;
  struct Case {
    Kinds types, allowed, others;
    const char* planned;
  };
  const Case cases[] = {
      {{"H200"}, {"H200"}, {"A100-80"}, "H200"},
      // A family, whatever the case; the smaller device is planned for where both will do.
      {{"a100"}, {"A100-40", "A100-80"}, {"H200"}, "A100-80"},
      {{"h200", "A100-80"}, {"H200", "A100-80"}, {}, "A100-80"},
      {{"cpu"}, {"cpu"}, {}, "cpu"},
  };
  for (const Case& c : cases) {
    request_.spec.clear_gpu_types();
    for (const std::string& type : c.types) request_.spec.add_gpu_types(type);
    LL_ASSERT_OK_AND_ASSIGN(const Admitted got, Try());
    EXPECT_EQ(got.core.slot_kinds, c.allowed);
    EXPECT_TRUE(got.core.kinds_named);
    EXPECT_EQ(got.core.other_kinds, c.others);
    EXPECT_EQ(got.forecast.plan().device(), c.planned);
  }
  // Not one that is too small, which the plan leaves out.
  request_.spec.set_context_length(100000);
  request_.spec.set_gpus(1);
  request_.spec.clear_gpu_types();
  for (const char* type : {"H200", "A100"}) request_.spec.add_gpu_types(type);
  view_.workers[0].slots[1].memory_bytes = 20'000'000'000;
  LL_ASSERT_OK_AND_ASSIGN(const Admitted large, Try());
  EXPECT_EQ(large.core.slot_kinds, Kinds{"H200"});

  request_.spec.clear_gpu_types();
  request_.spec.add_gpu_types("H1000");
  auto refused = Try();
  EXPECT_THAT(refused,
              StatusIs(absl::StatusCode::kInvalidArgument, "types among A100-40, A100-80"));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("\"H1000\""));
  EXPECT_EQ(ErrorField(refused.status()), "gpu_types");
  request_.spec.set_gpu_types(0, "B200");  // plans are made for it, but there is none
  refused = Try();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition,
                                "no worker has slots of kind B200; there are A100-80, H200, cpu"));
  EXPECT_EQ(ErrorField(refused.status()), "gpu_types");
  // Before the first worker: planned for that device.
  view_.workers.clear();
  request_.spec.set_context_length(8192);
  LL_ASSERT_OK_AND_ASSIGN(const Admitted early, Try());
  EXPECT_EQ(early.forecast.plan().device(), "B200");
  EXPECT_EQ(early.core.slot_kinds, Kinds{"B200"});
}

TEST_F(AdmissionTest, WhatIsNotPlannedHasItsTypesToo) {
  view_.workers[0].slots = {{0, "H200", 141'000'000'000}, {1, "H100", 80'000'000'000}};
  request_.spec.Clear();
  request_.spec.set_kind("eval");
  request_.spec.set_eval_task("passkey");
  request_.spec.set_model("/models/tiny");
  request_.spec.add_passkey_lengths(4096);
  request_.spec.add_gpu_types("H100");
  LL_ASSERT_OK_AND_ASSIGN(const Admitted got, Try());
  EXPECT_EQ(got.core.slot_kinds, std::vector<std::string>{"H100"});
  EXPECT_EQ(got.core.other_kinds, std::vector<std::string>{"H200"});
}

TEST_F(AdmissionTest, ThePlanStandsInTheResolvedSpec) {
  view_.workers[0].slots.clear();
  for (int i = 0; i < 8; ++i) view_.workers[0].slots.push_back({i, "A100-80", 80'000'000'000});
  request_.spec.set_model("7b");
  request_.spec.set_context_length(65536);
  request_.spec.set_gpus(1);
  request_.dry_run = true;
  LL_ASSERT_OK_AND_ASSIGN(Admitted got, Try());
  EXPECT_EQ(got.resolved.recompute(), "full");
  EXPECT_FALSE(request_.spec.has_recompute());
  const v1::PlannedRun& plan = got.forecast.plan();
  EXPECT_EQ(plan.device(), "A100-80");
  EXPECT_EQ(plan.recompute(), "full");
  const v1::MemoryParts& m = plan.memory();
  EXPECT_EQ(m.weights() + m.trained() + m.activations() + m.workspace() + m.head() +
                m.communication() + m.runtime() + m.snapshot(),
            got.forecast.bytes_per_rank());
  const v1::StepParts& s = plan.step();
  EXPECT_NEAR(s.gemm() + s.attention() + s.recompute() + s.memory_traffic() + s.communication() +
                  s.optimizer() + s.offload(),
              plan.step_seconds(), 1e-9);
  EXPECT_EQ(got.core.forecast_duration, absl::Seconds(got.forecast.duration_seconds()));
  EXPECT_LT(got.forecast.duration_low_seconds(), got.forecast.duration_seconds());
  EXPECT_EQ(got.forecast.runner_up().recompute(), "selective");
  EXPECT_THAT(got.forecast.runner_up_reason(), HasSubstr("more a rank"));
  EXPECT_EQ(got.forecast.cost(), 0);

  // What was given stays, and money is counted where there is a price.
  options_.prices.per_gpu_hour["A100-80"] = 2;
  request_.spec.set_gpus(8);
  request_.spec.set_context_parallel(4);
  LL_ASSERT_OK_AND_ASSIGN(got, Try());
  EXPECT_EQ(got.forecast.plan().context_parallel(), 4);
  EXPECT_NEAR(got.forecast.cost(), 2 * got.forecast.gpu_hours(), 1e-9);
}

TEST_F(AdmissionTest, GpusLeftOpenAreTheFewestThatHoldIt) {
  view_.workers[0].slots.clear();
  for (int i = 0; i < 8; ++i) view_.workers[0].slots.push_back({i, "H100", 80'000'000'000});
  request_.spec.set_model("70b");
  request_.spec.set_context_length(32768);
  request_.dry_run = true;
  LL_ASSERT_OK_AND_ASSIGN(Admitted got, Try());
  EXPECT_GT(got.resolved.gpus(), 1);
  EXPECT_EQ(got.core.gpus, got.resolved.gpus());
  EXPECT_EQ(got.resolved.global_batch_size(), 8);  // of one GPU: the batch is no plan's to change
}

TEST_F(AdmissionTest, ARefusalTeaches) {
  view_.workers[0].slots = {{0, "H100", 80'000'000'000}};
  request_.spec.set_model("70b");
  request_.spec.set_context_length(32768);
  request_.spec.set_gpus(1);
  request_.dry_run = true;
  const auto refused = Try();
  EXPECT_EQ(ErrorField(refused.status()), "context_length");
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition, "most goes to weights"));
  EXPECT_THAT(ErrorHint(refused.status()), HasSubstr("llctl submit --model 70b --ctx 32768"));
  EXPECT_THAT(ErrorHint(refused.status()), HasSubstr("--set quantization=nf4"));
  // What it proposes is admitted.
  request_.spec.set_quantization("nf4");
  LL_EXPECT_OK(Try());
  // Forced, it runs all the same, and the record says so.
  request_.spec.clear_quantization();
  request_.spec.set_force(true);
  LL_ASSERT_OK_AND_ASSIGN(const Admitted forced, Try());
  EXPECT_TRUE(forced.forecast.forced());
  EXPECT_THAT(forced.forecast.explanation(), HasSubstr("forced although it does not fit"));
  EXPECT_EQ(forced.core.required_slot_bytes, 80'000'000'000);
  EXPECT_TRUE(forced.resolved.force());
}

TEST_F(AdmissionTest, ADeadlineThatCannotBeMetIsRefused) {
  view_.workers[0].slots = {{0, "H100", 80'000'000'000}};
  request_.spec.set_model("7b");
  request_.spec.set_context_length(32768);
  request_.spec.set_deadline(600);
  request_.dry_run = true;
  const auto refused = Try();
  EXPECT_EQ(ErrorField(refused.status()), "deadline");
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition, "more than it may"));
}

TEST_F(AdmissionTest, ADeviceThatIsTooOldIsRefusedByName) {
  view_.workers[0].slots = {{0, "V100-32", 32'000'000'000}};
  request_.spec.set_model("7b");
  request_.dry_run = true;
  EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kFailedPrecondition, "V100-32 needs sm_80+"));
}

// As agents tell of it and as users name it: the catalogue's name is the only one.
TEST_F(AdmissionTest, AnOldDeviceHasOneNameEverywhere) {
  request_.spec.set_model("7b");
  request_.dry_run = true;
  struct Case {
    const char *driver, *type, *kind;
    int64_t mebibytes;
  };
  const Case cases[] = {{"Tesla V100-SXM2-32GB", "V100", "V100-32", 32768},
                        {"Tesla V100S-PCIE-32GB", "v100-32", "V100-32", 32510},
                        {"Tesla V100-PCIE-16GB", "V100-16", "V100-16", 16160},
                        {"NVIDIA Tesla V100-SXM2-16GB", "V100", "V100-16", 16384},
                        {"Tesla T4", "t4", "T4", 15360}};
  for (const Case& c : cases) {
    const int64_t bytes = c.mebibytes << 20;
    const std::string kind = GpuKind(c.driver, bytes);
    EXPECT_EQ(kind, c.kind);
    view_.workers[0].slots = {{0, kind, bytes}};
    request_.spec.clear_gpu_types();
    EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                absl::StrCat(c.kind, " needs sm_80+")));
    request_.spec.add_gpu_types(c.type);
    // Whether a worker has it or not.
    for (const char* there : {c.kind, "A100-80"}) {
      view_.workers[0].slots[0].kind = there;
      const auto refused = Try();
      EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition, "unsupported: "));
      EXPECT_THAT(std::string(refused.status().message()), HasSubstr("needs sm_80+"));
      EXPECT_EQ(ErrorField(refused.status()), "gpu_types");
    }
  }
  // Beside one that works it is left out.
  view_.workers[0].slots = {{0, "V100-32", 32'000'000'000}, {1, "A100-80", 80'000'000'000}};
  request_.spec.clear_gpu_types();
  request_.spec.add_gpu_types("V100");
  request_.spec.add_gpu_types("A100");
  LL_ASSERT_OK_AND_ASSIGN(const Admitted got, Try());
  EXPECT_EQ(got.core.slot_kinds, std::vector<std::string>{"A100-80"});
}

TEST_F(AdmissionTest, WithoutAnyWorkerTheCatalogueDecides) {
  view_.workers.clear();
  request_.dry_run = true;
  request_.spec.set_model("7b");
  LL_EXPECT_OK(Try());
  request_.spec.set_model("70b");
  request_.spec.set_method("full");
  EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kFailedPrecondition, "no known kind of device"));
}

TEST_F(AdmissionTest, NoDataSaysHowToSetADefault) {
  view_.data.clear();
  const auto got = Try();
  EXPECT_THAT(got, StatusIs(absl::StatusCode::kFailedPrecondition, "no data"));
  EXPECT_THAT(ErrorHint(got.status()), HasSubstr("llctl data add NAME PATH --default"));
}

TEST_F(AdmissionTest, BadInputNamesTheKey) {
  struct Case {
    std::function<void(v1::JobSpec&)> set;
    const char* field;
  };
  const Case cases[] = {
      {[](v1::JobSpec& s) { s.set_model("no-such-model"); }, "model"},
      {[](v1::JobSpec& s) { s.set_model("../../etc/passwd"); }, "model"},
      {[](v1::JobSpec& s) { s.set_model("/models/../etc"); }, "model"},
      {[](v1::JobSpec& s) { s.set_model(std::string("/m\0x", 4)); }, "model"},
      {[](v1::JobSpec& s) { s.set_data("nothing"); }, "data"},
      {[](v1::JobSpec& s) { s.set_data("rel/ative.bin"); }, "data"},
      {[](v1::JobSpec& s) { s.set_context_length(-5); }, "context_length"},
      {[](v1::JobSpec& s) { s.set_context_length(0); }, "context_length"},
      {[](v1::JobSpec& s) { s.set_method("magic"); }, "method"},
      {[](v1::JobSpec& s) { s.set_gpus(0); }, "gpus"},
      {[](v1::JobSpec& s) { s.set_kind("dance"); }, "kind"},
      {[](v1::JobSpec& s) { s.set_name("two\nlines"); }, "name"},
      {[](v1::JobSpec& s) { s.set_name("red \033[31m"); }, "name"},
      {[](v1::JobSpec& s) { s.set_name(std::string(257, 'n')); }, "name"},
      {[](v1::JobSpec& s) { (*s.mutable_labels())["a\nb"] = "c"; }, "labels"},
      {[](v1::JobSpec& s) { (*s.mutable_labels())["a"] = "c\r"; }, "labels"},
      {[](v1::JobSpec& s) { (*s.mutable_labels())["a"] = std::string(1025, 'c'); }, "labels"},
      {[](v1::JobSpec& s) { (*s.mutable_labels())[std::string(129, 'a')] = "c"; }, "labels"},
      {[](v1::JobSpec& s) {
         for (int i = 0; i < 65; ++i) (*s.mutable_labels())[absl::StrCat("k", i)] = "v";
       },
       "labels"},
  };
  for (const Case& c : cases) {
    AdmissionRequest request = request_;
    c.set(request.spec);
    const auto got = Admit(request, view_, options_);
    ASSERT_FALSE(got.ok()) << c.field;
    EXPECT_EQ(ErrorField(got.status()), c.field) << got.status();
    EXPECT_EQ(std::string(got.status().message()).find('\n'), std::string::npos);
  }
}

TEST_F(AdmissionTest, ReadsAConfigThatLiesOnThisHost) {
  TempDir dir;
  options_.paths_are_local = true;
  view_.data["bible"].path = dir.path();
  request_.spec.set_model(dir.path());
  EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kNotFound, "config.json"));
  request_.spec.set_model("/no/such/folder");
  EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kNotFound, "a path that exists"));

  request_.spec.set_model(dir.path());
  LL_ASSERT_OK(WriteFileAtomic(dir.path() + "/config.json", "{ not json"));
  EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kInvalidArgument, "model"));
  LL_ASSERT_OK(WriteFileAtomic(
      dir.path() + "/config.json",
      R"({"model_type":"llama","architectures":["LlamaForCausalLM"],"vocab_size":512,"hidden_size":64,
          "intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
          "max_position_embeddings":256,"rms_norm_eps":1e-5,"hidden_act":"silu","tie_word_embeddings":true})"));
  LL_ASSERT_OK_AND_ASSIGN(Admitted got, Try());
  EXPECT_GT(got.core.required_slot_bytes, 0);
  request_.spec.set_context_length(128);
  EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kInvalidArgument, "original context of 256"));
}

TEST_F(AdmissionTest, ATokenizerIsAPathOnTheWorkers) {
  request_.spec.set_tokenizer("smollm");
  EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kInvalidArgument,
                              "tokenizer: expected an absolute path on the workers"));
  request_.spec.set_tokenizer("/models/smollm");
  LL_EXPECT_OK(Try().status());
}

TEST_F(AdmissionTest, NotifyIsTheLabelNotify) {
  request_.spec.set_notify("ops");
  EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kInvalidArgument, "notify: expected no endpoint"));
  options_.check_notify = [](const std::string& names, const std::string&) {
    return names == "ops" ? absl::OkStatus() : absl::InvalidArgumentError("labels.notify: unknown");
  };
  LL_ASSERT_OK_AND_ASSIGN(const Admitted got, Try());
  EXPECT_EQ(got.core.labels.at("notify"), "ops");
  (*request_.spec.mutable_labels())["notify"] = "others";
  EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kInvalidArgument, "what the label notify says"));
  request_.spec.clear_labels();
  request_.spec.set_notify("http://me/");
  EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kInvalidArgument, "unknown"));
}

TEST_F(AdmissionTest, AFifoInPlaceOfAConfigDoesNotHang) {
  TempDir dir;
  options_.paths_are_local = true;
  view_.data["bible"].path = dir.path();
  ASSERT_EQ(mkfifo((dir.path() + "/config.json").c_str(), 0600), 0);
  request_.spec.set_model(dir.path());
  EXPECT_FALSE(Try().ok());
}

TEST_F(AdmissionTest, AnEvaluationTakesItsJobsCheckpoint) {
  request_.spec.Clear();
  request_.spec.set_kind("eval");
  request_.spec.set_job("job-1");
  SourceJob source{JobId("job-1"), {}, std::nullopt};
  source.resolved.model = "/models/tiny";
  source.resolved.method = "longlora";
  source.resolved.context_length = 1024;
  request_.source = source;
  EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kFailedPrecondition, "no checkpoint yet"));
  Checkpoint checkpoint;
  checkpoint.path = "/jobs/job-1/step-10";
  checkpoint.host = "h1";
  request_.source->checkpoint = checkpoint;
  LL_ASSERT_OK_AND_ASSIGN(Admitted got, Try());
  EXPECT_EQ(got.resolved.model(), "/models/tiny");
  EXPECT_EQ(got.resolved.adapter(), "/jobs/job-1/step-10");
  EXPECT_EQ(got.resolved.eval_data(), "/data/bible.bin");
  EXPECT_EQ(got.core.hosts, std::vector<std::string>{"h1"});
  request_.source->resolved.tokenizer = "/models/tokenizer.json";
  request_.source->resolved.method = "full";
  LL_ASSERT_OK_AND_ASSIGN(got, Try());
  EXPECT_EQ(got.resolved.tokenizer(), "/models/tokenizer.json");
  EXPECT_EQ(got.resolved.model(), "/jobs/job-1/step-10");
  EXPECT_FALSE(got.resolved.has_adapter());
}

TEST_F(AdmissionTest, RetrievalNeedsNoData) {
  view_.data.clear();
  request_.spec.Clear();
  request_.spec.set_kind("eval");
  request_.spec.set_model("/models/tiny");
  EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kFailedPrecondition, "eval_data"));
  request_.spec.set_eval_task("passkey");
  request_.spec.add_passkey_lengths(4096);
  LL_ASSERT_OK_AND_ASSIGN(Admitted got, Try());
  EXPECT_FALSE(got.resolved.has_eval_data());
  EXPECT_EQ(got.resolved.passkey_depths(), 5);
  EXPECT_EQ(got.resolved.eval_num_tests(), 1);
  EXPECT_EQ(got.resolved.seed(), 0);
  request_.spec.set_eval_task("topics");
  LL_ASSERT_OK_AND_ASSIGN(got, Try());
  EXPECT_EQ(got.resolved.topic_lengths_size(), 5);
}

TEST_F(AdmissionTest, AMergeTakesItsJobsCheckpointAndNoData) {
  request_.spec.Clear();
  request_.spec.set_kind("merge");
  EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kInvalidArgument, "job: expected a job or"));
  request_.spec.set_job("job-1");
  SourceJob source{JobId("job-1"), {}, Checkpoint{}};
  source.resolved.model = "/models/tiny";
  source.resolved.method = "longqlora";
  source.resolved.context_length = 1024;
  source.checkpoint->path = "/jobs/job-1/step-10";
  source.checkpoint->host = "h1";
  request_.source = source;
  LL_ASSERT_OK_AND_ASSIGN(Admitted got, Try());
  EXPECT_EQ(got.resolved.model(), "/models/tiny");
  EXPECT_EQ(got.resolved.adapter(), "/jobs/job-1/step-10");
  EXPECT_EQ(got.resolved.merge_out(), "merged");
  EXPECT_FALSE(got.resolved.has_eval_data()) << "nothing is measured unless asked";
  EXPECT_FALSE(got.resolved.has_context_length()) << "the checkpoint says it";
  EXPECT_EQ(got.core.hosts, std::vector<std::string>{"h1"});
  EXPECT_EQ(got.core.required_slot_bytes, 0);
  request_.spec.set_eval_data("bible");
  LL_ASSERT_OK_AND_ASSIGN(got, Try());
  EXPECT_EQ(got.resolved.eval_data(), "/data/bible.bin");
  request_.spec.set_gpus(2);
  EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kInvalidArgument, "gpus: expected 1"));
  request_.spec.set_gpus(1);
  for (const char* out : {"a/b", "..", "/tmp/../etc/x", ".hidden"}) {
    request_.spec.set_merge_out(out);
    EXPECT_THAT(Try(), StatusIs(absl::StatusCode::kInvalidArgument, "merge_out")) << out;
  }
}

}  // namespace
}  // namespace ll
