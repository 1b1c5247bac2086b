// What a person can set at ll-coordinator, by flags or by the same keys in a YAML file (--config).
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/api/jwt.h"
#include "coordinator/tracker_options.h"

namespace ll {

struct CoordinatorOptions {
  std::string listen = "127.0.0.1:7070";
  std::string http = "127.0.0.1:7071";
  std::string data_dir;          // filled in: ${LL_DATA_DIR:-$HOME/.local/share/ll}
  std::string store = "sqlite";  // or "postgresql://…"
  std::string tls_cert, tls_key, tls_client_ca;
  std::string tokens;
  std::string tenants;
  std::string webhooks;
  std::string pki_dir;
  OidcOptions oidc;
  bool shared_job_store = false;
  std::string prices, currency = "USD";
  std::string calibrations;
  double lease_seconds = 30;
  double heartbeat_seconds = 5;
  double grow_after_idle_seconds = 60, resize_interval_seconds = 1800, restart_cost_seconds = 120;
  double max_calls_per_second = 20'000;
  std::string log_level = "info";
  TrackerOptions trackers;
  // With PostgreSQL only.
  double leader_lease_seconds = 2;
  std::string advertise;      // "HOST:PORT"; empty: what `listen` became
  std::string telemetry_dir;  // empty: DATA_DIR/telemetry
};

// ${LL_DATA_DIR:-$HOME/.local/share/ll}
std::string DefaultCoordinatorDataDir();

// Reads the command line. Returns true in `*exit_now` with the exit code in `*exit_code` when there
// is nothing to run
// (--help, --version, a wrong flag); what is to be said has then been printed.
CoordinatorOptions ParseCoordinatorFlags(int argc, char** argv, bool* exit_now, int* exit_code);

// ${LL_DATA_DIR:-$HOME/.local/share/ll}
std::string DefaultCoordinatorDataDir();

// What must hold before anything is opened: a bind beyond loopback needs TLS and a way to know
// callers, HTTP stays on loopback, the store is known, times are sensible. Errors name the flag.
absl::Status CheckOptions(const CoordinatorOptions& options);

}  // namespace ll
