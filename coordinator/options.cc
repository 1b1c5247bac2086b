#include "coordinator/options.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "coordinator/api/join.h"
#include "coordinator/backup_command.h"
#include "coordinator/store/pg_connection.h"
#include "coordinator/store_access.h"
#include "rpc/channel.h"
#include "rpc/config_file.h"
#include "rpc/named_file.h"

#ifndef LL_VERSION
#define LL_VERSION "unknown"
#endif

namespace ll {
namespace {

void AddSecurityFlags(CLI::App& app, CoordinatorOptions& o) {
  app.add_option("--tokens", o.tokens,
                 "Tokens file: one JSON object a line (token_sha256, user, tenant, scopes, "
                 "expires); llctl token writes it");
  app.add_option("--tenants", o.tenants,
                 "YAML file of what each tenant may have and do (docs/security.md)");
  app.add_option("--webhooks", o.webhooks,
                 "YAML file of endpoints that are told what becomes of jobs (docs/webhooks.md)");
  app.add_option("--pki-dir", o.pki_dir,
                 "Folder of `ll-coordinator pki`; workers may then join with a token");
  app.add_option("--oidc-keys", o.oidc.keys_file,
                 "Public keys of an identity provider whose JSON Web Tokens are taken: a JWKS "
                 "file, or PEM");
  app.add_option("--oidc-issuer", o.oidc.issuer, "What such a token's iss must be");
  app.add_option("--oidc-audience", o.oidc.audience, "What its aud must be or hold");
  app.add_option("--oidc-user-claim", o.oidc.user_claim, "The claim that names the user")
      ->capture_default_str();
  app.add_option("--oidc-user-prefix", o.oidc.user_prefix, "Put before that name")
      ->capture_default_str();
  app.add_option("--oidc-tenant-claim", o.oidc.tenant_claim, "The claim that names the tenant")
      ->capture_default_str();
  app.add_option("--oidc-scope-claim", o.oidc.scope_claim,
                 "The claim with read, submit, cancel, admin, each also as ll:read")
      ->capture_default_str();
}

void AddTrackerFlags(CLI::App& app, TrackerOptions& o) {
  app.add_option("--tensorboard-dir", o.tensorboard_dir,
                 "Folder for TensorBoard event files of every job (docs/trackers.md)");
  app.add_option("--mlflow", o.mlflow,
                 "MLflow tracking server, http://HOST:PORT, that is told of every job");
  app.add_option("--mlflow-experiment", o.mlflow_experiment, "Name of the experiment there")
      ->capture_default_str();
  app.add_option("--mlflow-headers", o.mlflow_headers,
                 "File with headers for --mlflow, one NAME: VALUE a line, such as Authorization");
  app.add_option("--otlp-endpoint", o.otlp_endpoint,
                 "OpenTelemetry collector, http://HOST:4318, that gets a trace of every job");
  app.add_option("--otlp-headers", o.otlp_headers, "As --mlflow-headers, for --otlp-endpoint");
}

absl::Status CheckOidc(const OidcOptions& oidc) {
  if (oidc.keys_file.empty()) {
    if (oidc.issuer.empty() && oidc.audience.empty()) return absl::OkStatus();
    return MakeFieldError({"oidc-keys", "a file beside --oidc-issuer and --oidc-audience", "none"});
  }
  if (oidc.issuer.empty())
    return MakeFieldError({"oidc-issuer", "the tokens' issuer beside --oidc-keys", "none"});
  if (oidc.audience.empty())
    return MakeFieldError({"oidc-audience", "the tokens' audience beside --oidc-keys", "none"});
  return absl::OkStatus();
}

// What is read later too, so that a wrong name is told with its flag.
absl::Status CheckNamedFiles(const CoordinatorOptions& o) {
  const struct {
    const char* flag;
    const std::string& file;
    const char* fix;
  } files[] = {
      {"tokens", o.tokens, "llctl token create --tokens FILE writes one, as this user"},
      {"tenants", o.tenants, ""},
      {"webhooks", o.webhooks, ""},
      {"oidc-keys", o.oidc.keys_file, ""},
      {"prices", o.prices, ""},
      {"mlflow-headers", o.trackers.mlflow_headers, ""},
      {"otlp-headers", o.trackers.otlp_headers, ""},
  };
  for (const auto& [flag, file, fix] : files) {
    if (!file.empty()) LL_RETURN_IF_ERROR(ReadNamedFile(file, flag, fix).status());
  }
  if (!o.calibrations.empty() && !IsDirectory(o.calibrations)) {
    return MakeFieldError({"calibrations", "a folder of llctl plan --calibrate", o.calibrations,
                           "make it, or leave --calibrations out"},
                          absl::StatusCode::kNotFound);
  }
  if (o.pki_dir.empty()) return absl::OkStatus();
  for (const char* name : {kAuthorityCertificate, kAuthorityKey}) {
    LL_RETURN_IF_ERROR(
        ReadNamedFile(absl::StrCat(o.pki_dir, "/", name), "pki-dir",
                      "ll-coordinator pki init --dir DIR makes an authority, as this user")
            .status());
  }
  return absl::OkStatus();
}

}  // namespace

std::string DefaultCoordinatorDataDir() {
  if (const char* dir = std::getenv("LL_DATA_DIR"); dir != nullptr && *dir != '\0') return dir;
  const char* home = std::getenv("HOME");
  return absl::StrCat(home == nullptr ? "/tmp" : home, "/.local/share/ll");
}

CoordinatorOptions ParseCoordinatorFlags(int argc, char** argv, bool* exit_now, int* exit_code) {
  CoordinatorOptions o;
  o.data_dir = DefaultCoordinatorDataDir();
  CLI::App app{
      "The coordinator of the LongLoRA training service: durable queue, scheduler, worker "
      "registry."};
  app.name("ll-coordinator");
  app.set_version_flag("--version", "ll-coordinator " LL_VERSION);
  app.add_option("--listen", o.listen, "HOST:PORT for gRPC; port 0 takes any free one")
      ->capture_default_str();
  app.add_option("--http", o.http, "HOST:PORT for /metrics and /healthz, on loopback")
      ->capture_default_str();
  app.add_option("--data-dir", o.data_dir,
                 "Folder of the store, telemetry and token, on a local disk")
      ->capture_default_str();
  app.add_option(
         "--store", o.store,
         "Where decisions are kept: sqlite (a file in --data-dir), or a PostgreSQL database "
         "that several coordinators share: postgresql://USER@HOST:PORT/DATABASE, without "
         "the password (a passfile holds it)")
      ->capture_default_str();
  app.add_option("--leader-lease-seconds", o.leader_lease_seconds,
                 "With PostgreSQL: after this long without a word of the leader another "
                 "coordinator takes over")
      ->capture_default_str();
  app.add_option("--advertise", o.advertise,
                 "With PostgreSQL: HOST:PORT at which others reach --listen; told by standbys");
  app.add_option("--telemetry-dir", o.telemetry_dir,
                 "Folder of logs and events, DATA_DIR/telemetry unless given; coordinators that "
                 "share a database may share it");
  app.add_option("--tls-cert", o.tls_cert, "PEM certificate (chain) of this coordinator");
  app.add_option("--tls-key", o.tls_key, "PEM private key of --tls-cert");
  app.add_option("--tls-client-ca", o.tls_client_ca,
                 "PEM CA; workers then need a certificate of it for ll://worker/NAME");
  AddSecurityFlags(app, o);
  AddTrackerFlags(app, o.trackers);
  app.add_flag("--shared-job-store", o.shared_job_store,
               "All workers write to one job store, so any host can resume any checkpoint");
  app.add_option("--prices", o.prices,
                 "YAML or JSON file of what devices cost and draw: H100: {per_hour: 2.99, watts: "
                 "700}");
  app.add_option("--currency", o.currency, "Of --prices")->capture_default_str();
  app.add_option("--calibrations", o.calibrations,
                 "Folder of what `llctl plan --calibrate` measured on such hosts; plans then use "
                 "it in place of data sheets");
  app.add_option("--lease-seconds", o.lease_seconds,
                 "Silence after which a worker counts as out of contact")
      ->capture_default_str();
  app.add_option("--heartbeat-seconds", o.heartbeat_seconds, "How often workers report")
      ->capture_default_str();
  app.add_option("--grow-after-idle-seconds", o.grow_after_idle_seconds,
                 "How long slots are idle before an elastic training (gpus: 4-8) grows into them")
      ->capture_default_str();
  app.add_option("--resize-interval-seconds", o.resize_interval_seconds,
                 "From a change of a training's size to its next growth")
      ->capture_default_str();
  app.add_option("--restart-cost-seconds", o.restart_cost_seconds,
                 "What a growth must save: about what a stop, a checkpoint and a start take")
      ->capture_default_str();
  app.add_option("--max-calls-per-second", o.max_calls_per_second, "Of one user; more are refused")
      ->capture_default_str();
  app.add_option("--log-level", o.log_level, "debug, info, warning or error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->capture_default_str();
  AddConfigFile(app);
  // Run before this command line is parsed (main.cc); named here for --help.
  NameBackupCommands(app);
  app.add_subcommand("audit", "Check the audit log");
  app.add_subcommand("pki", "Certificates and join tokens of this cluster");
  *exit_now = false;
  try {
    app.parse(argc, argv);
    if (!app.get_subcommands().empty())
      throw CLI::ArgumentMismatch(app.get_subcommands()[0]->get_name() +
                                  ": comes before all flags");
  } catch (const CLI::ParseError& error) {
    *exit_now = true;
    *exit_code = error.get_exit_code() == 0 ? app.exit(error) : 2;
    if (*exit_code != 0) std::cerr << UsageLine(app, error) << "\n";
  }
  return o;
}

absl::Status CheckOptions(const CoordinatorOptions& o) {
  LL_ASSIGN_OR_RETURN(HostPort listen, ParseHostPort(o.listen, "listen"));
  LL_ASSIGN_OR_RETURN(HostPort http, ParseHostPort(o.http, "http"));
  if (IsPostgres(o.store)) {
    LL_RETURN_IF_ERROR(CheckPostgresUri(o.store));
  } else if (o.store != "sqlite") {
    return MakeFieldError({"store", "sqlite or postgresql://…", "something else"});
  }
  if (!(o.leader_lease_seconds >= 0.5 && o.leader_lease_seconds <= 60)) {
    return MakeFieldError(
        {"leader-lease-seconds", "0.5 to 60", absl::StrCat(o.leader_lease_seconds)});
  }
  if (!o.advertise.empty()) LL_RETURN_IF_ERROR(ParseHostPort(o.advertise, "advertise").status());
  if (!(o.lease_seconds >= 1 && o.lease_seconds <= 3600)) {
    return MakeFieldError({"lease-seconds", "1 to 3600", absl::StrCat(o.lease_seconds)});
  }
  if (!(o.heartbeat_seconds > 0 && o.heartbeat_seconds * 2 <= o.lease_seconds)) {
    return MakeFieldError({"heartbeat-seconds", "more than 0 and at most half of lease-seconds",
                           absl::StrCat(o.heartbeat_seconds)});
  }
  const std::pair<const char*, double> durations[] = {
      {"grow-after-idle-seconds", o.grow_after_idle_seconds},
      {"resize-interval-seconds", o.resize_interval_seconds},
      {"restart-cost-seconds", o.restart_cost_seconds}};
  for (const auto& [name, seconds] : durations) {
    if (!(seconds >= 0 && seconds <= 1e7))
      return MakeFieldError({name, "0 to 1e7", absl::StrCat(seconds)});
  }
  if (!(o.max_calls_per_second >= 1)) {
    return MakeFieldError(
        {"max-calls-per-second", "at least 1", absl::StrCat(o.max_calls_per_second)});
  }
  LL_RETURN_IF_ERROR(CheckOidc(o.oidc));
  LL_RETURN_IF_ERROR(CheckNamedFiles(o));
  if (!IsLoopbackHost(http.host)) {
    return FieldStatus(
        absl::StatusCode::kFailedPrecondition, "http",
        absl::StrCat(o.http,
                     " is not on loopback, and this page has neither TLS nor authentication"),
        "bind 127.0.0.1 and let a reverse proxy with TLS stand before it");
  }
  if (IsLoopbackHost(listen.host)) return absl::OkStatus();
  if (o.tls_cert.empty() || o.tls_key.empty()) {
    return FieldStatus(absl::StatusCode::kFailedPrecondition, "listen",
                       absl::StrCat(o.listen, " is not on loopback and needs TLS"),
                       "give --tls-cert and --tls-key, or bind 127.0.0.1");
  }
  if (o.tokens.empty() && o.oidc.keys_file.empty()) {
    return FieldStatus(absl::StatusCode::kFailedPrecondition, "listen",
                       absl::StrCat(o.listen, " is not on loopback and needs to know its callers"),
                       "give --tokens or --oidc-keys, or bind 127.0.0.1");
  }
  return absl::OkStatus();
}

}  // namespace ll
