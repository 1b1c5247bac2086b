// Where webhooks go: what the operator's file (--webhooks) says. A job can name an endpoint (label
// `notify`), never a URL.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/core/types.h"
#include "coordinator/webhooks/address_rules.h"

namespace ll {

// The label of a job with the endpoints that hear of it, separated by commas or blanks.
inline constexpr char kNotifyLabel[] = "notify";

struct WebhookEndpoint {
  std::string name;
  std::string url;
  std::string secret_file;
  std::string ca_file;    // empty: the system's authorities
  bool all_jobs = false;  // else only those that name it
  std::set<JobState> states = {JobState::kSucceeded, JobState::kFailed, JobState::kCancelled};
  std::vector<std::string> tenants;  // whose jobs; empty: everybody's
  AddressRules rules;
  bool plain = false;  // http://, to loopback alone
  absl::Duration timeout = absl::Seconds(10);
  absl::Duration give_up_after = absl::Hours(72);

  bool ServesTenant(const std::string& tenant) const;
  // Whether it hears of this job at all.
  bool Wants(const Job& job) const;
};

using WebhookEndpoints = std::map<std::string, WebhookEndpoint>;
inline constexpr size_t kMaxWebhookEndpoints = 32;  // each has a thread

// InvalidArgument (field "webhooks"), with the key. Secrets are not read.
absl::StatusOr<WebhookEndpoints> ParseWebhooks(const std::string& yaml);

// The keys of `path`, newest first: one a line, at most two, each at least 24 bytes; "whsec_" and
// base64, or the bytes themselves. Errors: others may read the file; it holds no such key. They
// never repeat what it holds.
absl::StatusOr<std::vector<std::string>> ReadWebhookSecrets(const std::string& path);

// Why a job of `tenant` may not have the label `notify: NAMES`; OK where it may.
absl::Status CheckNotifyLabel(const std::string& names, const std::string& tenant,
                              const WebhookEndpoints& endpoints);

}  // namespace ll
