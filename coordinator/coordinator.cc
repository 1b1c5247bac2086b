#include "coordinator/coordinator.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <pwd.h>
#include <unistd.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "coordinator/api/access_guard.h"
#include "coordinator/api/admin_service.h"
#include "coordinator/api/audit.h"
#include "coordinator/api/auth.h"
#include "coordinator/api/follow.h"
#include "coordinator/api/job_reader.h"
#include "coordinator/api/jobs_service.h"
#include "coordinator/api/join.h"
#include "coordinator/api/schedules_service.h"
#include "coordinator/backup_metrics.h"
#include "coordinator/engine/engines.h"
#include "coordinator/runtime/cluster_metrics.h"
#include "coordinator/runtime/driver.h"
#include "coordinator/runtime/forecast_records.h"
#include "coordinator/runtime/job_metrics.h"
#include "coordinator/runtime/metrics.h"
#include "coordinator/runtime/run_judge.h"
#include "coordinator/runtime/telemetry.h"
#include "coordinator/runtime/telemetry_remover.h"
#include "coordinator/store_access.h"
#include "coordinator/tracker_feed.h"
#include "coordinator/web/http.h"
#include "coordinator/webhooks/notifier.h"
#include "coordinator/workers/hub.h"
#include "coordinator/workers/measured_rates.h"
#include "coordinator/workers/session.h"
#include "model/plan/prices.h"
#include "nlohmann/json.hpp"
#include "rpc/channel.h"
#include "rpc/connection_guard.h"
#include "rpc/metric_families.h"
#include "rpc/named_file.h"
#include "rpc/secret_file.h"
#include "rpc/server.h"

namespace ll {
namespace {

constexpr std::chrono::milliseconds kStopPatience{1000};
constexpr absl::Duration kStepAside = absl::Seconds(2);

std::string TelemetryDirOf(const CoordinatorOptions& options) {
  return options.telemetry_dir.empty() ? absl::StrCat(options.data_dir, "/telemetry")
                                       : options.telemetry_dir;
}

std::string UserName() {
  const passwd* entry = getpwuid(geteuid());
  return entry == nullptr ? "local" : entry->pw_name;
}

SchedulerOptions SchedulerOptionsOf(const CoordinatorOptions& options) {
  SchedulerOptions out;
  out.elastic.grow_after_idle = absl::Seconds(options.grow_after_idle_seconds);
  out.elastic.resize_interval = absl::Seconds(options.resize_interval_seconds);
  out.elastic.restart_cost = absl::Seconds(options.restart_cost_seconds);
  out.nonce_seed = RandomHex(SystemRandom(), 16);
  out.shared_job_store = options.shared_job_store;
  out.lease = absl::Seconds(options.lease_seconds);
  out.heartbeat = absl::Seconds(options.heartbeat_seconds);
  return out;
}

DaemonSubjects DaemonSubjectsOf(const CoordinatorOptions& options) {
  return {
      .disks = {{"data_dir", options.data_dir}},
      .certificates = {{"tls_cert", options.tls_cert}, {"tls_client_ca", options.tls_client_ca}}};
}

// Tells gRPC's health service whether the store works.
class HealthListener : public DriverListener {
 public:
  void SetServer(grpc::Server* server) {
    absl::MutexLock lock(&mu_);
    server_ = server;
    Tell();
  }
  void OnServing(const absl::Status& status) override {
    absl::MutexLock lock(&mu_);
    serving_ = status.ok();
    Tell();
  }

