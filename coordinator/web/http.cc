#include "coordinator/web/http.h"

#include <prometheus/text_serializer.h>

namespace ll {

absl::StatusOr<std::unique_ptr<HttpServer>> StartHttp(const std::string& address,
                                                      const Driver& driver,
                                                      const Metrics& metrics) {
  std::map<std::string, HttpServer::Page> pages;
  pages["/healthz"] = [&driver] {
    if (driver.serving()) return HttpAnswer{.body = "ok\n"};
    return HttpAnswer{.status = 503, .body = "the store cannot be used\n"};
  };
  pages["/metrics"] = [&metrics] {
    return HttpAnswer{
        .type = "text/plain; version=0.0.4; charset=utf-8",
        .body = prometheus::TextSerializer().Serialize(metrics.registry()->Collect())};
  };
  return HttpServer::Start(address, std::move(pages));
}

}  // namespace ll
