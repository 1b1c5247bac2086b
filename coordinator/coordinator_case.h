// A whole coordinator in process, driven over gRPC by a client and by an agent that follows a
// script.
#pragma once

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "coordinator/coordinator.h"
#include "coordinator/testing.h"

namespace ll {

class CoordinatorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    LL_ASSERT_OK(MakeDirs(model()));
    LL_ASSERT_OK(WriteFileAtomic(
        model() + "/config.json",
        R"({"model_type":"llama","architectures":["LlamaForCausalLM"],"vocab_size":512,
        "hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,
        "num_key_value_heads":2,"max_position_embeddings":256,"rms_norm_eps":1e-5,"hidden_act":"silu"})"));
    LL_ASSERT_OK(WriteFileAtomic(data(), "0123"));
  }
  void Start(Coordinator::WrapStore wrap = nullptr) {
    LL_ASSERT_OK(under_test_.Start(std::move(wrap)));
    Connect();
  }
  void Connect() {
    jobs_ = v1::Jobs::NewStub(under_test_.Channel());
    admin_ = v1::Admin::NewStub(under_test_.Channel());
  }
  void Restart() {
    under_test_.Stop();
    Start();
  }
  std::string model() { return under_test_.dir() + "/model"; }
  std::string data() { return under_test_.dir() + "/data.bin"; }

  v1::SubmitRequest Request(int gpus = 1, const std::string& request_id = "") {
    v1::SubmitRequest request;
    request.mutable_spec()->set_model(model());
    request.mutable_spec()->set_data(data());
    request.mutable_spec()->set_context_length(1024);
    request.mutable_spec()->set_max_steps(3);
    request.mutable_spec()->set_gpus(gpus);
    request.set_request_id(request_id);
    return request;
  }
  absl::StatusOr<v1::SubmitResponse> Submit(const v1::SubmitRequest& request) {
    return CallOnce<v1::SubmitResponse>(*jobs_, &v1::Jobs::Stub::Submit, request);
  }
  absl::StatusOr<v1::Job> Get(const std::string& id, bool history = false) {
    v1::GetRequest request;
    request.set_job_id(id);
    request.set_history(history);
    return CallOnce<v1::Job>(*jobs_, &v1::Jobs::Stub::Get, request);
  }
  void AwaitState(const std::string& id, v1::JobState state) {
    const absl::Time until = absl::Now() + kTestPatience;
    absl::StatusOr<v1::Job> job = Get(id);
    while (absl::Now() < until && job.ok() && job->state() != state) {
      absl::SleepFor(absl::Milliseconds(5));
      job = Get(id);
    }
    LL_ASSERT_OK(job);
    ASSERT_EQ(v1::JobState_Name(job->state()), v1::JobState_Name(state)) << job->reason();
  }
  std::unique_ptr<ScriptedAgent> Agent(const std::string& name, int slots,
                                       const std::string& incarnation = "i1") {
    auto agent = std::make_unique<ScriptedAgent>(under_test_.Channel(), name, incarnation);
    agent->AddSlots(slots);
    return agent;
  }

  CoordinatorUnderTest under_test_;
  std::unique_ptr<v1::Jobs::Stub> jobs_;
  std::unique_ptr<v1::Admin::Stub> admin_;
};

// A line of events.jsonl.
inline std::string StepLine(int step) {
  return absl::StrCat(R"({"event":"step","time":"2026-01-02T03:04:05Z","rank":0,"step":)", step,
                      R"(,"loss":)", 3.0 - step, R"(,"tokens":1024,"tokens_per_second":100})",
                      "\n");
}

// The checkpoint of step 3, at `path`.
inline void ReportCheckpoint(ScriptedAgent& agent, const v1::StartGang& gang,
                             const std::string& path) {
  v1::AgentMessage message;
  v1::CheckpointReport* report = agent.NewReport(message, gang, 0)->mutable_checkpoint();
  report->set_step(3);
  report->set_path(path);
  agent.Send(message);
}

}  // namespace ll
