// A small HTTP server for a daemon's pages: /metrics for Prometheus, /healthz for probes.
//
// A web page that a person on this host looks at must not be able to read them: requests with an
// Origin header, and requests whose Host is a foreign name (DNS rebinding), are refused.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace ll {

struct HttpAnswer {
  int status = 200;
  std::string type = "text/plain; charset=utf-8";
  std::string body;
};

class HttpServer {
 public:
  // Called on the server's threads.
  using Page = std::function<HttpAnswer()>;

  // Serves `pages` (by path) at "HOST:PORT"; port 0 takes any free one.
  // Errors (field "http"): bad address; Unavailable where the port is in use.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& address,
                                                           std::map<std::string, Page> pages);
  virtual ~HttpServer() = default;
  // "HOST:PORT" with the real port.
  virtual std::string address() const = 0;
};

}  // namespace ll
