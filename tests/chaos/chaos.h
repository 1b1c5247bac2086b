// What the tests of the reliability targets share: their two sizes, and the line "CHAOS {json}" of
// each measurement, which run.py collects.
#pragma once

#include <grpcpp/client_context.h>
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"

namespace ll {

inline bool Full() {
  const char* value = getenv("LL_CHAOS");
  return value != nullptr && std::string(value) == "full";
}
template <typename T>
T Size(T in_every_run, T in_full) {
  return Full() ? in_full : in_every_run;
}

inline void Note(const std::string& target, nlohmann::ordered_json values) {
  nlohmann::ordered_json line = {{"target", target}, {"full", Full()}};
  line.update(values);
  std::cout << "CHAOS " << line.dump() << std::endl;
}

inline double Percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values.empty()
             ? 0
             : values[std::min(values.size() - 1,
                               static_cast<size_t>(share * static_cast<double>(values.size())))];
}

inline std::unique_ptr<grpc::ClientContext> Context(absl::Duration deadline = absl::Seconds(5)) {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(deadline));
  return context;
}

}  // namespace ll
