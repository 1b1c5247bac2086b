#include "scaler/kubernetes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

constexpr char kScale[] =
    R"({"kind":"Scale","metadata":{"name":"w","resourceVersion":"7"},"spec":{"replicas":2},)"
    R"("status":{"replicas":1}})";

class Answers : public HttpTransport {
 public:
  absl::StatusOr<HttpResponse> Send(const HttpRequest& request) override {
    sent = request;
    body = std::string(request.body);
    return answer;
  }
  absl::StatusOr<HttpResponse> answer = HttpResponse{200, {}, kScale};
  HttpRequest sent;
  std::string body;
};

class StatefulSetScaleTest : public ::testing::Test {
 protected:
  void SetUp() override { Token("one\n"); }
  void Token(absl::string_view text) { LL_ASSERT_OK(WriteFileAtomic(token_, text, 0600)); }
  void Answer(int status, const std::string& body = "{\"message\":\"because\"}") {
    http_.answer = HttpResponse{status, {{"retry-after", "7"}}, body};
  }

  const TempDir dir_;
  const std::string token_ = dir_.path() + "/token";
  Answers http_;
  StatefulSetScale scale_{{"https://k:6443", "ll", "w", token_, "/ca.crt"}, http_};
};

TEST_F(StatefulSetScaleTest, ReadsAndReplacesWithTheVersionThatItRead) {
  const auto scale = scale_.Get();
  LL_ASSERT_OK(scale.status());
  EXPECT_EQ(scale->replicas, 2);
  EXPECT_EQ(http_.sent.path, "/apis/apps/v1/namespaces/ll/statefulsets/w/scale");
  EXPECT_EQ(http_.sent.ca_file, "/ca.crt");
  EXPECT_THAT(http_.sent.headers, Contains(Pair("Authorization", "Bearer one")));
  Token("two");
  LL_ASSERT_OK(scale_.Set(*scale, 5));
  EXPECT_THAT(http_.sent.headers, Contains(Pair("Authorization", "Bearer two")));
  EXPECT_EQ(http_.sent.method, "PUT");
  const auto sent = nlohmann::json::parse(http_.body);
  EXPECT_EQ(sent["spec"]["replicas"], 5);
  EXPECT_EQ(sent["metadata"]["resourceVersion"], "7");
  Answer(200, R"({"kind":"Scale","spec":{}})");
  EXPECT_EQ(scale_.Get()->replicas, 0);
}

TEST_F(StatefulSetScaleTest, SendsNoTokenOverAPlainConnection) {
  StatefulSetScale plain({"http://127.0.0.1:8001", "ll", "w", token_, ""}, http_);
  LL_ASSERT_OK(plain.Get().status());
  EXPECT_THAT(http_.sent.headers, Not(Contains(Pair("Authorization", ::testing::_))));
}

TEST_F(StatefulSetScaleTest, ToldApartByWhatHelps) {
  using absl::StatusCode;
  const std::pair<int, StatusCode> kinds[] = {
      {401, StatusCode::kUnauthenticated},    {403, StatusCode::kPermissionDenied},
      {404, StatusCode::kNotFound},           {409, StatusCode::kAborted},
      {410, StatusCode::kUnavailable},        {429, StatusCode::kUnavailable},
      {422, StatusCode::kFailedPrecondition}, {500, StatusCode::kUnavailable},
      {504, StatusCode::kUnavailable}};
  for (const auto& [status, code] : kinds) {
    Answer(status);
    EXPECT_EQ(scale_.Get().status().code(), code) << status;
    EXPECT_THAT(scale_.Get().status().message(), HasSubstr("because"));
    EXPECT_EQ(scale_.retry_after(), absl::Seconds(7));
    // A change may have been made by a server that failed afterwards.
    EXPECT_EQ(scale_.Set({}, 1).code(), status >= 500 ? StatusCode::kUnknown : code) << status;
  }
  Answer(502, "<html>bad gateway</html>");
  EXPECT_THAT(scale_.Get().status().message(), HasSubstr("status 502"));
  http_.answer = absl::UnavailableError("cut");
  EXPECT_EQ(scale_.Get().status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(scale_.Set({}, 1).code(), StatusCode::kUnknown);
  http_.answer = absl::PermissionDeniedError("certificate");  // before anything was sent
  EXPECT_EQ(scale_.Set({}, 1).code(), StatusCode::kPermissionDenied);
}

TEST_F(StatefulSetScaleTest, RefusesWhatIsNoScale) {
  for (const char* text : {"", "[]", "{}", R"({"spec":1})", R"({"spec":{"replicas":-1}})",
                           R"({"spec":{"replicas":"2"}})", R"({"spec":{"replicas":1e99}})"}) {
    Answer(200, text);
    EXPECT_FALSE(scale_.Get().ok()) << text;
  }
}

}  // namespace
}  // namespace ll
