// On whose behalf something is asked: users see what belongs to their tenant, administrators
// everything. Pure.
#pragma once

#include <cstddef>
#include <string>

namespace ll {

struct Access {
  std::string tenant;  // empty: of the users without one; what is made belongs to it
  bool all = true;     // sees every tenant's; the coordinator itself does
  bool Sees(const std::string& owner) const { return all || owner == tenant; }
};

// What a tenant may have at a time; 0: as much as it likes.
struct TenantQuota {
  size_t unfinished_jobs = 0;
  size_t schedules = 0;
};

// Whose request ids these are. Users of two tenants may have one name; a name holds no control
// character.
inline std::string RequestOwner(const Access& access, const std::string& user) {
  return access.tenant.empty() ? user : access.tenant + "\n" + user;
}

// Names of schedules, models and data are a tenant's own: "TENANT/NAME"; those of no tenant stand
// alone.
inline std::string QualifiedName(const std::string& tenant, const std::string& name) {
  return tenant.empty() ? name : tenant + "/" + name;
}
inline std::string TenantOfName(const std::string& qualified) {
  const size_t slash = qualified.find('/');
  return slash == std::string::npos ? "" : qualified.substr(0, slash);
}
inline std::string PlainNameOf(const std::string& qualified) {
  return qualified.substr(qualified.find('/') + 1);
}

}  // namespace ll
