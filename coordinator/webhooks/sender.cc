#include "coordinator/webhooks/sender.h"

#include <curl/curl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"

namespace ll {
namespace {

constexpr size_t kMostAnswerBytes = 64 << 10;

struct Exchange {
  const WebhookEndpoint& endpoint;
  std::string refused;  // why an address was
  size_t bytes = 0;     // of the answer, headers and all
  bool too_long = false;
};

curl_socket_t OnOpenSocket(void* user, curlsocktype purpose, curl_sockaddr* address) {
  auto* exchange = static_cast<Exchange*>(user);
  absl::Status status = purpose == CURLSOCKTYPE_IPCXN
                            ? exchange->endpoint.rules.Check(&address->addr)
                            : absl::PermissionDeniedError("no connection of this kind");
  if (status.ok() && exchange->endpoint.plain && !AddressRules::IsLoopback(&address->addr))
    status = absl::PermissionDeniedError("http:// is for loopback alone");
  if (!status.ok()) {
    exchange->refused = std::string(status.message());
    return CURL_SOCKET_BAD;
  }
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

// Headers and body count alike; what is in them does not matter.
size_t OnBytes(char*, size_t one, size_t count, void* user) {
  auto* exchange = static_cast<Exchange*>(user);
  exchange->bytes += one * count;
  exchange->too_long = exchange->bytes > kMostAnswerBytes;
  return exchange->too_long ? 0 : one * count;
}

int OnProgress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<const std::atomic<bool>*>(user)->load() ? 1 : 0;
}

std::string Hmac(absl::string_view key, absl::string_view message) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  LL_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                reinterpret_cast<const unsigned char*>(message.data()), message.size(), out,
                &size) != nullptr);
  return std::string(reinterpret_cast<char*>(out), size);
}

using CurlHeaders = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

void SetUp(CURL* handle, Exchange& exchange, const WebhookMessage& message,
           const curl_slist* headers, char* detail, const std::atomic<bool>& stop) {
  const WebhookEndpoint& endpoint = exchange.endpoint;
  const long timeout_ms = static_cast<long>(absl::ToInt64Milliseconds(endpoint.timeout));
  curl_easy_setopt(handle, CURLOPT_URL, endpoint.url.c_str());
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, endpoint.plain ? "http" : "https");
  curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L);
  // A proxy of the environment would connect to what nobody has checked.
  curl_easy_setopt(handle, CURLOPT_PROXY, "");
  curl_easy_setopt(handle, CURLOPT_OPENSOCKETFUNCTION, &OnOpenSocket);
  curl_easy_setopt(handle, CURLOPT_OPENSOCKETDATA, &exchange);
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, timeout_ms);
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, timeout_ms);
  curl_easy_setopt(handle, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (!endpoint.ca_file.empty()) curl_easy_setopt(handle, CURLOPT_CAINFO, endpoint.ca_file.c_str());
  curl_easy_setopt(handle, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl_easy_setopt(handle, CURLOPT_USERAGENT, "ll-coordinator");
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(handle, CURLOPT_POST, 1L);
  curl_easy_setopt(handle, CURLOPT_POSTFIELDS, message.body.data());
  curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE, static_cast<long>(message.body.size()));
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &OnBytes);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &exchange);
  curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, &OnBytes);
  curl_easy_setopt(handle, CURLOPT_HEADERDATA, &exchange);
  curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, &OnProgress);
  curl_easy_setopt(handle, CURLOPT_XFERINFODATA, &stop);
  curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, detail);
}

}  // namespace

std::string WebhookSignature(const std::vector<std::string>& secrets, absl::string_view id,
                             int64_t timestamp, absl::string_view body) {
  const std::string text = absl::StrCat(id, ".", timestamp, ".", body);
  std::vector<std::string> out;
  for (const std::string& secret : secrets)
    out.push_back(absl::StrCat("v1,", absl::Base64Escape(Hmac(secret, text))));
  return absl::StrJoin(out, " ");
}

PostOutcome PostWebhook(const WebhookEndpoint& endpoint, const std::vector<std::string>& secrets,
                        const WebhookMessage& message, absl::Time now,
                        const std::atomic<bool>& stop) {
  static const bool ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> handle(curl_easy_init(),
                                                                   &curl_easy_cleanup);
  if (!ready || handle == nullptr) return {.why = "no memory for the connection"};
  const int64_t timestamp = absl::ToUnixSeconds(now);
  CurlHeaders headers(curl_slist_append(nullptr, "Expect:"), &curl_slist_free_all);
  for (const std::string& line :
       {std::string("Content-Type: application/json"), absl::StrCat("webhook-id: ", message.id),
        absl::StrCat("webhook-timestamp: ", timestamp),
        absl::StrCat("webhook-signature: ",
                     WebhookSignature(secrets, message.id, timestamp, message.body))}) {
    curl_slist_append(headers.get(), line.c_str());
  }
  Exchange exchange{endpoint};
  char detail[CURL_ERROR_SIZE] = "";
  SetUp(handle.get(), exchange, message, headers.get(), detail, stop);
  const CURLcode code = curl_easy_perform(handle.get());
  long status = 0;
  curl_easy_getinfo(handle.get(), CURLINFO_RESPONSE_CODE, &status);
  PostOutcome out;
  out.answered = status != 0;
  // What is too long was taken all the same, where the status says so.
  out.delivered = status >= 200 && status < 300 && (code == CURLE_OK || exchange.too_long);
  if (out.delivered) return out;
  if (!exchange.refused.empty()) {
    out.why = exchange.refused;
  } else if (code == CURLE_OK || exchange.too_long) {
    out.why = status >= 300 && status < 400 ? absl::StrCat("redirected (", status, ")")
                                            : absl::StrCat("answered ", status);
  } else {
    out.why = *detail != '\0' ? detail : curl_easy_strerror(code);
  }
  return out;
}

}  // namespace ll
