// llctl plot: exact values, and a picture whose pixels are looked at.
#include <png.h>

#include <cmath>
#include <limits>

#include "absl/strings/str_split.h"
#include "llctl/cli_case.h"
#include "llctl/drawing_png.h"
#include "llctl/plot_data.h"

namespace ll {
namespace {
using ::testing::HasSubstr;
using ::testing::StartsWith;

v1::Job Trained(int steps) {
  v1::Job job;
  job.set_job_id("job-000000000001");
  job.mutable_spec()->set_name("long");
  for (int i = 1; i <= steps; ++i) {
    v1::StepRecord* step = job.add_steps();
    step->set_step(i);
    step->set_epoch(1);
    step->set_loss(2 + 1.0 / i);
    step->set_grad_norm(0.1 * i);
    step->set_learning_rate(2e-5);
    step->set_tokens_per_second(1000 + i);
    step->set_tokens(8192);
    step->set_step_seconds(0.1);
    step->mutable_time()->set_seconds(1'700'000'000 + i);
  }
  return job;
}

struct Pixels {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;
  const uint8_t* At(int x, int y) const { return &rgb[(static_cast<size_t>(y) * width + x) * 3]; }
};

Pixels ReadPng(const std::string& bytes) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  Pixels out;
  if (!png_image_begin_read_from_memory(&image, bytes.data(), bytes.size())) return out;
  image.format = PNG_FORMAT_RGB;
  out.width = static_cast<int>(image.width);
  out.height = static_cast<int>(image.height);
  out.rgb.resize(PNG_IMAGE_SIZE(image));
  if (!png_image_finish_read(&image, nullptr, out.rgb.data(), 0, nullptr)) out.width = 0;
  return out;
}

TEST(PlotTest, CsvReadsBackAsTheSameNumbers) {
  v1::Job job = Trained(3);
  job.mutable_steps(1)->set_loss(std::numeric_limits<double>::quiet_NaN());
  job.mutable_steps(2)->set_mfu(1.0 / 3);
  const std::vector<std::string> lines = absl::StrSplit(StepsCsv({job}), '\n');
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_THAT(lines[0], StartsWith("job_id,step,epoch,time,loss,"));
  const std::vector<std::string> third = absl::StrSplit(lines[3], ',');
  const std::vector<std::string> names = absl::StrSplit(lines[0], ',');
  ASSERT_EQ(third.size(), names.size());
  EXPECT_EQ(std::stod(third[4]), 2 + 1.0 / 3);
  EXPECT_EQ(std::stod(third[10]), 1.0 / 3);
  EXPECT_THAT(lines[2], HasSubstr(",nan,"));
  EXPECT_THAT(lines[1], StartsWith("job-000000000001,1,1,2023-11-14T22:13:21.000Z,3,0.1,2e-05,8192,"
                                   "0.1,1001,,0"));
}

TEST(PlotTest, PngHasTheLineWhereItBelongs) {
  Drawing drawing{.width = 100, .height = 60};
  drawing.lines.push_back({{{10, 10}, {90, 10}}, "#ff0000", 4});
  drawing.lines.push_back({{{10, 50}, {90, 50}}, "#0000ff", 4});
  drawing.texts.push_back({50, 35, "MMMM", 14, "#000000", TextAnchor::kMiddle});
  LL_ASSERT_OK_AND_ASSIGN(const std::string png, DrawingPng(drawing, 2));
  const Pixels pixels = ReadPng(png);
  ASSERT_EQ(pixels.width, 200);
  ASSERT_EQ(pixels.height, 120);
  const auto color = [&](int x, int y) {
    const uint8_t* p = pixels.At(x, y);
    return std::vector<int>{p[0], p[1], p[2]};
  };
  EXPECT_EQ(color(100, 20), (std::vector<int>{255, 0, 0}));
  EXPECT_EQ(color(100, 100), (std::vector<int>{0, 0, 255}));
  EXPECT_EQ(color(2, 2), (std::vector<int>{255, 255, 255}));
  int dark_left = 0, dark_right = 0;
  for (int y = 40; y < 80; ++y) {
    for (int x = 0; x < 200; ++x)
      if (pixels.At(x, y)[0] < 80) (x < 100 ? dark_left : dark_right)++;
  }
  EXPECT_GT(dark_left, 100);
  EXPECT_NEAR(dark_left, dark_right, dark_left / 4) << "the text stands in the middle";
}

TEST(PlotTest, LongLinesAndOddTextsAreDrawn) {
  Drawing drawing{.width = 400, .height = 60};
  DrawnLine line{{}, "#000000", 1};
  for (int i = 0; i < 5000; ++i) line.points.emplace_back(i * 0.08, 30 + 20 * std::sin(i * 0.1));
  drawing.lines.push_back(line);
  drawing.texts.push_back({-50, 5000, "outside \xff\xc3 Ω", 14, "#000000", TextAnchor::kStart});
  LL_EXPECT_OK(DrawingPng(drawing, 1).status());
  drawing.lines[0].color = "red";
  EXPECT_THAT(DrawingPng(drawing, 1).status().message(), HasSubstr("expected #rrggbb, found red"));
  EXPECT_FALSE(DrawingPng({.width = 200'000, .height = 10}, 1).ok());
}

TEST_F(CliTest, PlotWritesWhatTheEndingSays) {
  coordinator_.job = Trained(50);
  const std::string id = coordinator_.job.job_id();
  const Outcome png = Run({"plot", id, "-o", folder_.path() + "/loss.png"});
  EXPECT_EQ(png.code, 0) << png.err;
  EXPECT_EQ(png.out, folder_.path() + "/loss.png\n");
  LL_ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(folder_.path() + "/loss.png"));
  EXPECT_EQ(ReadPng(bytes).width, 2400);
  EXPECT_EQ(Run({"-o", "json", "plot", id, id, "-o", folder_.path() + "/two.svg"}).code, 0);
  LL_ASSERT_OK_AND_ASSIGN(const std::string svg, ReadFile(folder_.path() + "/two.svg"));
  EXPECT_THAT(svg, HasSubstr("long (job-000000000001)"));
  const Outcome csv = Run({"plot", id, "--out", "-"});
  EXPECT_EQ(csv.out, StepsCsv({coordinator_.job}));
}

TEST_F(CliTest, ExportWritesAnEventFile) {
  coordinator_.job = Trained(2);
  coordinator_.job.mutable_submitted()->set_seconds(1'700'000'000);
  v1::WatchResponse event;
  (*event.mutable_event()->mutable_fields())["event"].set_string_value("eval");
  (*event.mutable_event()->mutable_fields())["step"].set_number_value(2);
  (*event.mutable_event()->mutable_fields())["perplexity"].set_number_value(9.5);
  coordinator_.job.set_epoch(1);
  coordinator_.watches = {{event}};
  const Outcome run =
      Run({"export", "job-000000000001", "--tensorboard", folder_.path() + "/runs"});
  EXPECT_EQ(run.code, 0) << run.err;
  const std::string file =
      folder_.path() + "/runs/job-000000000001/events.out.tfevents.1700000000.ll-export";
  EXPECT_EQ(run.out, file + "\n");
  LL_ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(file));
  for (const char* text :
       {"brain.Event:2", "train/loss", "train/tokens_per_second", "eval/perplexity"})
    EXPECT_THAT(bytes, HasSubstr(text));
  EXPECT_EQ(Run({"export", "job-none", "--tensorboard", folder_.path()}).code, kExitNotFound);
  coordinator_.job.clear_steps();
  coordinator_.watches.clear();
  EXPECT_EQ(Run({"export", "job-000000000001", "--tensorboard", folder_.path()}).code,
            kExitRefused);
}

TEST_F(CliTest, PlotRefuses) {
  const Outcome other = Run({"plot", "job-000000000001", "-o", "loss.gif"});
  EXPECT_EQ(other.code, kExitUsage);
  EXPECT_EQ(other.err,
            "llctl: error: out: expected a file that ends in .png, .svg or .csv, or - for CSV on "
            "stdout, found loss.gif; for the format of messages put -o before the command\n");
  const Outcome none = Run({"plot", "job-000000000001", "-o", "-"});
  EXPECT_EQ(none.code, kExitRefused);
  EXPECT_THAT(none.err, HasSubstr("the job has no steps yet"));
  EXPECT_EQ(Run({"plot", "job-none", "-o", "-"}).code, kExitNotFound);
  coordinator_.job = Trained(2);
  EXPECT_EQ(Run({"plot", "job-000000000001", "-o", folder_.path() + "/none/a.csv"}).code,
            kExitUsage);
}

}  // namespace
}  // namespace ll
