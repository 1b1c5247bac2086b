// Every file in deploy/recipes is a job that resolves, fits the hardware that its header names, and
// needs what its header says.
#include <cmath>
#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "model/plan/devices.h"
#include "model/plan/memory_plan.h"
#include "model/plan/models.h"
#include "model/plan/time_plan.h"

namespace ll {
namespace {

constexpr char kFolder[] = "deploy/recipes";

// What stands behind "# WHAT: " in the header; empty where nothing does.
std::string Header(const std::string& text, absl::string_view what) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::ConsumePrefix(&line, absl::StrCat("# ", what, ": "))) return std::string(line);
  }
  return "";
}

struct Hardware {
  int64_t count = 0;
  const Device* device = nullptr;
};

Hardware HardwareOf(const std::string& text) {  // "8 x A100-80"
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(Header(text, "Hardware"), absl::MaxSplits(" x ", 1));
  Hardware out;
  const DeviceKind* kind = FindDevice(parts.second);
  if (absl::SimpleAtoi(parts.first, &out.count) && kind != nullptr) out.device = &kind->device;
  return out;
}

class RecipesTest : public testing::TestWithParam<std::string> {};

TEST_P(RecipesTest, ResolvesFitsAndNeedsWhatItSays) {
  const std::string path = absl::StrCat(kFolder, "/", GetParam());
  LL_ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(path));
  EXPECT_EQ(Header(text, "Run"), "llctl submit -f " + path);
  std::vector<std::string> notes;
  const auto spec = ParseJobSpec(text, &notes);
  LL_ASSERT_OK(spec);
  EXPECT_THAT(notes, testing::IsEmpty());

  // A model that users register is planned by the shape that the header names.
  const std::string shape = Header(text, "Shape");
  const auto config = BuiltInModel(shape.empty() ? *spec->model : shape);
  ASSERT_TRUE(config.has_value());
  LL_ASSERT_OK_AND_ASSIGN(
      const JobSpec resolved,
      Resolve(*spec, {config->ParameterCount(), config->max_position_embeddings}));
  LL_ASSERT_OK(
      ExtendContext(*config, *resolved.context_length, RopeTypeFromName(*resolved.rope), 0));

  const Hardware hardware = HardwareOf(text);
  ASSERT_NE(hardware.device, nullptr) << Header(text, "Hardware");
  EXPECT_EQ(*resolved.gpus, hardware.count);
  const FitResult fit = Fits(*config, resolved, *hardware.device);
  EXPECT_TRUE(fit.fits) << fit.explanation;
  const double gigabytes = static_cast<double>(fit.needed_bytes) / 1e9;
  EXPECT_EQ(Header(text, "Memory"),
            absl::StrCat(static_cast<int>(std::lround(gigabytes)), " GB a GPU (forecast)"));

  const TimeForecast time =
      ForecastTime(*config, resolved, fit.recompute, RatesOf(hardware.device->kind));
  EXPECT_GT(time.step_seconds, 0);
  std::printf(
      "%-32s %2ld x %-17s %6.1f GB of %6.1f  recompute %-9s  %7.1f s a step  %7.0f tok/s  %6.1f "
      "h\n",
      GetParam().c_str(), static_cast<long>(hardware.count), hardware.device->kind.c_str(),
      gigabytes, static_cast<double>(fit.available_bytes) / 1e9, fit.recompute.c_str(),
      time.step_seconds, time.tokens_per_second, time.duration_seconds / 3600);
}

std::vector<std::string> RecipeNames() {
  std::vector<std::string> names;
  for (const std::string& name : ListDir(kFolder).value_or(std::vector<std::string>())) {
    if (absl::EndsWith(name, ".yaml")) names.push_back(name);
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(Recipes, RecipesTest, testing::ValuesIn(RecipeNames()));

TEST(RecipesFolderTest, HoldsThePapersRuns) { EXPECT_GE(RecipeNames().size(), 12u); }

TEST(RecipesFolderTest, LongLoraKeepsThePapersBatchAndRate) {
  for (const std::string& name : RecipeNames()) {
    if (!absl::StartsWith(name, "longlora-")) continue;
    LL_ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(absl::StrCat(kFolder, "/", name)));
    LL_ASSERT_OK_AND_ASSIGN(const JobSpec given, ParseJobSpec(text));
    const auto config = BuiltInModel(*given.model);
    ASSERT_TRUE(config.has_value()) << name;
    LL_ASSERT_OK_AND_ASSIGN(const JobSpec s, Resolve(given, {config->ParameterCount(), 4096}));
    EXPECT_EQ(s.global_batch_size, 64) << name;
    EXPECT_EQ(s.max_steps, 1000) << name;
    EXPECT_EQ(s.learning_rate, given.model == "70b" ? 1e-5 : 2e-5) << name;
    EXPECT_EQ(s.adam_beta2, 0.95) << name;
    EXPECT_EQ(s.lora_rank, 8) << name;
    EXPECT_EQ(s.attention, "s2") << name;
    EXPECT_EQ(s.max_grad_norm, 1.0) << name;
    EXPECT_TRUE(s.TrainsEmbedding() && s.TrainsNorm()) << name;
  }
}

}  // namespace
}  // namespace ll
