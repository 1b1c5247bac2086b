// A forecast as JSON with the field names of proto/job.proto's Forecast, so that llctl, which plans
// without a coordinator, and the coordinator make the same message of it. Pure functions,
// thread-safe.
#pragma once

#include <string>

#include "model/plan/planner.h"
#include "model/plan/prices.h"
#include "nlohmann/json.hpp"

namespace ll {

// Message PlannedRun.
nlohmann::ordered_json RunJson(const PlannedRun& run, const Cluster& cluster);
// Message Forecast. `forced`: the chosen plan does not fit and is to run all the same.
nlohmann::ordered_json ForecastJson(const PlanChoice& choice, const Cluster& cluster,
                                    const Prices& prices, bool forced = false);

// "a rank needs 53.1 GB (activations 30.1 GB, weights 13.5 GB, …) of 76.8 GB that H100 offers; 8
// GPUs: …".
std::string ExplainRun(const PlannedRun& run, const Cluster& cluster);

}  // namespace ll
