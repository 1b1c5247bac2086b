#include "coordinator/webhooks/endpoint.h"

#include <curl/curl.h>
#include <netdb.h>
#include <sys/stat.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "coordinator/core/job_state.h"

namespace ll {
namespace {

constexpr size_t kShortestSecret = 24, kMostSecrets = 2;

absl::Status Bad(const std::string& key, absl::string_view expected) {
  return MakeFieldError({"webhooks", expected, absl::StrCat("something else at ", OneLine(key))});
}

bool IsEndpointName(const std::string& name) {
  return !name.empty() && name.size() <= 64 &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
         });
}

std::vector<absl::string_view> NamesIn(absl::string_view label) {
  return absl::StrSplit(label, absl::ByAnyChar(", "), absl::SkipEmpty());
}

std::string PartOf(CURLU* url, CURLUPart part) {
  char* text = nullptr;
  const bool there = curl_url_get(url, part, &text, 0) == CURLUE_OK;
  std::string out = there ? text : "";
  curl_free(text);
  return out;
}

// Refuses at once what can be told without asking a name server: literal addresses in all their
// spellings (decimal, octal, IPv4 in IPv6).
absl::Status CheckLiteral(const std::string& host, const WebhookEndpoint& endpoint,
                          const std::string& key) {
  std::string plain = host;
  if (absl::StartsWith(plain, "[")) plain = plain.substr(1, plain.size() - 2);
  addrinfo hints{}, *list = nullptr;
  hints.ai_flags = AI_NUMERICHOST;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(plain.c_str(), nullptr, &hints, &list) != 0) return absl::OkStatus();
  absl::Status status = endpoint.rules.Check(list->ai_addr);
  if (status.ok() && endpoint.plain && !AddressRules::IsLoopback(list->ai_addr))
    status = absl::PermissionDeniedError("http:// is for loopback alone");
  freeaddrinfo(list);
  if (status.ok()) return status;
  return MakeFieldError({"webhooks", absl::StrCat("a permitted address at ", key),
                         std::string(status.message()),
                         "name its range under `allow` if it is yours"});
}

absl::Status CheckUrl(WebhookEndpoint& endpoint, const std::string& key) {
  const std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> url(curl_url(), &curl_url_cleanup);
  const bool parsed = endpoint.url.size() <= 2048 && url != nullptr &&
                      curl_url_set(url.get(), CURLUPART_URL, endpoint.url.c_str(), 0) == CURLUE_OK;
  const std::string scheme = parsed ? PartOf(url.get(), CURLUPART_SCHEME) : "";
  if (scheme != "https" && !(scheme == "http" && endpoint.rules.loopback()))
    return Bad(key, "an https:// URL (http:// to this host alone, with allow-loopback)");
  endpoint.plain = scheme == "http";
  for (const CURLUPart part : {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_FRAGMENT}) {
    if (!PartOf(url.get(), part).empty())
      return Bad(key, "a URL without user, password and fragment");
  }
  return CheckLiteral(PartOf(url.get(), CURLUPART_HOST), endpoint, key);
}

absl::StatusOr<std::vector<std::string>> List(const YAML::Node& node, const std::string& key) {
  std::vector<std::string> out;
  if (!node.IsSequence()) return Bad(key, "a list");
  for (const auto& item : node) {
    if (!item.IsScalar()) return Bad(key, "a list of words");
    out.push_back(item.Scalar());
  }
  return out;
}

absl::StatusOr<bool> Truth(const YAML::Node& node, const std::string& key) {
  const std::string text = node.IsScalar() ? node.Scalar() : "";
  if (text != "true" && text != "false") return Bad(key, "true or false");
  return text == "true";
}

absl::StatusOr<absl::Duration> Seconds(const YAML::Node& node, const std::string& key,
                                       absl::Duration most) {
  double seconds = 0;
  if (!node.IsScalar() || !absl::SimpleAtod(node.Scalar(), &seconds) || !(seconds > 0) ||
      seconds > absl::ToDoubleSeconds(most)) {
    return Bad(key, absl::StrCat("seconds, up to ", absl::ToInt64Seconds(most)));
  }
  return absl::Seconds(seconds);
}

absl::StatusOr<std::set<JobState>> States(const YAML::Node& node, const std::string& key) {
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> names, List(node, key));
  std::set<JobState> out;
  for (const std::string& name : names) {
    const auto* found = std::find_if(
        std::begin(kAllJobStates), std::end(kAllJobStates),
        [&](JobState state) { return absl::EqualsIgnoreCase(JobStateName(state), name); });
    if (found == std::end(kAllJobStates)) return Bad(key, "states of jobs, as succeeded");
    out.insert(*found);
  }
  if (out.empty()) return Bad(key, "at least one state");
  return out;
}

