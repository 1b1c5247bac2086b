// A synthetic trace of training jobs, and what a scheduling policy makes of it.
//
// Shapes as published for GPU clusters (Jeon et al., "Analysis of Large-Scale Multi-Tenant GPU
// Clusters for DNN Training Workloads", ATC 2019; Hu et al., "Characterization and Prediction of
// Deep Learning Workloads", SC 2021): Poisson arrivals with a day's rhythm, most jobs on one GPU
// while the few large gangs use most GPU time, run times log-normal over four decades.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"

namespace ll::trace {

struct TraceJob {
  absl::Duration arrival;
  int gpus = 1;
  int priority = 0;  // higher first
  int user = 0;
  absl::Duration run;       // on its GPUs, in all
  absl::Duration estimate;  // what the scheduler is told
};

struct TraceOptions {
  uint64_t seed = 0;
  int jobs = 2000;
  int gpus = 128;
  double load = 0.85;           // GPU time asked for by GPU time there is, while jobs arrive
  double estimate_sigma = 0.2;  // of log(estimate / run)
  // Measured values of estimate / run to draw from, in place of the sigma; empty: none.
  std::vector<double> estimate_ratios;
};

// In order of arrival.
std::vector<TraceJob> MakeTrace(const TraceOptions& options);

struct Interval {
  absl::Duration begin, end;
};
// When each job ran; several intervals where it was preempted.
using Timeline = std::vector<std::vector<Interval>>;

// ---- Reference policies, over a cluster that is nothing but a number of GPUs. None preempts.
Timeline RunFifo(const std::vector<TraceJob>& jobs, int gpus);
Timeline RunStrictPriority(const std::vector<TraceJob>& jobs, int gpus);  // then by arrival
// Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995.
Timeline RunEasy(const std::vector<TraceJob>& jobs, int gpus);
Timeline RunEasyPriority(const std::vector<TraceJob>& jobs, int gpus);  // its queue by priority

// The coordinator's own core, hosts of 8 GPUs. A preempted gang takes `checkpoint_time` to give
// back its GPUs and loses nothing.
Timeline RunCore(const std::vector<TraceJob>& jobs, int gpus, absl::Duration checkpoint_time,
                 bool priorities);

struct Summary {
  double mean_wait = 0, p95_wait = 0;  // seconds neither run nor done: turnaround - run
  double high_wait = 0;                // mean of the jobs with a priority
  double utilisation = 0;              // of GPU time until the last arrival
  double fairness = 0;                 // Jain's index of the users' mean bounded slowdowns
  int preemptions = 0;
};
// Aborts where a job did not get exactly its run time, or GPUs were oversubscribed.
Summary Summarise(const std::vector<TraceJob>& jobs, const Timeline& timeline, int gpus);

}  // namespace ll::trace
