// The connection to the coordinator: where it is, what to prove, and one call at a time with a
// deadline.
#pragma once

#include <grpcpp/client_context.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "proto/admin.grpc.pb.h"
#include "proto/jobs.grpc.pb.h"
#include "proto/schedules.grpc.pb.h"
#include "rpc/channel.h"

namespace ll {

// Reads an environment variable; "" where it is not set.
using EnvironmentReader = std::function<std::string(const std::string& name)>;

struct ClientOptions {
  std::string coordinator;  // HOST:PORT[,HOST:PORT…]; empty: LLCTL_COORDINATOR, else the context's,
                            // else what runs on this host
  std::string context;  // empty: LLCTL_CONTEXT, else the current one (contexts.h)
  std::string
      data_dir;  // the local coordinator's folder; empty: LL_DATA_DIR, else ~/.local/share/ll
  std::string token_file;  // empty: LLCTL_TOKEN, else DATA_DIR/token for a coordinator on loopback
  std::string ca_file;     // empty: LLCTL_CA
  absl::Duration timeout = absl::Seconds(30);
};

// That every text of `message` is UTF-8, as the protocol wants it. The error names the field.
absl::Status CheckTexts(const google::protobuf::Message& message);

class Client {
 public:
  // Reads files and makes the channel; connects with the first call. Errors: bad address,
  // unreadable file.
  static absl::StatusOr<std::unique_ptr<Client>> Create(const ClientOptions& options,
                                                        const EnvironmentReader& environment);

  // As Create, with this token.
  static absl::StatusOr<std::unique_ptr<Client>> CreateWithToken(
      const ClientOptions& options, const EnvironmentReader& environment, const std::string& token);

  v1::Jobs::Stub& jobs() { return *jobs_; }
  v1::Admin::Stub& admin() { return *admin_; }
  v1::Schedules::Stub& schedules() { return *schedules_; }
  const std::string& address() const { return address_; }
  absl::Duration timeout() const { return timeout_; }

  // One unary call: client.Call(client.jobs(), &v1::Jobs::Stub::Get, request).
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(Stub& stub,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                             Response*),
                                const Request& request) {
    if (const absl::Status bad = CheckTexts(request); !bad.ok()) return bad;
    Clock& clock = RealClock();
    const absl::Duration began = clock.Steady();
    while (true) {
      const absl::Duration waited = clock.Steady() - began;
      grpc::ClientContext context;
      context.set_deadline(absl::ToChronoTime(clock.Now() + timeout_ - waited));
      Response response;
      const grpc::Status status = (stub.*method)(&context, request, &response);
      if (status.ok()) return response;
      if (status.error_code() != grpc::StatusCode::UNAVAILABLE ||
          clock.Steady() - began > patience())
        return Explain(status);
      clock.Sleep(kFailoverPause);
    }
  }
  // How long UNAVAILABLE is waited out: with several coordinators one of them is about to lead.
  absl::Duration patience() const {
    return several_ ? std::min(timeout_, kFailoverPatience) : absl::ZeroDuration();
  }

  // The error as people need it: what could not be reached and what to do about it.
  absl::Status Explain(const grpc::Status& status) const;

 private:
  static constexpr absl::Duration kFailoverPatience = absl::Seconds(10);
  static constexpr absl::Duration kFailoverPause = absl::Milliseconds(50);

  Client(std::shared_ptr<grpc::Channel> channel, ChannelConfig config, std::string address,
         absl::Duration timeout);
  absl::Status AskEach() const;

  ChannelConfig config_;
  std::string address_;
  bool several_;
  absl::Duration timeout_;
  std::unique_ptr<v1::Jobs::Stub> jobs_;
  std::unique_ptr<v1::Admin::Stub> admin_;
  std::unique_ptr<v1::Schedules::Stub> schedules_;
};

// ${LL_DATA_DIR:-$HOME/.local/share/ll}
std::string DefaultDataDir(const EnvironmentReader& environment);

}  // namespace ll