 private:
  void Tell() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (server_ != nullptr) server_->GetHealthCheckService()->SetServingStatus(serving_);
  }
  absl::Mutex mu_;
  grpc::Server* server_ ABSL_GUARDED_BY(mu_) = nullptr;
  bool serving_ ABSL_GUARDED_BY(mu_) = false;
};

class RealCoordinator : public Coordinator {
 public:
  RealCoordinator(const CoordinatorOptions& options, Clock& clock, WrapStore wrap_store)
      : options_(options),
        clock_(clock),
        store_access_(MakeStoreAccess(options, clock, [this] { driver_->Hurry(); })),
        scheduler_(SchedulerOptionsOf(options)),
        hub_(scheduler_, clock),
        metrics_(clock) {
    DriverOptions driver;
    driver.scheduler = scheduler_;
    driver.start_without_store = store_access_.leadership != nullptr;
    driver.open_store = [open = store_access_.open,
                         wrap_store]() -> absl::StatusOr<std::unique_ptr<Store>> {
      LL_ASSIGN_OR_RETURN(std::unique_ptr<Store> store, open());
      if (wrap_store != nullptr) store = wrap_store(std::move(store));
      return store;
    };
    driver_ = std::make_unique<Driver>(std::move(driver), clock);
    telemetry_ = std::make_unique<Telemetry>(TelemetryOptions{.dir = TelemetryDirOf(options)});
    telemetry_remover_ = std::make_unique<TelemetryRemover>(*telemetry_);
    follow_ = std::make_unique<FollowHub>(*telemetry_);
    reader_ = std::make_unique<JobReader>(*driver_, *telemetry_);
    run_judge_ = std::make_unique<RunJudge>(*driver_, *telemetry_, clock);
    forecasts_ = std::make_unique<ForecastRecords>(
        absl::StrCat(options.data_dir, "/forecasts.jsonl"), *telemetry_, clock,
        [this](const ForecastRecord& record) {
          metrics_.OnForecast(record.DurationError(), record.MemoryError());
        });
  }

  ~RealCoordinator() override {
    if (server_ != nullptr) {
      health_.SetServer(nullptr);
      server_->GetHealthCheckService()->Shutdown();
      // Before the server: no page may call into one that is gone (site.h).
      http_.reset();
      site_.reset();
      if (store_access_.leadership != nullptr) {
        // No decision of this coordinator is under way any more: another may take over at once.
        driver_->Stop();
        store_access_.leadership->Stop();
      }
      hub_.EndAllSessions(absl::UnavailableError("the coordinator is stopping"));
      server_->Shutdown(std::chrono::system_clock::now() + kStopPatience);
    }
    driver_->Stop();
    if (store_access_.leadership != nullptr) store_access_.leadership->Stop();
  }

  absl::Status Start() {
    LL_ASSIGN_OR_RETURN(HostPort listen, ParseHostPort(options_.listen, "listen"));
    // Everything that may be refused comes before anything that lasts.
    LL_ASSIGN_OR_RETURN(
        auto credentials,
        MakeServerCredentials({options_.tls_cert, options_.tls_key, options_.tls_client_ca}));
    for (const auto& [field, file] :
         {std::pair{"tls-client-ca", &options_.tls_client_ca},
          std::pair{"tenants", &options_.tenants}, std::pair{"webhooks", &options_.webhooks}})
      LL_RETURN_IF_ERROR(CheckNotForAllToWrite(*file, field));
    LL_RETURN_IF_ERROR(ReadRates());
    LL_RETURN_IF_ERROR(SetUpTrackers());
    LL_ASSIGN_OR_RETURN(tenants_, Tenants::Open(options_.tenants, clock_));
    LL_RETURN_IF_ERROR(SetUpWebhooks());
    WireUp();
    LL_RETURN_IF_ERROR(driver_->Start());
    LL_RETURN_IF_ERROR(forecasts_->Load());
    LL_RETURN_IF_ERROR(MakeNamedFolder(TelemetryDirOf(options_), "telemetry-dir"));
    LL_RETURN_IF_ERROR(SetUpAuth(IsLoopbackHost(listen.host)));
    SetUpServices(IsLoopbackHost(listen.host));
    LL_RETURN_IF_ERROR(Listen(listen, credentials));
    site_ = std::make_unique<Site>(server_->InProcessChannel({}), clock_, SystemRandom());
    LL_ASSIGN_OR_RETURN(
        http_, StartHttp(options_.http, *driver_, metrics_,
                         {leader_registry_, std::make_shared<BackupMetrics>(options_.data_dir)},
                         DaemonSubjectsOf(options_), *site_));
    LL_RETURN_IF_ERROR(WriteEndpoints());
    if (store_access_.leadership != nullptr) {
      store_access_.leadership->Start(options_.advertise.empty() ? grpc_address_
                                                                 : options_.advertise);
    }
    return absl::OkStatus();
  }

