// Where this coordinator keeps its decisions, by --store: the one SQLite file that it alone may
// open, or a PostgreSQL database that it may use while it leads.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "coordinator/options.h"
#include "coordinator/store/leadership.h"
#include "coordinator/store/store.h"

namespace ll {

struct StoreAccess {
  // Null where there is nobody to share with (SQLite).
  std::shared_ptr<Leadership> leadership;
  std::function<absl::StatusOr<std::unique_ptr<Store>>()> open;
};

// `on_change`: the lease was gained or lost; on another thread, after leadership->Start.
StoreAccess MakeStoreAccess(const CoordinatorOptions& options, Clock& clock,
                            std::function<void()> on_change);

bool IsPostgres(const std::string& store);

}  // namespace ll
