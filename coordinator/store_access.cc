#include "coordinator/store_access.h"

#include "absl/strings/match.h"
#include "base/ids.h"
#include "base/status_macros.h"
#include "coordinator/store/postgres_store.h"
#include "coordinator/store/sqlite_store.h"

namespace ll {

bool IsPostgres(const std::string& store) {
  return absl::StartsWith(store, "postgresql://") || absl::StartsWith(store, "postgres://");
}

StoreAccess MakeStoreAccess(const CoordinatorOptions& options, Clock& clock,
                            std::function<void()> on_change) {
  if (!IsPostgres(options.store)) {
    return {nullptr, [dir = options.data_dir] { return OpenSqliteStore(dir); }};
  }
  LeaseOptions lease;
  lease.length = absl::Seconds(options.leader_lease_seconds);
  lease.renew = lease.length / 4;
  lease.poll = lease.length / 10;
  PostgresOptions postgres;
  postgres.uri = options.store;
  postgres.holder = RandomHex(SystemRandom(), 16);
  auto leadership = std::make_shared<Leadership>(lease, MakePostgresLease(postgres, lease.length),
                                                 clock, std::move(on_change));
  return {leadership, [leadership, postgres]() -> absl::StatusOr<std::unique_ptr<Store>> {
            LL_RETURN_IF_ERROR(leadership->Check());
            PostgresOptions current = postgres;
            current.check = [leadership, generation = leadership->generation()] {
              return leadership->Check(generation);
            };
            return OpenPostgresStore(current);
          }};
}

}  // namespace ll
