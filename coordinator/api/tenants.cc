#include "coordinator/api/tenants.h"

#include <yaml-cpp/yaml.h>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "rpc/token_file.h"

namespace ll {
namespace {

absl::Status Bad(const std::string& key, absl::string_view expected) {
  return MakeFieldError({"tenants", expected, absl::StrCat("something else at ", OneLine(key))});
}

absl::StatusOr<double> Number(const YAML::Node& node, const std::string& key) {
  double value = -1;
  try {
    value = node.as<double>();
  } catch (const YAML::Exception&) {
  }
  if (!(value >= 0 && value <= 1e9)) return Bad(key, "a number from 0 to 1e9");
  return value;
}

absl::StatusOr<TenantLimits> LimitsOf(const YAML::Node& node, const std::string& where) {
  if (!node.IsMap()) return Bad(where, "limits, by name");
  TenantLimits out;
  for (const auto& entry : node) {
    const std::string name = entry.first.Scalar();
    const std::string key = absl::StrCat(where, ".", name);
    if (name == "queues") {
      if (!entry.second.IsSequence()) return Bad(key, "a list of queues");
      for (const auto& queue : entry.second) {
        if (!queue.IsScalar()) return Bad(key, "a list of queues");
        out.queues.push_back(queue.Scalar());
      }
      continue;
    }
    LL_ASSIGN_OR_RETURN(const double value, Number(entry.second, key));
    if (name == "unfinished_jobs") {
      out.quota.unfinished_jobs = static_cast<size_t>(value);
    } else if (name == "schedules") {
      out.quota.schedules = static_cast<size_t>(value);
    } else if (name == "calls_per_second") {
      out.calls_per_second = value;
    } else if (name == "schedule_interval") {
      out.schedule_interval = absl::Seconds(value);
    } else {
      return Bad(key, "unfinished_jobs, calls_per_second, schedules, schedule_interval or queues");
    }
  }
  return out;
}

absl::StatusOr<TenantTable> TableOf(const YAML::Node& root) {
  TenantTable table;
  if (root.IsNull()) return table;
  if (!root.IsMap()) return Bad("the top", "default and tenants");
  for (const auto& entry : root) {
    const std::string key = entry.first.Scalar();
    if (key == "default") {
      LL_ASSIGN_OR_RETURN(table.others, LimitsOf(entry.second, key));
      continue;
    }
    if (key != "tenants" || !entry.second.IsMap()) return Bad(key, "default and tenants, by name");
    for (const auto& tenant : entry.second) {
      const std::string name = tenant.first.Scalar();
      if (!IsTenantName(name))
        return Bad(name, "a tenant's name of letters, digits, '.', '_' or '-'");
      LL_ASSIGN_OR_RETURN(TenantLimits limits, LimitsOf(tenant.second, name));
      if (!table.named.emplace(name, std::move(limits)).second) return Bad(name, "a tenant once");
    }
  }
  return table;
}

}  // namespace

const TenantLimits& TenantTable::Of(const std::string& tenant) const {
  const auto it = named.find(tenant);
  return it == named.end() ? others : it->second;
}

absl::StatusOr<TenantTable> ParseTenants(const std::string& yaml) {
  try {  // yaml-cpp reports bad syntax and wrong kinds by throwing
    return TableOf(YAML::Load(yaml));
  } catch (const YAML::Exception& error) {
    return MakeFieldError({"tenants", "YAML", OneLine(error.what())});
  }
}

absl::StatusOr<std::unique_ptr<Tenants>> Tenants::Open(const std::string& path, Clock& clock) {
  auto out = std::unique_ptr<Tenants>(new Tenants(path, clock));
  if (path.empty()) return out;
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  absl::MutexLock lock(&out->mu_);
  LL_ASSIGN_OR_RETURN(out->table_, ParseTenants(text));
  return out;
}

TenantLimits Tenants::Of(const std::string& tenant) {
  absl::MutexLock lock(&mu_);
  if (file_.Changed()) {
    const auto text = ReadFile(file_.path());
    auto table = text.ok() ? ParseTenants(*text) : text.status();
    if (table.ok()) {
      table_ = *std::move(table);
      LL_LOG(kInfo) << "read the tenants' limits from " << file_.path();
    } else {
      LL_LOG(kError) << "the tenants file is wrong, the former limits stay: "
                     << table.status().message();
    }
  }
  return table_.Of(tenant);
}

}  // namespace ll
