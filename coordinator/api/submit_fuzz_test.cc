// Whatever arrives as a submit is decoded, checked and admitted or refused in one line, soon, and
// without a crash (under the sanitizers at night). Inputs are mutated submits: their bytes, or
// their fields with values that have hurt others. LL_FUZZ_SECONDS says how long, LL_SEED repeats.
#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/field_error.h"
#include "base/ids.h"
#include "coordinator/api/admission.h"
#include "coordinator/api/convert.h"
#include "coordinator/api/submission.h"
#include "proto/jobs.pb.h"

namespace ll {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

std::string FromEnv(const char* name, const std::string& otherwise) {
  const char* value = getenv(name);
  return value == nullptr || *value == '\0' ? otherwise : value;
}

class SubmitFuzz : public ::testing::Test {
 protected:
  SubmitFuzz() : random_(Seed()) {
    Worker worker;
    worker.name = WorkerId("w1");
    for (int i = 0; i < 8; ++i) worker.slots.push_back({i, "H100", 80'000'000'000});
    view_.workers = {worker};
    view_.data["bible"] = {"bible", "/data/bible.bin", true};
    view_.models["tiny"] = {"tiny", "/models/tiny", false,
                            R"({"model_type":"llama","architectures":["LlamaForCausalLM"],
        "vocab_size":512,"hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,
        "num_attention_heads":4,"num_key_value_heads":2,"max_position_embeddings":256,
        "rms_norm_eps":1e-5,"hidden_act":"silu"})"};
  }
  static uint64_t Seed() {
    uint64_t seed = 0;
    if (!absl::SimpleAtoi(FromEnv("LL_SEED", ""), &seed)) seed = SystemRandom().Next() % 1'000'000;
    std::cout << "seed " << seed << " (LL_SEED=" << seed << " repeats it)" << std::endl;
    return seed;
  }
  // Seeds of every kind of job.
  v1::SubmitAllRequest Whole() {
    v1::SubmitAllRequest request;
    for (const char* kind : {"train", "eval", "merge", "generate", "verify", "stages", "sft"}) {
      v1::SubmitMember& member = *request.add_members();
      member.set_name(kind);
      v1::JobSpec& spec = *member.mutable_spec();
      spec.set_model("tiny");
      spec.set_context_length(1024);
      spec.set_gpus(2);
      spec.set_max_steps(10);
      const std::string what = kind;
      if (what == "stages") {
        spec.add_stages(512);
        spec.add_stages(1024);
        spec.set_gate("passkey>=0.9");
      } else if (what == "sft") {
        spec.set_sft(true);
        spec.add_after("train");
        (*spec.mutable_labels())["team"] = "nlp";
      } else {
        spec.set_kind(kind);
      }
      if (what == "eval" || what == "merge") spec.set_job("train");
      if (what == "merge") spec.set_merge_out("out");
    }
    request.set_request_id("r1");
    return request;
  }
  uint64_t Below(uint64_t most) { return random_.Below(most); }

  std::string HostileText() {
    static const std::vector<std::string>* texts =
        new std::vector<std::string>{"",
                                     "..",
                                     "/../../etc/passwd",
                                     "/proc/self/root/etc/shadow",
                                     std::string("a\0b", 3),
                                     "\x1b[31m\r\n",
                                     "; rm -rf / #",
                                     "$(id)",
                                     "--trainer=/bin/sh",
                                     "LD_PRELOAD=/x.so",
                                     "%2e%2e%2f",
                                     "\xff\xfe",
                                     "{\"model_type\":\"llama\"",
                                     "{\"a\":" + std::string(2000, '['),
                                     std::string(70'000, 'x'),
                                     "job-0123456789ab",
                                     "nan",
                                     "passkey>=1e999",
                                     "s3://b/k",
                                     "tiny"};
    return (*texts)[Below(texts->size())];
  }
  int64_t HostileNumber() {
    static const int64_t numbers[] = {0,         1,         -1,        2,
                                      7,         INT32_MAX, INT32_MIN, INT64_MAX,
                                      INT64_MIN, 1 << 20,   4'000'001, 1'000'000'007};
    return numbers[Below(std::size(numbers))];
  }
  double HostileReal() {
    static const double reals[] = {0, -0.0, 1e308, -1e308, 1e-320, NAN, INFINITY, -INFINITY, 0.5};
    return reals[Below(std::size(reals))];
  }
  void SetField(Message& message, const FieldDescriptor& field) {
    const google::protobuf::Reflection& r = *message.GetReflection();
    if (field.is_map()) return;
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        return field.is_repeated() ? r.AddString(&message, &field, HostileText())
                                   : r.SetString(&message, &field, HostileText());
      case FieldDescriptor::CPPTYPE_INT64:
        return field.is_repeated() ? r.AddInt64(&message, &field, HostileNumber())
                                   : r.SetInt64(&message, &field, HostileNumber());
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return field.is_repeated() ? void() : r.SetDouble(&message, &field, HostileReal());
      case FieldDescriptor::CPPTYPE_BOOL:
        return field.is_repeated() ? void() : r.SetBool(&message, &field, Below(2) == 0);
      default:
        return;
    }
  }
  void MutateFields(v1::SubmitAllRequest& request) {
    for (uint64_t i = 0; i <= Below(4); ++i) {
      v1::JobSpec& spec =
          *request.mutable_members(static_cast<int>(Below(request.members_size())))->mutable_spec();
      const auto& descriptor = *v1::JobSpec::descriptor();
      SetField(spec, *descriptor.field(static_cast<int>(Below(descriptor.field_count()))));
    }
    if (Below(8) == 0) request.mutable_members(0)->set_name(HostileText());
    if (Below(8) == 0) request.set_request_id(HostileText());
  }
  void MutateBytes(std::string& bytes) {
    for (uint64_t i = 0; i <= Below(6) && !bytes.empty(); ++i) {
      const size_t at = Below(bytes.size());
      switch (Below(5)) {
        case 0:
          bytes[at] = static_cast<char>(Below(256));
          break;
        case 1:
          bytes.insert(at, 1 + Below(8), static_cast<char>(Below(256)));
          break;
        case 2:
          bytes.erase(at, 1 + Below(16));
          break;
        case 3:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << Below(8)));
          break;
        default:
          bytes.insert(at, bytes.substr(Below(bytes.size()), Below(200)));
      }
    }
  }
  // What the service does with it. Its answer in a word, for the count.
  std::string Serve(const v1::SubmitAllRequest& request, bool alone) {
    absl::StatusOr<SubmitPlan> plan;
    if (alone && request.members_size() > 0) {
      v1::SubmitRequest one;
      *one.mutable_spec() = request.members(0).spec();
      one.set_request_id(request.request_id());
      plan = PlanOf(one, random_);
    } else {
      plan = PlanOf(request);
    }
    absl::Status status = plan.status();
    if (plan.ok()) {
      const auto admitted = AdmitMembers(*plan, {}, view_, AdmissionOptions(),
                                         absl::FromUnixSeconds(1'800'000'000), random_, Access());
      status = admitted.status();
      if (admitted.ok()) {
        for (const AdmittedMember& member : *admitted) {
          EXPECT_GE(member.admitted.core.gpus, 1);
          EXPECT_FALSE(member.admitted.payload->resolved_spec.empty());
        }
        return "OK";
      }
    }
    // The planner's hint is a list of what fits, a command a line.
    const std::string message(status.message()), hint = ErrorHint(status);
    EXPECT_LT(std::count(hint.begin(), hint.end(), '\n'), 8) << hint;
    EXPECT_EQ(message.substr(0, message.size() - hint.size()).find('\n'), std::string::npos)
        << message;
    EXPECT_LT(message.size(), 4000u) << message.substr(0, 200);
    EXPECT_NE(status.code(), absl::StatusCode::kInternal) << message;
    EXPECT_NE(status.code(), absl::StatusCode::kUnknown) << message;
    return absl::StatusCodeToString(status.code());
  }

  SeededRandom random_;
  ClusterView view_;
};

TEST_F(SubmitFuzz, EverySubmitIsAdmittedOrRefusedInOneLine) {
  const google::protobuf::LogSilencer quiet;  // it tells of every text that is no UTF-8
  double seconds = 2;
  ASSERT_TRUE(absl::SimpleAtod(FromEnv("LL_FUZZ_SECONDS", "2"), &seconds));
  const absl::Time end = absl::Now() + absl::Seconds(seconds);
  std::map<std::string, int64_t> answers;
  int64_t inputs = 0;
  absl::Duration longest;
  const v1::SubmitAllRequest whole = Whole();
  EXPECT_EQ(Serve(whole, /*alone=*/true), "OK");
  for (absl::Time now = absl::Now(); now < end && !HasFailure(); ++inputs) {
    v1::SubmitAllRequest request = whole;
    const uint64_t kept = 1 + Below(3);  // few, so that each gets far
    while (request.members_size() > static_cast<int>(kept)) {
      request.mutable_members()->SwapElements(
          static_cast<int>(Below(static_cast<uint64_t>(request.members_size()))),
          request.members_size() - 1);
      request.mutable_members()->RemoveLast();
    }
    std::string before = "does not parse";
    if (Below(3) > 0) MutateFields(request);
    bool parsed = true;
    if (Below(2) == 0) {
      std::string bytes = SerializeDeterministic(request);
      MutateBytes(bytes);
      request.Clear();
      parsed = request.ParseFromString(bytes);
    }
    ++answers[parsed ? Serve(request, Below(2) == 0) : before];
    const absl::Time after = absl::Now();
    longest = std::max(longest, after - now);
    now = after;
  }
  std::cout << inputs << " submits, the longest took " << absl::FormatDuration(longest) << ":";
  for (const auto& [answer, count] : answers) std::cout << " " << answer << " " << count;
  std::cout << std::endl;
  EXPECT_LT(longest, absl::Seconds(5));
  EXPECT_GT(answers["OK"], 0);
  EXPECT_GT(answers["INVALID_ARGUMENT"], 0);
}

}  // namespace
}  // namespace ll
