#include "llctl/client.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/format.h"
#include "base/json.h"
#include "base/leader_error.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "google/protobuf/message.h"
#include "llctl/contexts.h"
#include "llctl/errors.h"
#include "nlohmann/json.hpp"
#include "rpc/channel.h"
#include "rpc/secret_file.h"
#include "rpc/status.h"

namespace ll {
namespace {

constexpr char kDefaultAddress[] = "127.0.0.1:7070";

// The address a coordinator on this host wrote when it started; the default port where there is
// none.
std::string LocalAddress(const std::string& data_dir) {
  const absl::StatusOr<std::string> text = ReadFile(data_dir + "/endpoints.json");
  if (!text.ok()) return kDefaultAddress;
  const auto json = ParseJsonObject(*text, {.max_depth = 4, .max_values = 100});
  if (!json.ok() || !json->contains("grpc") || !(*json)["grpc"].is_string()) return kDefaultAddress;
  return (*json)["grpc"].get<std::string>();
}

bool AllLoopback(const std::vector<std::string>& addresses) {
  return std::all_of(addresses.begin(), addresses.end(), [](const std::string& address) {
    const absl::StatusOr<HostPort> parsed = ParseHostPort(address, "coordinator");
    return parsed.ok() && IsLoopbackHost(parsed->host);
  });
}

absl::StatusOr<std::string> FindToken(const ClientOptions& options,
                                      const EnvironmentReader& environment,
                                      const std::string& data_dir, bool loopback) {
  if (!options.token_file.empty()) {
    absl::StatusOr<std::string> token = ReadBearerToken(options.token_file);
    if (!token.ok()) return AsUsageError(token.status());
    return token;
  }
  if (std::string token = environment("LLCTL_TOKEN"); !token.empty()) return token;
  if (!loopback) return std::string();
  // Not being able to read it is no error yet: the coordinator may want no token, or refuse with
  // its own words.
  const absl::StatusOr<std::string> text = ReadFile(data_dir + "/token");
  return text.ok() ? std::string(absl::StripAsciiWhitespace(*text)) : std::string();
}

}  // namespace

absl::Status CheckTexts(const google::protobuf::Message& message) {
  using google::protobuf::FieldDescriptor;
  const auto& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      bool good = true;
      if (field->type() == FieldDescriptor::TYPE_STRING) {
        good = IsValidUtf8(field->is_repeated() ? reflection.GetRepeatedString(message, field, i)
                                                : reflection.GetString(message, field));
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        const absl::Status inner =
            CheckTexts(field->is_repeated() ? reflection.GetRepeatedMessage(message, field, i)
                                            : reflection.GetMessage(message, field));
        if (!inner.ok() && !field->is_map()) return inner;
        good = inner.ok();
      }
      if (!good) return MakeFieldError({field->name(), "UTF-8", "other bytes"});
    }
  }
  return absl::OkStatus();
}

std::string DefaultDataDir(const EnvironmentReader& environment) {
  if (std::string dir = environment("LL_DATA_DIR"); !dir.empty()) return dir;
  return environment("HOME") + "/.local/share/ll";
}

absl::StatusOr<std::unique_ptr<Client>> Client::Create(const ClientOptions& options,
                                                       const EnvironmentReader& environment) {
  const std::string data_dir =
      options.data_dir.empty() ? DefaultDataDir(environment) : options.data_dir;
  ClientOptions chosen = options;
  const bool elsewhere = options.context.empty() && (!options.coordinator.empty() ||
                                                     !environment("LLCTL_COORDINATOR").empty());
  if (!elsewhere) {  // a context's token is for the context's coordinator alone
    LL_ASSIGN_OR_RETURN(const CoordinatorContext context,
                        ChosenContext(options.context, environment));
    const auto fill = [](std::string& value, const std::string& from) {
      if (value.empty()) value = from;
    };
    const auto unset = [&](const char* name) {
      return !options.context.empty() || environment(name).empty();
    };
    fill(chosen.coordinator, context.coordinator);
    if (unset("LLCTL_CA")) fill(chosen.ca_file, context.ca_file);
    if (unset("LLCTL_TOKEN")) fill(chosen.token_file, context.token_file);
  }
  std::string address = chosen.coordinator;
  if (address.empty()) address = environment("LLCTL_COORDINATOR");
  if (address.empty()) address = LocalAddress(data_dir);
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> addresses, ParseAddresses(address));
  LL_ASSIGN_OR_RETURN(const std::string token,
                      FindToken(chosen, environment, data_dir, AllLoopback(addresses)));
  chosen.coordinator = address;
  return CreateWithToken(chosen, environment, token);
}

