// A job's curves as exact values and as a picture. Pure functions, thread-safe.
#pragma once

#include <string>
#include <vector>

#include "model/report/curve_figure.h"
#include "proto/job.pb.h"

namespace ll {

// Every step of every job (Get with history), a row each: shortest texts that read back as the same
// numbers. The first line names the columns.
std::string StepsCsv(const std::vector<v1::Job>& jobs);

// Loss, throughput, gradient norm and learning rate over the steps.
CurveFigure StepsFigure(const std::vector<v1::Job>& jobs);

}  // namespace ll