  std::string grpc_address() const override { return grpc_address_; }
  std::string http_address() const override { return http_->address(); }
  void Probe(std::function<void()> answer) override {
    driver_->Read(
        [answer = std::move(answer)](const absl::Status&, const Scheduler*) { answer(); });
  }

 private:
  void WireUp() {
    engines_.Add(&hub_);
    driver_->SetGateway(&engines_);
    driver_->AddListener(&hub_);
    driver_->AddListener(&metrics_);
    driver_->AddListener(&cluster_metrics_);
    driver_->AddListener(&job_metrics_);
    driver_->AddListener(follow_.get());
    driver_->AddListener(&health_);
    driver_->AddListener(&leader_listener_);
    driver_->AddListener(telemetry_remover_.get());
    driver_->AddListener(&worker_forgetter_);
    driver_->AddListener(run_judge_.get());
    driver_->AddListener(forecasts_.get());
    if (notifier_ != nullptr) driver_->AddListener(notifier_.get());
    if (trackers_ != nullptr) driver_->AddListener(trackers_.get());
    telemetry_->AddListener([this](const JobId& job, const TelemetryNews& news) {
      metrics_.OnNews(job, news);
      job_metrics_.OnNews(job, news);
      follow_->OnNews(job);
      if (trackers_ != nullptr) trackers_->OnNews(job, news);
    });
  }

  absl::Status SetUpWebhooks() {
    if (options_.webhooks.empty()) return absl::OkStatus();
    LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(options_.webhooks));
    NotifierOptions notifier;
    LL_ASSIGN_OR_RETURN(notifier.endpoints, ParseWebhooks(text));
    for (const auto& [name, endpoint] : notifier.endpoints) {
      const absl::Status readable = ReadWebhookSecrets(endpoint.secret_file).status();
      if (!readable.ok()) return Annotate(readable, absl::StrCat("webhooks: ", name));
    }
    admission_.check_notify = [endpoints = notifier.endpoints](const std::string& names,
                                                               const std::string& tenant) {
      return CheckNotifyLabel(names, tenant, endpoints);
    };
    auto log = IsPostgres(options_.store)
                   ? MakePostgresDeliveryLog(options_.store)
                   : MakeSqliteDeliveryLog(absl::StrCat(options_.data_dir, "/webhooks.db"));
    notifier_ = std::make_unique<Notifier>(
        std::move(notifier), std::move(log), clock_,
        [this] {
          const auto& leadership = store_access_.leadership;
          return driver_->serving() && (leadership == nullptr || leadership->leads());
        },
        *metrics_.registry());
    return absl::OkStatus();
  }

  absl::Status SetUpTrackers() {
    if (!options_.trackers.any()) return absl::OkStatus();
    const std::string& events = options_.trackers.tensorboard_dir;
    if (!events.empty()) LL_RETURN_IF_ERROR(MakeNamedFolder(events, "tensorboard-dir"));
    LL_ASSIGN_OR_RETURN(auto trackers,
                        MakeTrackers(options_.trackers, LL_VERSION, CurlTransport()));
    trackers_ = std::make_unique<TrackerFeed>(std::move(trackers), TrackerQueue::Options(),
                                              *metrics_.registry(), clock_);
    return absl::OkStatus();
  }

  // What plans are made with besides the catalogue.
  absl::Status ReadRates() {
    LL_ASSIGN_OR_RETURN(admission_.prices, ReadPrices(options_.prices, options_.currency));
    if (options_.calibrations.empty()) return absl::OkStatus();
    LL_ASSIGN_OR_RETURN(admission_.calibrations, ReadCalibrations(options_.calibrations));
    return absl::OkStatus();
  }

