// Endpoint, region and credentials of S3, from where AWS's own tools take them. Never from a spec,
// and never in a message or a log.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "storage/sigv4.h"

namespace ll {

enum class AddressingStyle { kAuto, kPath, kVirtual };

struct S3Config {
  AwsCredentials credentials;
  std::string region;
  std::string endpoint;  // "http://127.0.0.1:9000"; empty: Amazon's of the region
  std::string ca_file;   // of a private endpoint; empty: the system's
  // A bucket's place: in the path or in the host's name. Auto: in the name where the endpoint is
  // Amazon's and the bucket has no dot, which a certificate would not cover.
  AddressingStyle addressing = AddressingStyle::kAuto;
  absl::Duration deadline = absl::Minutes(10);  // of one exchange with all its tries
};

// One environment variable; nullopt where it is not set or empty.
using Environment = std::function<std::optional<std::string>(const char* name)>;
Environment RealEnvironment();

// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, else the profile AWS_PROFILE
// ("default") of AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials); AWS_REGION, AWS_DEFAULT_REGION,
// the profile's in AWS_CONFIG_FILE (~/.aws/config), else us-east-1; AWS_ENDPOINT_URL_S3 or
// AWS_ENDPOINT_URL; AWS_CA_BUNDLE; LL_S3_ADDRESSING_STYLE path, virtual or auto; LL_S3_DEADLINE_S.
// Errors: Unauthenticated without credentials, InvalidArgument (a bad endpoint or style).
absl::StatusOr<S3Config> S3ConfigFromEnvironment(const Environment& environment);

// Where the requests for a bucket go.
struct S3Endpoint {
  std::string scheme_host;
  std::string path_prefix;  // "/bucket", or empty
};
absl::StatusOr<S3Endpoint> EndpointOf(const S3Config& config, const std::string& bucket);

// The keys of one section of an INI file as AWS writes it: [NAME] or [profile NAME].
std::map<std::string, std::string> IniSection(absl::string_view text, absl::string_view name);

}  // namespace ll
