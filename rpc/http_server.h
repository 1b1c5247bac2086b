// A small HTTP server for a daemon's pages: /metrics for Prometheus, /healthz for probes.
//
// A web page that a person on this host looks at must not be able to read them: requests of another
// origin, and requests whose Host is a foreign name (DNS rebinding), are refused.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace ll {

struct HttpAnswer {
  int status = 200;
  std::string type = "text/plain; charset=utf-8";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers = {};  // without line breaks
};

struct HttpQuestion {
  std::string method;                          // GET, HEAD or POST
  std::string path;                            // as sent, without the query
  std::string query;                           // as sent
  std::map<std::string, std::string> headers;  // those of HttpServer::kHeaders that are there
  std::string body;                            // of a POST
};

class HttpServer {
 public:
  // Called on the server's threads, several at once.
  using Page = std::function<HttpAnswer()>;
  using Site = std::function<HttpAnswer(const HttpQuestion&)>;

  // Headers that a site is told.
  static constexpr const char* kHeaders[] = {"Authorization", "Cookie", "If-None-Match"};
  static constexpr int kMaxBodyBytes = 16 << 10;  // of a POST; longer ones are refused

  // Serves `pages` (by path) at "HOST:PORT"; port 0 takes any free one. Every other path is the
  // `site`'s, whose HTML goes compressed to those who take that; without one it is not found.
  // Errors (field "http"): bad address; Unavailable where the port is in use.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& address,
                                                           std::map<std::string, Page> pages,
                                                           Site site = nullptr);
  virtual ~HttpServer() = default;
  // "HOST:PORT" with the real port.
  virtual std::string address() const = 0;
};

}  // namespace ll