  absl::Status SetUpAuth(bool loopback) {
    AuthOptions auth;
    auth.tokens_file = options_.tokens;
    auth.max_calls_per_second = options_.max_calls_per_second;
    auth.worker_certificates = !options_.tls_client_ca.empty();
    if (loopback) {
      LL_ASSIGN_OR_RETURN(auth.local_token, LocalToken(options_.data_dir));
      auth.local_user = UserName();
    }
    auth.oidc = options_.oidc;
    LL_ASSIGN_OR_RETURN(authenticator_,
                        Authenticator::Create(std::move(auth), clock_, tenants_.get()));
    LL_ASSIGN_OR_RETURN(audit_, AuditLog::Open({.dir = options_.data_dir}, clock_));
    return absl::OkStatus();
  }

  void SetUpServices(bool loopback) {
    api_ = {driver_.get(), telemetry_.get(), authenticator_.get(), &metrics_,      &clock_,
            audit_.get(),  tenants_.get(),   &measured_rates_,     &worker_loads_, reader_.get()};
    admission_.measured = [this](const std::string& kind) { return measured_rates_.Of(kind); };
    admission_.paths_are_local = loopback;
    admission_.shared_job_store = options_.shared_job_store;
    admission_.plans = &plans_;
    admission_.configs = &configs_;
    admission_.memory_factor = [this](const std::string& device, const std::string& model,
                                      const std::string& method) {
      return forecasts_->MemoryFactor(device, model, method);
    };
    jobs_ = std::make_unique<JobsService>(
        api_, *follow_, hub_, JobsOptions{.admission = admission_, .data_dir = options_.data_dir});
    admin_ = std::make_unique<AdminService>(api_, hub_, admission_);
    schedules_ = std::make_unique<SchedulesService>(api_, admission_);
    workers_ = std::make_unique<WorkersService>(api_, hub_, join_desk_);
  }

