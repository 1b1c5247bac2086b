#include "storage/s3_config.h"

#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace ll {
namespace {

constexpr absl::string_view kDefaultRegion = "us-east-1";

std::string FileOr(const Environment& environment, const char* variable, const char* below_home) {
  if (const auto path = environment(variable)) return *path;
  const auto home = environment("HOME");
  return home ? absl::StrCat(*home, "/.aws/", below_home) : "";
}

std::map<std::string, std::string> ProfileIn(const std::string& path, const std::string& profile) {
  const auto text = path.empty() ? absl::NotFoundError("") : ReadFile(path);
  return text.ok() ? IniSection(*text, profile) : std::map<std::string, std::string>();
}

std::string ValueOr(const std::map<std::string, std::string>& section, const char* key,
                    absl::string_view otherwise) {
  const auto it = section.find(key);
  return it == section.end() ? std::string(otherwise) : it->second;
}

// It becomes part of a host's name and of a signature.
absl::Status CheckRegion(const std::string& region) {
  for (const char c : region) {
    if (!absl::ascii_isalnum(c) && c != '-')
      return MakeFieldError({"AWS_REGION", "letters, digits and '-'", OneLine(region)});
  }
  return absl::OkStatus();
}

absl::Status CheckEndpoint(const std::string& endpoint) {
  absl::string_view host = endpoint;
  const bool scheme =
      absl::ConsumePrefix(&host, "https://") || absl::ConsumePrefix(&host, "http://");
  if (scheme && !host.empty() && !absl::StrContains(host, "/") && !absl::StrContains(host, "@") &&
      !absl::StrContains(host, "?")) {
    return absl::OkStatus();
  }
  return MakeFieldError({"AWS_ENDPOINT_URL", "https://HOST[:PORT] or http://HOST[:PORT]",
                         absl::StrCat("\"", OneLine(endpoint), "\"")});
}

}  // namespace

Environment RealEnvironment() {
  return [](const char* name) -> std::optional<std::string> {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') return std::nullopt;
    return std::string(value);
  };
}

std::map<std::string, std::string> IniSection(absl::string_view text, absl::string_view name) {
  std::map<std::string, std::string> out;
  bool here = false;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#' || line[0] == ';') continue;
    if (line[0] == '[') {
      absl::ConsumePrefix(&line, "[");
      absl::ConsumeSuffix(&line, "]");
      absl::ConsumePrefix(&line, "profile ");
      here = absl::StripAsciiWhitespace(line) == name;
      continue;
    }
    const size_t equals = line.find('=');
    if (!here || equals == absl::string_view::npos) continue;
    out[std::string(absl::StripAsciiWhitespace(line.substr(0, equals)))] =
        std::string(absl::StripAsciiWhitespace(line.substr(equals + 1)));
  }
  return out;
}

absl::StatusOr<S3Config> S3ConfigFromEnvironment(const Environment& environment) {
  S3Config config;
  const std::string profile = environment("AWS_PROFILE").value_or("default");
  config.credentials.access_key = environment("AWS_ACCESS_KEY_ID").value_or("");
  config.credentials.secret_key = environment("AWS_SECRET_ACCESS_KEY").value_or("");
  config.credentials.session_token = environment("AWS_SESSION_TOKEN").value_or("");
  if (config.credentials.access_key.empty() || config.credentials.secret_key.empty()) {
    const auto section =
        ProfileIn(FileOr(environment, "AWS_SHARED_CREDENTIALS_FILE", "credentials"), profile);
    config.credentials = {ValueOr(section, "aws_access_key_id", ""),
                          ValueOr(section, "aws_secret_access_key", ""),
                          ValueOr(section, "aws_session_token", "")};
  }
  if (config.credentials.access_key.empty() || config.credentials.secret_key.empty()) {
    return FieldStatus(
        absl::StatusCode::kUnauthenticated, "AWS_ACCESS_KEY_ID",
        "there are no credentials for S3 here",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for ll-worker, or a profile "
        "in AWS_SHARED_CREDENTIALS_FILE");
  }
  config.region =
      environment("AWS_REGION").value_or(environment("AWS_DEFAULT_REGION").value_or(""));
  if (config.region.empty()) {
    config.region = ValueOr(ProfileIn(FileOr(environment, "AWS_CONFIG_FILE", "config"), profile),
                            "region", kDefaultRegion);
  }
  LL_RETURN_IF_ERROR(CheckRegion(config.region));
  config.endpoint =
      environment("AWS_ENDPOINT_URL_S3").value_or(environment("AWS_ENDPOINT_URL").value_or(""));
  while (absl::EndsWith(config.endpoint, "/")) config.endpoint.pop_back();
  if (!config.endpoint.empty()) LL_RETURN_IF_ERROR(CheckEndpoint(config.endpoint));
  config.ca_file = environment("AWS_CA_BUNDLE").value_or("");
  const std::string style = environment("LL_S3_ADDRESSING_STYLE").value_or("auto");
  if (style != "auto" && style != "path" && style != "virtual")
    return MakeFieldError({"LL_S3_ADDRESSING_STYLE", "auto, path or virtual", OneLine(style)});
  config.addressing = style == "path"      ? AddressingStyle::kPath
                      : style == "virtual" ? AddressingStyle::kVirtual
                                           : AddressingStyle::kAuto;
  if (const auto text = environment("LL_S3_DEADLINE_S")) {
    int64_t seconds = 0;
    if (!absl::SimpleAtoi(*text, &seconds) || seconds < 1 || seconds > 86'400)
      return MakeFieldError({"LL_S3_DEADLINE_S", "1 to 86400 seconds", OneLine(*text)});
    config.deadline = absl::Seconds(seconds);
  }
  return config;
}

absl::StatusOr<S3Endpoint> EndpointOf(const S3Config& config, const std::string& bucket) {
  const std::string base = config.endpoint.empty()
                               ? absl::StrCat("https://s3.", config.region, ".amazonaws.com")
                               : config.endpoint;
  const bool in_name = config.addressing == AddressingStyle::kVirtual ||
                       (config.addressing == AddressingStyle::kAuto && config.endpoint.empty() &&
                        !absl::StrContains(bucket, "."));
  if (!in_name) return S3Endpoint{base, absl::StrCat("/", bucket)};
  const size_t host = base.find("://") + 3;
  return S3Endpoint{absl::StrCat(base.substr(0, host), bucket, ".", base.substr(host)), ""};
}

}  // namespace ll
