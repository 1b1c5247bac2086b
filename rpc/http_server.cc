#include "rpc/http_server.h"

#include <CivetServer.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

#include <atomic>
#include <chrono>
#include <list>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "rpc/channel.h"

namespace ll {
namespace {

absl::string_view ReasonOf(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 303:
      return "See Other";
    case 304:
      return "Not Modified";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 413:
      return "Content Too Large";
    default:
      return "Service Unavailable";
  }
}

void Write(mg_connection* connection, const HttpAnswer& answer, bool with_body) {
  std::string head = absl::StrCat(
      "HTTP/1.1 ", answer.status, " ", ReasonOf(answer.status), "\r\nContent-Type: ", answer.type,
      "\r\nContent-Length: ", answer.body.size(), "\r\nX-Content-Type-Options: nosniff\r\n");
  for (const auto& [name, value] : answer.headers)
    absl::StrAppend(&head, name, ": ", value, "\r\n");
  absl::StrAppend(&head, "\r\n");
  mg_write(connection, head.data(), head.size());
  if (with_body) mg_write(connection, answer.body.data(), answer.body.size());
}

// A page of a thousand jobs is half a megabyte of which next to everything repeats itself. Pages
// hold no secret, and requests of other sites are refused, so their sizes tell nothing (BREACH).
// What cannot be compressed goes as it is.
void CompressPage(const char* accepted, HttpAnswer& answer) {
  constexpr size_t kWorthIt = 2048;
  if (accepted == nullptr || !absl::StrContains(accepted, "gzip") || answer.status != 200 ||
      !absl::StartsWith(answer.type, "text/html") || answer.body.size() < kWorthIt) {
    return;
  }
  z_stream stream{};
  constexpr int kGzip = 15 + 16;  // the largest window, in gzip's format
  if (deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, kGzip, 8, Z_DEFAULT_STRATEGY) != Z_OK) return;
  std::string packed(deflateBound(&stream, answer.body.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(answer.body.data());
  stream.avail_in = static_cast<uInt>(answer.body.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  const bool whole = deflate(&stream, Z_FINISH) == Z_STREAM_END;
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  if (!whole) return;
  answer.body = std::move(packed);
  answer.headers.emplace_back("Content-Encoding", "gzip");
  answer.headers.emplace_back("Vary", "Accept-Encoding");
}

bool IsForeign(mg_connection* connection) {
  const char* origin = mg_get_header(connection, "Origin");
  const char* header = mg_get_header(connection, "Host");
  if (origin != nullptr && (header == nullptr || absl::StrCat("http://", header) != origin))
    return true;
  if (header == nullptr) return false;
  std::string host = header;
  if (host.empty() || host.front() == '[') return false;  // a numeric IPv6 address
  const size_t colon = host.rfind(':');
  if (colon != std::string::npos) host.resize(colon);
  return host != "localhost" && host.find_first_not_of("0123456789.") != std::string::npos;
}

class PageHandler : public CivetHandler {
 public:
  explicit PageHandler(HttpServer::Page page) : page_(std::move(page)) {}
  bool handleGet(CivetServer*, mg_connection* connection) override {
    return Serve(connection, true);
  }
  bool handleHead(CivetServer*, mg_connection* connection) override {
    return Serve(connection, false);
  }

 private:
  bool Serve(mg_connection* connection, bool with_body) {
    if (IsForeign(connection)) {
      Write(connection, {.status = 403, .body = "ask for this page by address\n"}, with_body);
    } else {
      Write(connection, page_(), with_body);
    }
    return true;
  }
  HttpServer::Page page_;
};

class SiteHandler : public CivetHandler {
 public:
  explicit SiteHandler(HttpServer::Site site) : site_(std::move(site)) {}
  bool handleGet(CivetServer*, mg_connection* connection) override {
    return Serve(connection, true);
  }
  bool handleHead(CivetServer*, mg_connection* connection) override {
    return Serve(connection, false);
  }
  bool handlePost(CivetServer*, mg_connection* connection) override {
    return Serve(connection, true);
  }

 private:
  bool Serve(mg_connection* connection, bool with_body) {
    if (IsForeign(connection)) {
      Write(connection, {.status = 403, .body = "ask for this page by address\n"}, with_body);
      return true;
    }
    const mg_request_info* info = mg_get_request_info(connection);
    HttpQuestion request;
    request.method = info->request_method;
    request.path = info->local_uri == nullptr ? "" : info->local_uri;
    request.query = info->query_string == nullptr ? "" : info->query_string;
    for (const char* name : HttpServer::kHeaders) {
      if (const char* value = mg_get_header(connection, name); value != nullptr)
        request.headers[name] = value;
    }
    if (request.method == "POST" && !ReadBody(connection, info->content_length, request.body)) {
      Write(connection, {.status = 413, .body = "the request is too long\n"}, true);
      return true;
    }
    HttpAnswer answer = site_(request);
    CompressPage(mg_get_header(connection, "Accept-Encoding"), answer);
    Write(connection, answer, with_body);
    return true;
  }

  static bool ReadBody(mg_connection* connection, long long length, std::string& body) {
    if (length < 0 || length > HttpServer::kMaxBodyBytes) return false;
    body.resize(static_cast<size_t>(length));
    size_t have = 0;
    while (have < body.size()) {
      const int got = mg_read(connection, body.data() + have, body.size() - have);
      if (got <= 0) return false;
      have += static_cast<size_t>(got);
    }
    return true;
  }

  HttpServer::Site site_;
};

class CivetHttp : public HttpServer {
 public:
  CivetHttp(const std::vector<std::string>& options, std::string host,
            std::map<std::string, Page> pages, Site site)
      : host_(std::move(host)),
        has_site_(site != nullptr),
        site_(std::move(site)),
        server_(options) {
    for (auto& [path, page] : pages) {
      server_.addHandler(path, handlers_.emplace_back(std::move(page)));
    }
    if (has_site_) server_.addHandler("**", site_);
  }
  // civetweb looks at its stop flag only when a connection comes or two seconds have passed;
  // knocking makes a stop quick.
  ~CivetHttp() override {
    std::atomic<bool> closed{false};
    std::thread knocker([this, &closed, port = Port()] {
      for (int i = 0; i < 200 && !closed; ++i) {
        Knock(port);
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
    });
    server_.close();
    closed = true;
    knocker.join();
  }

  std::string address() const override {
    const bool v6 = host_.find(':') != std::string::npos;
    return absl::StrCat(v6 ? "[" : "", host_, v6 ? "]" : "", ":", Port());
  }

 private:
  int Port() const {
    const std::vector<int> ports = const_cast<CivetServer&>(server_).getListeningPorts();
    return ports.empty() ? 0 : ports[0];
  }
  void Knock(int port) const {
    addrinfo hints{};
    hints.ai_flags = AI_NUMERICHOST;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(host_.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return;
    const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
      connect(fd, found->ai_addr, found->ai_addrlen);
      close(fd);
    }
    freeaddrinfo(found);
  }

  std::string host_;
  std::list<PageHandler> handlers_;
  const bool has_site_;
  SiteHandler site_;
  CivetServer server_;  // last: stops serving before the pages go
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& address,
                                                              std::map<std::string, Page> pages,
                                                              Site site) {
  LL_ASSIGN_OR_RETURN(HostPort parsed, ParseHostPort(address, "http"));
  const std::string host = parsed.host == "localhost" ? "127.0.0.1" : parsed.host;
  const bool v6 = host.find(':') != std::string::npos;
  const std::vector<std::string> options = {
      "listening_ports",    absl::StrCat(v6 ? "[" : "", host, v6 ? "]" : "", ":", parsed.port),
      "num_threads",        site == nullptr ? "2" : "8",
      "request_timeout_ms", "10000"};
  try {  // civetweb's C++ class reports a port in use by throwing
    return std::make_unique<CivetHttp>(options, host, std::move(pages), std::move(site));
  } catch (const CivetException&) {
    return FieldStatus(
        absl::StatusCode::kUnavailable, "http", absl::StrCat("cannot listen at ", address),
        "another process uses the port, or the address is not this host's; give another --http");
  }
}

}  // namespace ll