  absl::Status Listen(const HostPort& listen,
                      const std::shared_ptr<grpc::ServerCredentials>& credentials) {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    ApplyServerLimits(builder);
    const std::string host = listen.host.find(':') == std::string::npos
                                 ? listen.host
                                 : absl::StrCat("[", listen.host, "]");
    int port = 0;
    if (!options_.tls_cert.empty())
      credentials->SetAuthMetadataProcessor(connection_guard_->Processor());
    builder.AddListeningPort(absl::StrCat(host, ":", listen.port), credentials, &port);
    builder.RegisterService(jobs_.get());
    builder.RegisterService(admin_.get());
    builder.RegisterService(schedules_.get());
    builder.RegisterService(workers_.get());
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
        interceptors;
    interceptors.push_back(connection_guard_->Factory());
    interceptors.push_back(std::make_unique<AccessGuardFactory>(*authenticator_));
    builder.experimental().SetInterceptorCreators(std::move(interceptors));
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0) {
      return FieldStatus(absl::StatusCode::kUnavailable, "listen",
                         absl::StrCat("cannot listen at ", options_.listen),
                         "another process uses the port, or the address or certificate is wrong; "
                         "give another --listen");
    }
    grpc_address_ = absl::StrCat(host, ":", port);
    connection_guard_->Watch(port);
    health_.SetServer(server_.get());
    return absl::OkStatus();
  }

  // Where llctl and the demo look for a coordinator on this host.
  absl::Status WriteEndpoints() {
    nlohmann::ordered_json json;
    json["grpc"] = grpc_address();
    json["http"] = http_address();
    json["pid"] = getpid();
    json["tls"] = !options_.tls_cert.empty();
    return WriteFileAtomic(absl::StrCat(options_.data_dir, "/endpoints.json"), json.dump() + "\n",
                           0644);
  }

  // What workers told of themselves goes with them: those that a scaler or an operator takes away,
  // and those that the scheduler has forgotten.
  struct WorkerForgetter : DriverListener {
    explicit WorkerForgetter(RealCoordinator& self) : self(self) {}
    void OnView(const ClusterViewPtr& view) override {
      std::set<std::string> there;
      for (const Worker& worker : view->workers) {
        if (worker.connected || !worker.cordoned) there.insert(worker.name.value());
      }
      for (const std::string& worker : known) {
        if (there.count(worker) > 0) continue;
        self.measured_rates_.Heard(worker, "");
        self.worker_loads_.Set(worker, {});
      }
      known = std::move(there);
    }
    RealCoordinator& self;
    std::set<std::string> known;  // in the view before
  };

  // Shows who leads. A leader that cannot make use of its lead lets another try.
  struct LeaderListener : DriverListener {
    explicit LeaderListener(RealCoordinator& self) : self(self) {}
    void OnServing(const absl::Status& status) override {
      self.leads_.Set(status.ok() ? 1 : 0);
      if (status.ok()) return;
      const auto& leadership = self.store_access_.leadership;
      if (leadership != nullptr && leadership->leads()) leadership->StepAside(kStepAside);
    }
    RealCoordinator& self;
  };

  const CoordinatorOptions options_;
  Clock& clock_;
  const StoreAccess store_access_;
  const SchedulerOptions scheduler_;
  WorkerHub hub_;
  Engines engines_;
  Metrics metrics_;
  ClusterMetrics cluster_metrics_{*metrics_.registry(), clock_, LL_VERSION};
  JobMetrics job_metrics_{*metrics_.registry(), clock_};
  HealthListener health_;
  // What a standby shows too; everything else is the leader's.
  const std::shared_ptr<prometheus::Registry> leader_registry_ =
      std::make_shared<prometheus::Registry>();
  prometheus::Gauge& leads_ =
      GaugeOf(*leader_registry_, "ll_leader",
              "1 while this coordinator decides; of several with one database one does.")
          .Add({});
  LeaderListener leader_listener_{*this};
  WorkerForgetter worker_forgetter_{*this};
  std::unique_ptr<Telemetry> telemetry_;
  std::unique_ptr<TelemetryRemover> telemetry_remover_;
  std::unique_ptr<FollowHub> follow_;
  std::unique_ptr<TrackerFeed> trackers_;  // outlives the driver, which tells it
  std::unique_ptr<Driver> driver_;
  std::unique_ptr<RunJudge> run_judge_;
  std::unique_ptr<ForecastRecords> forecasts_;
  std::unique_ptr<Notifier> notifier_;  // null: there are no webhooks
  PlanCache plans_{*metrics_.registry()};
  ConfigCache configs_;
  AdmissionOptions admission_;
  std::unique_ptr<Tenants> tenants_;
  std::unique_ptr<Authenticator> authenticator_;
  std::unique_ptr<AuditLog> audit_;
  JoinDesk join_desk_{options_.pki_dir};
  MeasuredRates measured_rates_;
  WorkerLoads worker_loads_;
  std::unique_ptr<JobReader> reader_;
  ApiContext api_{};
  std::unique_ptr<JobsService> jobs_;
  std::unique_ptr<AdminService> admin_;
  std::unique_ptr<SchedulesService> schedules_;
  std::unique_ptr<WorkersService> workers_;
  // Before the server, whose calls it counts until the last.
  std::unique_ptr<ConnectionGuard> connection_guard_ =
      ConnectionGuard::Create([this](const std::string& peer) {
        metrics_.OnHungUp();
        LL_LOG(kWarning) << "hung up " << peer << ": it gave up calls or sent headers in masses";
      });
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Site> site_;
  std::unique_ptr<HttpServer> http_;
  std::string grpc_address_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(const CoordinatorOptions& options,
                                                                Clock& clock,
                                                                WrapStore wrap_store) {
  LL_RETURN_IF_ERROR(CheckOptions(options));
  auto coordinator = std::make_unique<RealCoordinator>(options, clock, std::move(wrap_store));
  LL_RETURN_IF_ERROR(coordinator->Start());
  return coordinator;
}

}  // namespace ll
