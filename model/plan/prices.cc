#include "model/plan/prices.h"

#include <cmath>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "yaml-cpp/yaml.h"

namespace ll {
namespace {

absl::Status TakeDevice(const std::string& kind, const YAML::Node& node, Prices& prices) {
  if (!node.IsMap()) {
    return MakeFieldError({kind, "a map of per_hour and watts", "something else",
                           absl::StrCat("as in ", kind, ": {per_hour: 2.5, watts: 400}")});
  }
  for (const auto& item : node) {
    const std::string key = item.first.Scalar();
    std::map<std::string, double>* values = key == "per_hour" ? &prices.per_gpu_hour
                                            : key == "watts"  ? &prices.watts
                                                              : nullptr;
    if (values == nullptr)
      return MakeFieldError({absl::StrCat(kind, ".", key), "per_hour or watts", key});
    double value = 0;
    const std::string text = item.second.IsScalar() ? item.second.Scalar() : "";
    if (!absl::SimpleAtod(text, &value) || !std::isfinite(value) || value < 0) {
      return MakeFieldError({absl::StrCat(kind, ".", key), "a number from 0 on",
                             absl::StrCat("\"", text.substr(0, 80), "\"")});
    }
    (*values)[kind] = value;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Prices> ParsePrices(const std::string& text, const std::string& currency) {
  Prices prices;
  if (!currency.empty()) prices.currency = currency;
  try {
    const YAML::Node root = YAML::Load(text);
    if (root.IsNull()) return prices;
    if (!root.IsMap()) {
      return MakeFieldError(
          {"prices", "kinds of devices with per_hour and watts", "something else"});
    }
    for (const auto& item : root)
      LL_RETURN_IF_ERROR(TakeDevice(item.first.Scalar(), item.second, prices));
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("line ", error.mark.line + 1, ": not valid YAML: ", error.msg));
  }
  return prices;
}

absl::StatusOr<Prices> ReadPrices(const std::string& path, const std::string& currency) {
  if (path.empty()) return ParsePrices("", currency);
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  auto prices = ParsePrices(text, currency);
  return prices.ok() ? prices : Annotate(prices.status(), path);
}

}  // namespace ll
