// One client of a running coordinator that calls as fast as it is answered, over TLS and with a
// token; tests/bench/service.py starts several of these and the coordinator.
//
//   LLCTL_TOKEN=… submit_bench --coordinator HOST:PORT --ca ca.crt --model M --data D [--ctx N]
//                 [--distinct] [--list] (--seconds S | --calls N)
//
// Makes one call, prints "ready", waits for a line on stdin, and prints one JSON object: calls,
// seconds, CPU seconds of this process, and how long each call took in milliseconds.
#include <stdlib.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/ids.h"
#include "nlohmann/json.hpp"
#include "proto/jobs.grpc.pb.h"
#include "rpc/channel.h"

namespace ll {
namespace {

struct Flags {
  std::string coordinator, ca, model, data;
  int64_t ctx = 8192, calls = 0, first = 0;
  double seconds = 0;
  bool distinct = false, list = false;
};

class BenchClient {
 public:
  BenchClient(const Flags& flags, std::shared_ptr<grpc::Channel> channel)
      : flags_(flags), jobs_(v1::Jobs::NewStub(channel)), run_(RandomHex(SystemRandom(), 6)) {}

  grpc::Status Call() {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    if (flags_.list) {
      v1::ListRequest request;
      v1::ListResponse response;
      request.set_page_size(10);
      return jobs_->List(&context, request, &response);
    }
    v1::SubmitRequest request;
    v1::SubmitResponse response;
    v1::JobSpec& spec = *request.mutable_spec();
    spec.set_kind("train");
    spec.set_model(flags_.model);
    spec.set_data(flags_.data);
    // Distinct: a forecast that nobody has asked for.
    spec.set_context_length(flags_.ctx + (flags_.distinct ? 256 * (flags_.first + made_) : 0));
    request.set_request_id(absl::StrCat(run_, "-", made_++));
    return jobs_->Submit(&context, request, &response);
  }

 private:
  const Flags& flags_;
  std::unique_ptr<v1::Jobs::Stub> jobs_;
  const std::string run_;
  int64_t made_ = 0;
};

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

int Run(const Flags& flags) {
  ChannelConfig config;
  config.addresses = {flags.coordinator};
  config.ca_file = flags.ca;
  if (const char* token = getenv("LLCTL_TOKEN"); token != nullptr) config.token = token;
  const auto channel = MakeChannel(config);
  if (!channel.ok()) {
    std::cerr << channel.status().message() << "\n";
    return 2;
  }
  BenchClient client(flags, *channel);
  std::vector<double> ms;
  const auto call = [&client] {
    const grpc::Status status = client.Call();
    if (!status.ok()) std::cerr << status.error_message() << "\n";
    return status.ok();
  };
  if (!call()) return 1;
  std::cout << "ready" << std::endl;
  std::string go;
  std::getline(std::cin, go);
  const double cpu = CpuSeconds();
  const absl::Time began = absl::Now();
  absl::Time before = began;
  while (flags.calls > 0 ? static_cast<int64_t>(ms.size()) < flags.calls
                         : before - began < absl::Seconds(flags.seconds)) {
    if (!call()) return 1;
    const absl::Time now = absl::Now();
    ms.push_back(absl::ToDoubleMilliseconds(now - before));
    before = now;
  }
  std::cout << nlohmann::json{{"calls", ms.size()},
                              {"seconds", absl::ToDoubleSeconds(before - began)},
                              {"cpu_seconds", CpuSeconds() - cpu},
                              {"ms", ms}}
                   .dump()
            << std::endl;
  return 0;
}

}  // namespace
}  // namespace ll

int main(int argc, char** argv) {
  CLI::App app("One closed-loop client of a coordinator, for tests/bench/service.py",
               "submit_bench");
  ll::Flags flags;
  app.add_option("--coordinator", flags.coordinator, "HOST:PORT")->required();
  app.add_option("--ca", flags.ca, "Authority of the coordinator's certificate");
  app.add_option("--model", flags.model, "Spec key model");
  app.add_option("--data", flags.data, "Spec key data");
  app.add_option("--ctx", flags.ctx, "Spec key context_length");
  app.add_option("--calls", flags.calls, "How many calls");
  app.add_option("--first", flags.first, "Number of the first of distinct submits");
  app.add_option("--seconds", flags.seconds, "How long");
  app.add_flag("--distinct", flags.distinct, "Every submit has a context length of its own");
  app.add_flag("--list", flags.list, "List ten jobs instead of submitting");
  CLI11_PARSE(app, argc, argv);
  return ll::Run(flags);
}
