// Waiting time and utilisation of the coordinator's core beside FIFO, EASY backfill and strict
// priority on synthetic traces; Markdown on standard output.
//   build/bench/trace_study [SEEDS [JOBS [RATIOS]]]   (default 10 seeds of 2,000 jobs on 128 GPUs)
// Run-time estimates are drawn from RATIOS (default tests/trace/residuals.csv), a CSV file whose
// last column is forecast / measured step time, as plan_matrix.py --residuals writes it; then, for
// comparison, from a log-normal error of σ = 0.5.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "base/check.h"
#include "tests/trace/trace.h"

namespace ll::trace {
namespace {

// Half the width of the 95 % interval of a mean (Student's t).
double HalfWidth(const std::vector<double>& values, double mean) {
  constexpr double kT[] = {0,     12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262,
                           2.228, 2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093};
  const size_t n = values.size();
  if (n < 2) return 0;
  double squares = 0;
  for (double v : values) squares += (v - mean) * (v - mean);
  return kT[std::min<size_t>(n - 1, 19)] *
         std::sqrt(squares / static_cast<double>(n - 1) / static_cast<double>(n));
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

struct Policy {
  const char* name;
  std::function<Timeline(const std::vector<TraceJob>&, int)> run;
};

std::vector<double> Of(const std::vector<Summary>& runs, double Summary::*member, double scale) {
  std::vector<double> values;
  for (const Summary& run : runs) values.push_back(run.*member * scale);
  return values;
}

void PrintCell(const std::vector<double>& values, int digits) {
  const double mean = Mean(values);
  std::printf(" %.*f ± %.*f |", digits, mean, digits, HalfWidth(values, mean));
}

// The last column, without remarks and the header line.
std::vector<double> ReadRatios(const char* path) {
  std::ifstream file(path);
  std::vector<double> ratios;
  bool header = true;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#' || std::exchange(header, false)) continue;
    ratios.push_back(std::stod(line.substr(line.rfind(',') + 1)));
  }
  LL_CHECK_MSG(!ratios.empty(), "no ratios in the file");
  return ratios;
}

// Seed by seed.
std::vector<double> Less(std::vector<double> values, const std::vector<double>& others) {
  for (size_t i = 0; i < values.size(); ++i) values[i] -= others[i];
  return values;
}

// How run times are estimated.
struct Estimates {
  std::string name;
  double sigma = 0;
  std::vector<double> ratios;
};

void Study(int seeds, int jobs, const std::vector<double>& measured) {
  const std::vector<Policy> policies = {
      {"FIFO", RunFifo},
      {"strict priority", RunStrictPriority},
      {"EASY backfill", RunEasy},
      {"EASY by priority", RunEasyPriority},
      {"ours, no priorities",
       [](const auto& trace, int gpus) { return RunCore(trace, gpus, absl::Seconds(30), false); }},
      {"ours",
       [](const auto& trace, int gpus) { return RunCore(trace, gpus, absl::Seconds(30), true); }}};
  std::printf("seeds 0 to %d, %d jobs each, 128 GPUs\n\n", seeds - 1, jobs);
  std::printf(
      "| estimates | load | policy | mean wait, min | p95 wait, min | with a priority, min | "
      "utilisation, %% | fairness | preemptions | mean wait less EASY's, min | p95 less EASY's, "
      "min "
      "| utilisation less EASY's, %% |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|---|\n");
  const std::vector<Estimates> all = {{"measured", 0, measured}, {"σ = 0.5", 0.5, {}}};
  for (const Estimates& estimates : all) {
    for (const double load : {0.7, 0.85, 1.0}) {
      std::map<std::string, std::vector<Summary>> results;
      for (int seed = 0; seed < seeds; ++seed) {
        TraceOptions options;
        options.seed = static_cast<uint64_t>(seed);
        options.jobs = jobs;
        options.load = load;
        options.estimate_sigma = estimates.sigma;
        options.estimate_ratios = estimates.ratios;
        const std::vector<TraceJob> trace = MakeTrace(options);
        for (const Policy& policy : policies) {
          results[policy.name].push_back(
              Summarise(trace, policy.run(trace, options.gpus), options.gpus));
        }
      }
      const std::vector<double> easy = Of(results["EASY backfill"], &Summary::mean_wait, 1.0 / 60);
      for (const Policy& policy : policies) {
        const std::vector<Summary>& runs = results[policy.name];
        std::printf("| %s | %.2f | %s |", estimates.name.c_str(), load, policy.name);
        const std::vector<double> waits = Of(runs, &Summary::mean_wait, 1.0 / 60);
        PrintCell(waits, 1);
        PrintCell(Of(runs, &Summary::p95_wait, 1.0 / 60), 0);
        PrintCell(Of(runs, &Summary::high_wait, 1.0 / 60), 1);
        PrintCell(Of(runs, &Summary::utilisation, 100), 1);
        PrintCell(Of(runs, &Summary::fairness, 1), 3);
        int preemptions = 0;
        for (const Summary& run : runs) preemptions += run.preemptions;
        std::printf(" %d |", preemptions);
        PrintCell(Less(waits, easy), 1);
        PrintCell(Less(Of(runs, &Summary::p95_wait, 1.0 / 60),
                       Of(results["EASY backfill"], &Summary::p95_wait, 1.0 / 60)),
                  0);
        PrintCell(Less(Of(runs, &Summary::utilisation, 100),
                       Of(results["EASY backfill"], &Summary::utilisation, 100)),
                  2);
        std::printf("\n");
        std::fflush(stdout);
      }
    }
  }
}

}  // namespace
}  // namespace ll::trace

int main(int argc, char** argv) {
  ll::trace::Study(argc > 1 ? std::atoi(argv[1]) : 10, argc > 2 ? std::atoi(argv[2]) : 2000,
                   ll::trace::ReadRatios(argc > 3 ? argv[3] : "tests/trace/residuals.csv"));
  return 0;
}
