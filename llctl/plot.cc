// llctl plot
#include <CLI/CLI.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "llctl/drawing_png.h"
#include "llctl/errors.h"
#include "llctl/job_ref.h"
#include "llctl/plot_data.h"
#include "llctl/session.h"

namespace ll {
namespace {

constexpr double kPngPixelsAUnit = 2;

struct PlotOptions {
  std::vector<std::string> job_ids;
  std::string file;
};

enum class PlotKind { kCsv, kSvg, kPng };

absl::StatusOr<PlotKind> PlotKindOf(const std::string& file) {
  const std::string lower = absl::AsciiStrToLower(file);
  if (file == "-" || absl::EndsWith(lower, ".csv")) return PlotKind::kCsv;
  if (absl::EndsWith(lower, ".svg")) return PlotKind::kSvg;
  if (absl::EndsWith(lower, ".png")) return PlotKind::kPng;
  return MakeFieldError({"out", "a file that ends in .png, .svg or .csv, or - for CSV on stdout",
                         OneLine(file), "for the format of messages put -o before the command"});
}

absl::StatusOr<std::string> PlotBytes(PlotKind kind, const std::vector<v1::Job>& jobs) {
  if (kind == PlotKind::kCsv) return StepsCsv(jobs);
  const Drawing drawing = LayOut(StepsFigure(jobs));
  if (kind == PlotKind::kSvg) return DrawingSvg(drawing);
  return DrawingPng(drawing, kPngPixelsAUnit);
}

absl::StatusOr<int> RunPlot(const PlotOptions& options, Session& session) {
  LL_ASSIGN_OR_RETURN(const PlotKind kind, PlotKindOf(options.file));
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> ids, JobIdsOf(options.job_ids, *client));
  std::vector<v1::Job> jobs;
  size_t steps = 0;
  for (const std::string& job_id : ids) {
    v1::GetRequest request;
    request.set_job_id(job_id);
    request.set_history(true);
    LL_ASSIGN_OR_RETURN(v1::Job job, client->Call(client->jobs(), &v1::Jobs::Stub::Get, request));
    steps += job.steps_size();
    jobs.push_back(std::move(job));
  }
  if (steps == 0) {
    return FieldStatus(absl::StatusCode::kFailedPrecondition, "job",
                       absl::StrCat(options.job_ids.size() == 1 ? "the job has" : "these jobs have",
                                    " no steps yet"),
                       "llctl why JOB says what it waits for");
  }
  LL_ASSIGN_OR_RETURN(const std::string bytes, PlotBytes(kind, jobs));
  Output& output = session.output();
  if (options.file == "-") {
    output.stream() << bytes;
    return kExitSuccess;
  }
  LL_RETURN_IF_ERROR(AsUsageError(WriteFileAtomic(options.file, bytes)));
  if (output.is_table() || output.format() == OutputFormat::kName) {
    output.stream() << options.file << "\n";
  } else {
    output.PrintValue({{"file", options.file}, {"jobs", ids}, {"steps", steps}});
  }
  return kExitSuccess;
}

}  // namespace

void AddPlotCommand(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<PlotOptions>();
  CLI::App* command = app.add_subcommand(
      "plot", "Write a job's curves to a file: loss, throughput, gradient norm, learning rate.");
  command
      ->add_option("JOB", options->job_ids,
                   "Job ids, or names that one job has; several are drawn over each other.")
      ->required();
  command
      ->add_option("-o,--out", options->file,
                   "Where to, and by its ending what: .png and .svg are pictures, .csv has every "
                   "step's exact values; - is CSV on stdout.")
      ->required()
      ->type_name("FILE");
  command->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunPlot(*options, session); };
  });
}

}  // namespace ll
