// A server's answers for tests, and what it was asked: no network.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "storage/http.h"

namespace ll {

class FakeHttp : public HttpTransport {
 public:
  struct Asked {
    std::string line;  // "POST http://h:1/path"
    std::string body;
    std::vector<std::pair<std::string, std::string>> headers;
  };
  std::function<absl::StatusOr<HttpResponse>(const HttpRequest& request)> answer =
      [](const HttpRequest&) { return HttpResponse{.status = 200, .body = "{}"}; };

  absl::StatusOr<HttpResponse> Send(const HttpRequest& request) override {
    absl::MutexLock lock(&mu_);
    asked_.push_back({absl::StrCat(request.method, " ", request.scheme_host, request.path),
                      std::string(request.body), request.headers});
    return answer(request);
  }
  std::vector<Asked> asked() {
    absl::MutexLock lock(&mu_);
    return asked_;
  }

 private:
  absl::Mutex mu_;
  std::vector<Asked> asked_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ll
