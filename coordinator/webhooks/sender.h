// One webhook on its way: signed, sent, judged.
//
// The headers are those of the Standard Webhooks specification: webhook-id, webhook-timestamp
// (seconds) and webhook-signature, "v1," and the base64 of HMAC-SHA256 over "ID.TIMESTAMP.BODY",
// one for each key, with a space between.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "coordinator/webhooks/endpoint.h"

namespace ll {

struct WebhookMessage {
  std::string id;  // the same however often it is sent
  std::string body;
};

struct PostOutcome {
  bool delivered = false;  // answered with 2xx
  bool answered = false;   // somebody answered, with whatever
  std::string why;         // of one that was not delivered; without secrets
};

// "v1,BASE64 v1,BASE64".
std::string WebhookSignature(const std::vector<std::string>& secrets, absl::string_view id,
                             int64_t timestamp, absl::string_view body);

// Sends and waits for at most the endpoint's timeout. No redirect is followed, no proxy used, no
// answer read beyond 64 KiB; each address is checked by the endpoint's rules right before it is
// connected to. `stop` ends it within about a second. Thread-safe.
PostOutcome PostWebhook(const WebhookEndpoint& endpoint, const std::vector<std::string>& secrets,
                        const WebhookMessage& message, absl::Time now,
                        const std::atomic<bool>& stop);

}  // namespace ll