absl::Status SetKey(WebhookEndpoint& endpoint, const std::string& name, const YAML::Node& node,
                    const std::string& key) {
  if (name == "url" || name == "secret-file" || name == "ca-file") {
    if (!node.IsScalar() || node.Scalar().empty()) return Bad(key, "a text");
    (name == "url"           ? endpoint.url
     : name == "secret-file" ? endpoint.secret_file
                             : endpoint.ca_file) = node.Scalar();
  } else if (name == "all-jobs") {
    LL_ASSIGN_OR_RETURN(endpoint.all_jobs, Truth(node, key));
  } else if (name == "allow-loopback") {
    LL_ASSIGN_OR_RETURN(const bool loopback, Truth(node, key));
    if (loopback) endpoint.rules.AllowLoopback();
  } else if (name == "states") {
    LL_ASSIGN_OR_RETURN(endpoint.states, States(node, key));
  } else if (name == "tenants") {
    LL_ASSIGN_OR_RETURN(endpoint.tenants, List(node, key));
  } else if (name == "allow") {
    LL_ASSIGN_OR_RETURN(const std::vector<std::string> ranges, List(node, key));
    for (const std::string& range : ranges) {
      if (!endpoint.rules.Allow(range).ok()) return Bad(key, "addresses, or ranges as 10.1.0.0/16");
    }
  } else if (name == "timeout") {
    LL_ASSIGN_OR_RETURN(endpoint.timeout, Seconds(node, key, absl::Minutes(1)));
  } else if (name == "give-up-after") {
    LL_ASSIGN_OR_RETURN(endpoint.give_up_after, Seconds(node, key, absl::Hours(24 * 30)));
  } else {
    return Bad(key,
               "url, secret-file, ca-file, all-jobs, states, tenants, allow, allow-loopback, "
               "timeout or give-up-after");
  }
  return absl::OkStatus();
}

absl::StatusOr<WebhookEndpoint> EndpointOf(const std::string& name, const YAML::Node& node) {
  if (!IsEndpointName(name)) return Bad(name, "a name of letters, digits, '.', '_' or '-'");
  if (!node.IsMap()) return Bad(name, "an endpoint: url, secret-file, …");
  WebhookEndpoint out;
  out.name = name;
  for (const auto& entry : node) {
    const std::string key = entry.first.Scalar();
    LL_RETURN_IF_ERROR(SetKey(out, key, entry.second, absl::StrCat(name, ".", key)));
  }
  if (out.secret_file.empty()) return Bad(name, "a secret-file");
  LL_RETURN_IF_ERROR(CheckUrl(out, absl::StrCat(name, ".url")));
  return out;
}

absl::StatusOr<WebhookEndpoints> EndpointsOf(const YAML::Node& root) {
  WebhookEndpoints out;
  if (root.IsNull()) return out;
  if (!root.IsMap()) return Bad("the top", "endpoints, by name");
  for (const auto& entry : root) {
    const std::string key = entry.first.Scalar();
    if (key != "endpoints" || !entry.second.IsMap()) return Bad(key, "endpoints, by name");
    for (const auto& endpoint : entry.second) {
      LL_ASSIGN_OR_RETURN(WebhookEndpoint made,
                          EndpointOf(endpoint.first.Scalar(), endpoint.second));
      const std::string name = made.name;
      if (!out.emplace(name, std::move(made)).second) return Bad(name, "an endpoint once");
    }
  }
  if (out.size() > kMaxWebhookEndpoints)
    return Bad("endpoints", absl::StrCat("at most ", kMaxWebhookEndpoints));
  return out;
}

}  // namespace

bool WebhookEndpoint::ServesTenant(const std::string& tenant) const {
  return tenants.empty() || std::find(tenants.begin(), tenants.end(), tenant) != tenants.end();
}

bool WebhookEndpoint::Wants(const Job& job) const {
  if (!ServesTenant(job.tenant)) return false;
  if (all_jobs) return true;
  const auto label = job.spec.labels.find(kNotifyLabel);
  if (label == job.spec.labels.end()) return false;
  for (absl::string_view named : NamesIn(label->second)) {
    if (named == name) return true;
  }
  return false;
}

absl::StatusOr<WebhookEndpoints> ParseWebhooks(const std::string& yaml) {
  try {  // yaml-cpp reports bad syntax and wrong kinds by throwing
    return EndpointsOf(YAML::Load(yaml));
  } catch (const YAML::Exception& error) {
    return MakeFieldError({"webhooks", "YAML", OneLine(error.what())});
  }
}

absl::StatusOr<std::vector<std::string>> ReadWebhookSecrets(const std::string& path) {
  struct stat st;
  if (stat(path.c_str(), &st) == 0 && (st.st_mode & 077) != 0) {
    return FieldStatus(absl::StatusCode::kFailedPrecondition, "secret-file",
                       absl::StrCat(path, ": others may read it"), "chmod 600");
  }
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  std::vector<std::string> out;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipWhitespace())) {
    absl::string_view key = absl::StripAsciiWhitespace(line);
    std::string secret(key);
    const bool encoded = absl::ConsumePrefix(&key, "whsec_");
    const bool good = !encoded || absl::Base64Unescape(key, &secret);
    if (!good || secret.size() < kShortestSecret || out.size() == kMostSecrets) {
      return MakeFieldError({"secret-file",
                             absl::StrCat("one or two lines, each a key of at least ",
                                          kShortestSecret, " bytes or whsec_ and base64"),
                             absl::StrCat("something else in ", path),
                             "openssl rand -base64 32 > FILE makes one"});
    }
    out.push_back(std::move(secret));
  }
  if (out.empty()) return MakeFieldError({"secret-file", "a key", absl::StrCat("none in ", path)});
  return out;
}

absl::Status CheckNotifyLabel(const std::string& names, const std::string& tenant,
                              const WebhookEndpoints& endpoints) {
  std::vector<absl::string_view> named = NamesIn(names);
  if (named.empty()) named.push_back("");
  for (const absl::string_view part : named) {
    const std::string name(part);
    const auto it = endpoints.find(name);
    // Another tenant's endpoint is answered as one that is not there.
    if (it != endpoints.end() && it->second.ServesTenant(tenant)) continue;
    return MakeFieldError({"labels.notify", "endpoints that the operator has configured",
                           absl::StrCat("\"", OneLine(name.substr(0, 80)), "\""),
                           "ask for its name, or leave the label out"});
  }
  return absl::OkStatus();
}

}  // namespace ll
