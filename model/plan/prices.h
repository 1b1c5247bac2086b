// What devices cost, as an operator configures it: a YAML (or JSON) file of
//
//   H100:    {per_hour: 2.99, watts: 700}
//   A100-80: {per_hour: 1.89}
//
// Kinds are those that workers tell (docs/planning.md). Thread-safe.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"

namespace ll {

struct Prices {
  std::map<std::string, double> per_gpu_hour;  // by kind
  std::map<std::string, double> watts;         // by kind; in place of the catalogue's
  std::string currency = "USD";
  double Of(const std::string& kind) const { return Find(per_gpu_hour, kind, 0); }
  double WattsOf(const std::string& kind, double otherwise) const {
    return Find(watts, kind, otherwise);
  }

 private:
  static double Find(const std::map<std::string, double>& values, const std::string& kind,
                     double otherwise) {
    const auto it = values.find(kind);
    return it == values.end() ? otherwise : it->second;
  }
};

// Errors: InvalidArgument naming the kind and the key.
absl::StatusOr<Prices> ParsePrices(const std::string& text, const std::string& currency);
// The same of a file; none where `path` is empty. Errors name the file.
absl::StatusOr<Prices> ReadPrices(const std::string& path, const std::string& currency);

}  // namespace ll
