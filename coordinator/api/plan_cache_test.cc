// Remembered forecasts are those that would have been made.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/status_matchers.h"
#include "coordinator/api/admission.h"
#include "coordinator/api/job_plan.h"
#include "model/plan/models.h"

namespace ll {
namespace {

class PlanCacheTest : public ::testing::Test {
 protected:
  PlanCacheTest() {
    remembering_.plans = &cache_;
    Worker worker;
    worker.name = WorkerId("w1");
    for (int i = 0; i < 8; ++i) worker.slots.push_back({i, "H100", 80'000'000'000});
    view_.workers = {worker};
    request_.spec.set_model("7b");
    request_.spec.set_data("/data.bin");
    request_.spec.set_context_length(16384);
    request_.dry_run = true;
  }
  int64_t Lookups(const std::string& result) const {
    for (const auto& family : registry_.Collect()) {
      for (const auto& metric : family.metric) {
        if (family.name == "ll_forecast_cache_lookups_total" && metric.label[0].value == result)
          return static_cast<int64_t>(metric.counter.value);
      }
    }
    return -1;
  }
  // What an answer says, as text.
  static std::string Told(const absl::StatusOr<Admitted>& got) {
    if (!got.ok()) {
      const absl::Status& refused = got.status();
      return absl::StrCat(refused.raw_code(), refused.message(), "|", ErrorField(refused), "|",
                          ErrorHint(refused));
    }
    return absl::StrCat(got->resolved.ShortDebugString(), "|", got->forecast.ShortDebugString(),
                        "|", got->core.required_slot_bytes, "|",
                        absl::FormatDuration(got->core.forecast_duration), "|",
                        absl::StrJoin(got->core.slot_kinds, ","), "|", got->core.name);
  }
  // Admits with the memory; the answer must be the one without. True: it had been there.
  bool Remembered() {
    const int64_t before = Lookups("hit");
    const std::string expected = Told(Admit(request_, view_, plain_));
    EXPECT_EQ(Told(Admit(request_, view_, remembering_)), expected);
    return Lookups("hit") > before;
  }

  prometheus::Registry registry_;
  PlanCache cache_{registry_, 16};
  ClusterView view_;
  AdmissionRequest request_;
  AdmissionOptions plain_, remembering_;
};

TEST_F(PlanCacheTest, WhatChangesNoPlanIsTheSameQuestion) {
  EXPECT_FALSE(Remembered());
  EXPECT_TRUE(Remembered());
  v1::JobSpec& spec = request_.spec;
  const std::function<void()> changes[] = {
      [&] { spec.set_name("another"); },
      [&] { spec.set_data("/other.bin"); },
      [&] { spec.set_seed(7); },
      [&] { spec.set_priority(9); },
      [&] { spec.set_queue("night"); },
      [&] { spec.add_after("job-1"); },
      [&] { spec.add_after_any("job-2"); },
      [&] { spec.set_max_retries(9); },
      [&] { spec.set_min_runtime(60); },
      [&] { spec.set_ttl_after_finished(60); },
      [&] { spec.set_max_headless(3600); },
      [&] { (*spec.mutable_labels())["a"] = "b"; },
      [&] { request_.now += absl::Hours(1); },
      [&] { request_.access.tenant = "red"; },
  };
  for (const auto& change : changes) {
    change();
    EXPECT_TRUE(Remembered()) << spec.ShortDebugString();
  }
  EXPECT_EQ(Lookups("miss"), 1);
}

TEST_F(PlanCacheTest, WhatChangesThePlanIsAnother) {
  EXPECT_FALSE(Remembered());
  v1::JobSpec& spec = request_.spec;
  Calibration measured;
  measured.gemm = 3e14;
  const auto measure = [&measured](const std::string&) { return std::make_optional(measured); };
  double factor = 1.1;
  const auto memory = [&factor](const std::string&, const std::string&, const std::string&) {
    return factor;
  };
  const std::function<void()> changes[] = {
      [&] { spec.set_model("13b"); },
      [&] { spec.set_context_length(32768); },
      [&] { spec.set_method("lora"); },
      [&] { spec.set_gpus(4); },
      [&] { spec.set_deadline(864000); },
      [&] { spec.set_max_runtime(864000); },
      [&] { spec.set_recompute("full"); },
      [&] { spec.set_max_steps(777); },
      [&] { view_.workers[0].slots.pop_back(); },
      [&] { view_.workers[0].slots[0].memory_bytes = 141'000'000'000; },
      [&] { view_.workers.push_back(view_.workers[0]); },
      [&] { plain_.measured = remembering_.measured = measure; },
      [&] { measured.gemm = 4e14; },
      [&] { plain_.memory_factor = remembering_.memory_factor = memory; },
      [&] { factor = 1.2; },
      [&] { view_.workers.clear(); },
  };
  for (size_t i = 0; i < std::size(changes); ++i) {
    changes[i]();
    EXPECT_FALSE(Remembered()) << "change " << i;
    EXPECT_TRUE(Remembered()) << "change " << i;
  }
}

TEST_F(PlanCacheTest, ARefusalIsRememberedToo) {
  request_.spec.set_model("70b");
  request_.spec.set_context_length(1 << 20);
  request_.spec.set_gpus(1);
  EXPECT_FALSE(Remembered());
  EXPECT_FALSE(Admit(request_, view_, remembering_).ok());
  EXPECT_TRUE(Remembered());
  request_.spec.set_force(true);
  EXPECT_FALSE(Remembered());
  EXPECT_TRUE(Admit(request_, view_, remembering_).ok());
}

TEST_F(PlanCacheTest, TheOneNotUsedForLongestIsForgotten) {
  for (int i = 0; i < 16; ++i) {
    request_.spec.set_max_steps(100 + i);
    EXPECT_FALSE(Remembered());
  }
  request_.spec.set_max_steps(100);
  EXPECT_TRUE(Remembered());
  request_.spec.set_max_steps(200);
  EXPECT_FALSE(Remembered());  // and takes the place of 101
  request_.spec.set_max_steps(100);
  EXPECT_TRUE(Remembered());
  request_.spec.set_max_steps(101);
  EXPECT_FALSE(Remembered());
}

// A submit may bring a quarter of a megabyte along: of such few are kept.
TEST_F(PlanCacheTest, LargeQuestionsAreForgottenSooner) {
  PlanCache small(registry_, 16, 1 << 20);
  remembering_.plans = &small;
  const auto ask = [this](int number) {
    nlohmann::json config = LlamaConfigToJson(*BuiltInModel("7b"));
    config["x"] = std::string(200'000, 'x');
    config["number"] = number;
    request_.spec.clear_model();
    request_.spec.set_model_config(config.dump());
    return Remembered();
  };
  EXPECT_FALSE(ask(1));
  EXPECT_TRUE(ask(1));
  EXPECT_FALSE(ask(2));
  EXPECT_FALSE(ask(1));
}

}  // namespace
}  // namespace ll
