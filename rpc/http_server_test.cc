#include "rpc/http_server.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_matchers.h"
#include "rpc/channel.h"

namespace ll {
namespace {
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// Sends `request` to this host's `port` and returns the whole answer.
std::string Talk(int port, const std::string& request) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  timeval timeout{5, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
  shutdown(fd, SHUT_WR);  // no body comes where one was announced
  std::string answer;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof(buffer))) > 0;) answer.append(buffer, n);
  close(fd);
  return answer;
}

class HttpServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server =
        HttpServer::Start("127.0.0.1:0", {{"/healthz", [] { return HttpAnswer{.body = "ok\n"}; }}});
    LL_ASSERT_OK(server);
    server_ = *std::move(server);
    LL_ASSERT_OK_AND_ASSIGN(HostPort at, ParseHostPort(server_->address(), "http"));
    port_ = at.port;
  }
  std::string Get(const std::string& path, const std::string& headers) {
    return Talk(port_,
                absl::StrCat("GET ", path, " HTTP/1.1\r\n", headers, "Connection: close\r\n\r\n"));
  }
  std::unique_ptr<HttpServer> server_;
  int port_ = 0;
};

TEST_F(HttpServerTest, ServesItsPagesAndNothingElse) {
  const std::string answer = Get("/healthz", "Host: 127.0.0.1\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK"));
  EXPECT_THAT(answer, HasSubstr("\r\n\r\nok\n"));
  EXPECT_THAT(Get("/", "Host: 127.0.0.1\r\n"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(Get("/../etc/passwd", "Host: 127.0.0.1\r\n"), Not(HasSubstr("200 OK")));
}

TEST_F(HttpServerTest, RefusesForeignPages) {
  EXPECT_THAT(Get("/healthz", "Host: evil.example\r\n"), StartsWith("HTTP/1.1 403"));
  EXPECT_THAT(Get("/healthz", "Host: 127.0.0.1.evil.example:80\r\n"), StartsWith("HTTP/1.1 403"));
  EXPECT_THAT(Get("/healthz", "Host: localhost\r\nOrigin: http://evil.example\r\n"),
              StartsWith("HTTP/1.1 403"));
  EXPECT_THAT(Get("/healthz", "Host: localhost:7071\r\n"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Get("/healthz", "Host: localhost:7071\r\nOrigin: http://localhost:7071\r\n"),
              StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Get("/healthz", "Host: localhost:7071\r\nOrigin: http://localhost:7073\r\n"),
              StartsWith("HTTP/1.1 403"));
  EXPECT_THAT(Get("/healthz", "Host: localhost:7071\r\nOrigin: null\r\n"),
              StartsWith("HTTP/1.1 403"));
}

TEST(HttpSiteTest, IsGivenEveryOtherPath) {
  HttpQuestion seen;
  auto server =
      HttpServer::Start("127.0.0.1:0", {{"/healthz", [] { return HttpAnswer{.body = "ok\n"}; }}},
                        [&seen](const HttpQuestion& request) {
                          seen = request;
                          return HttpAnswer{.status = 303, .headers = {{"Location", "/jobs"}}};
                        });
  LL_ASSERT_OK(server);
  LL_ASSERT_OK_AND_ASSIGN(HostPort at, ParseHostPort((*server)->address(), "http"));
  const std::string end = "Host: localhost\r\nConnection: close\r\n";
  EXPECT_THAT(Talk(at.port, absl::StrCat("GET /healthz HTTP/1.1\r\n", end, "\r\n")),
              HasSubstr("ok\n"));
  EXPECT_EQ(seen.path, "");
  const std::string answer = Talk(at.port, absl::StrCat("GET /jobs/a%20b?n=1&x=%2F HTTP/1.1\r\n",
                                                        end, "Cookie: a=b\r\nX-Other: 1\r\n\r\n"));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 303 See Other"));
  EXPECT_THAT(answer, HasSubstr("\r\nLocation: /jobs\r\n"));
  EXPECT_EQ(seen.method, "GET");
  EXPECT_EQ(seen.query, "n=1&x=%2F");
  EXPECT_EQ(seen.headers, (std::map<std::string, std::string>{{"Cookie", "a=b"}}));
  Talk(at.port, absl::StrCat("POST /login HTTP/1.1\r\n", end, "Content-Length: 7\r\n\r\ntoken=x"));
  EXPECT_EQ(seen.method, "POST");
  EXPECT_EQ(seen.body, "token=x");
  seen = {};
  EXPECT_THAT(Talk(at.port, absl::StrCat("POST /login HTTP/1.1\r\n", end,
                                         "Content-Length: 9000000\r\n\r\n")),
              StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(
      Talk(at.port,
           absl::StrCat("GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")),
      StartsWith("HTTP/1.1 403"));
  EXPECT_EQ(seen.method, "");
}

TEST(HttpSiteTest, LongPagesAreCompressedForThoseWhoTakeIt) {
  std::string page;
  for (int i = 0; i < 1000; ++i) absl::StrAppend(&page, "<tr><td>", i, "</td></tr>\n");
  std::string type = "text/html; charset=utf-8";
  auto server = HttpServer::Start("127.0.0.1:0", {}, [&](const HttpQuestion&) {
    return HttpAnswer{.type = type, .body = page};
  });
  LL_ASSERT_OK(server);
  LL_ASSERT_OK_AND_ASSIGN(HostPort at, ParseHostPort((*server)->address(), "http"));
  const auto get = [&](const std::string& headers) {
    return Talk(at.port, absl::StrCat("GET / HTTP/1.1\r\nHost: localhost\r\n", headers,
                                      "Connection: close\r\n\r\n"));
  };
  EXPECT_THAT(get(""), EndsWith("\r\n\r\n" + page));
  const std::string packed = get("Accept-Encoding: br, gzip\r\n");
  EXPECT_THAT(packed, HasSubstr("\r\nContent-Encoding: gzip\r\n"));
  EXPECT_LT(packed.size(), page.size() / 4);
  const std::string body = packed.substr(packed.find("\r\n\r\n") + 4);
  EXPECT_THAT(packed, HasSubstr(absl::StrCat("Content-Length: ", body.size(), "\r\n")));
  std::string plain(page.size() + 1, '\0');
  z_stream stream{};
  ASSERT_EQ(inflateInit2(&stream, 15 + 16), Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(body.data()));
  stream.avail_in = static_cast<uInt>(body.size());
  stream.next_out = reinterpret_cast<Bytef*>(plain.data());
  stream.avail_out = static_cast<uInt>(plain.size());
  EXPECT_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END);
  plain.resize(stream.total_out);
  inflateEnd(&stream);
  EXPECT_EQ(plain, page);
  type = "text/plain";
  EXPECT_THAT(get("Accept-Encoding: gzip\r\n"), EndsWith(page));
}

TEST_F(HttpServerTest, PortInUseIsOneLine) {
  const auto second = HttpServer::Start(server_->address(), {});
  EXPECT_THAT(second, StatusIs(absl::StatusCode::kUnavailable, server_->address()));
  EXPECT_EQ(ErrorField(second.status()), "http");
}

}  // namespace
}  // namespace ll
