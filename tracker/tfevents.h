// TensorBoard's event files: records framed with masked CRC-32C sums, each an `Event` message. Pure
// functions, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace ll {

// Length (8 bytes, little endian), its sum, the data, their sum.
std::string TfRecord(absl::string_view data);

// The record that a file begins with.
std::string TfEventsHeader(absl::Time time);

// One record with all values of a step; empty where there are none. Values become floats.
std::string TfScalars(absl::Time time, int64_t step,
                      const std::vector<std::pair<std::string, double>>& values);

// "events.out.tfevents.1700000000.SUFFIX": TensorBoard reads a folder's files in the order of their
// names.
std::string TfEventsFileName(absl::Time time, absl::string_view suffix);

}  // namespace ll
