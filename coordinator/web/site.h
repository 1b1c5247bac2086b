// The web page: routes, who is logged in, and the headers that every answer has.
//
// Nothing is changed through it, it loads nothing from elsewhere, and its Content-Security-Policy
// allows no inline script or style, so that what a user wrote into a job's name stays text.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/ids.h"
#include "coordinator/web/api_client.h"
#include "coordinator/web/job_charts.h"
#include "coordinator/web/sessions.h"
#include "rpc/http_server.h"

namespace ll {

// Thread-safe.
class Site {
 public:
  // `api` leads to the services; an in-process one must be open as long as pages are served (gRPC
  // 1.51 crashes in a call on one whose server is gone). Clock and random (thread-safe) outlive it.
  Site(const std::shared_ptr<grpc::Channel>& api, Clock& clock, Random& random);

  HttpAnswer Serve(const HttpQuestion& request);

 private:
  HttpAnswer ServeAsset(const HttpQuestion& request) const;
  HttpAnswer ServePage(const HttpQuestion& request);
  HttpAnswer LogIn(const HttpQuestion& request);
  HttpAnswer LogOut(const HttpQuestion& request);

  ApiClient client_;
  Clock& clock_;
  Sessions sessions_;
  JobCharts charts_;
};

}  // namespace ll