absl::StatusOr<std::unique_ptr<Client>> Client::CreateWithToken(
    const ClientOptions& options, const EnvironmentReader& environment, const std::string& token) {
  ChannelConfig config{.token = token};
  LL_ASSIGN_OR_RETURN(config.addresses, ParseAddresses(options.coordinator));
  config.ca_file = options.ca_file.empty() ? environment("LLCTL_CA") : options.ca_file;
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = MakeChannel(config);
  if (!channel.ok()) {
    // Other faults (a name that does not resolve, a token without TLS) keep their own code.
    const bool file =
        absl::IsNotFound(channel.status()) || absl::IsPermissionDenied(channel.status());
    return file ? AsUsageError(channel.status()) : channel.status();
  }
  return std::unique_ptr<Client>(
      new Client(*std::move(channel), std::move(config), options.coordinator, options.timeout));
}

Client::Client(std::shared_ptr<grpc::Channel> channel, ChannelConfig config, std::string address,
               absl::Duration timeout)
    : config_(std::move(config)),
      address_(std::move(address)),
      several_(address_.find(',') != std::string::npos),
      timeout_(timeout),
      jobs_(v1::Jobs::NewStub(channel)),
      admin_(v1::Admin::NewStub(channel)),
      schedules_(v1::Schedules::NewStub(channel)) {}

// Of several coordinators none serves: what one of those that can be reached says about it.
absl::Status Client::AskEach() const {
  absl::Status answer;
  for (const std::string& address : config_.addresses) {
    ChannelConfig one = config_;
    one.addresses = {address};
    const auto channel = MakeChannel(one);
    if (!channel.ok()) continue;
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(1)));
    v1::VersionResponse ignored;
    const grpc::Status status = v1::Admin::NewStub(*channel)->Version(&context, {}, &ignored);
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE || status.error_details().empty())
      continue;
    answer = FromGrpcStatus(status);
    if (ErrorLeader(answer).empty()) break;
  }
  return answer;
}

absl::Status Client::Explain(const grpc::Status& grpc_status) const {
  absl::Status status = FromGrpcStatus(grpc_status);
  switch (status.code()) {
    case absl::StatusCode::kUnavailable: {
      if (const std::string leader = ErrorLeader(status); !leader.empty()) {
        return FieldStatus(
            status.code(), "coordinator", status.message(),
            leader == "none" ? "" : "give --coordinator or LLCTL_COORDINATOR all addresses");
      }
      // Its own words, where it has answered.
      if (!grpc_status.error_details().empty()) return status;
      if (several_) {
        const absl::Status answer = AskEach();
        // A standby's advice is for those who named it alone.
        if (!ErrorLeader(answer).empty()) {
          return FieldStatus(answer.code(), "coordinator",
                             absl::StrCat("none of ", address_, " leads at this moment"),
                             "try again in some seconds; the coordinators' logs say why");
        }
        if (!answer.ok()) return answer;
      }
      const absl::string_view cause = LastCause(status.message());
      const std::string tls = TlsHint(cause, config_, "--ca or LLCTL_CA");
      return FieldStatus(
          status.code(), "coordinator", absl::StrCat("cannot reach ", address_, " (", cause, ")"),
          tls.empty() ? "start ll-coordinator, or name one with --coordinator HOST:PORT or "
                        "LLCTL_COORDINATOR"
                      : tls);
    }
    case absl::StatusCode::kDeadlineExceeded:
      return FieldStatus(
          status.code(), "timeout",
          absl::StrCat("no answer from ", address_, " within ", HumanDuration(timeout_)),
          "give more time with --timeout SECONDS");
    case absl::StatusCode::kUnauthenticated:
      if (!ErrorHint(status).empty()) return status;
      return FieldStatus(status.code(), "token", status.message(),
                         "set LLCTL_TOKEN, or give --token-file or the coordinator's --data-dir");
    default:
      return status;
  }
}

}  // namespace ll
