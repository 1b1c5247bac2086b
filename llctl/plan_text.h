// A forecast as tables for people.
#pragma once

#include <string>
#include <vector>

#include "llctl/output.h"
#include "llctl/plan_local.h"
#include "proto/job.pb.h"

namespace ll {

// The chosen plan beside the runner-up, line by line, with what each takes.
void PrintForecast(const v1::Forecast& forecast, Output& output);

// One line a device.
void PrintDevices(const std::vector<LocalPlan>& plans, Output& output);

// "GPUs 8: data 4 x context 2, ZeRO 1, recompute full".
std::string RunText(const v1::PlannedRun& run);

// What a job cost beside what was forecast: "step 8.2s (forecast 7.9s, +4 %), peak 61.2 GB (…)";
// empty where nothing has been measured or forecast.
std::string AgainstActualText(const v1::Job& job);

}  // namespace ll
