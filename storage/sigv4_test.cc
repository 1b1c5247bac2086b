#include "storage/sigv4.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/sha256.h"

namespace ll {
namespace {

// The examples of "Signature Calculations for the Authorization Header" in S3's API reference.
class SigV4 : public testing::Test {
 protected:
  std::string SignatureOf(HttpRequest request, absl::string_view body = "") {
    request.scheme_host = "https://examplebucket.s3.amazonaws.com";
    SignV4(request, Sha256Hex(body),
           {"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}, "us-east-1",
           absl::FromCivil(absl::CivilSecond(2013, 5, 24), absl::UTCTimeZone()));
    const std::string header = request.headers.back().second;
    EXPECT_EQ(request.headers.back().first, "Authorization");
    return header.substr(header.find("Signature=") + 10);
  }
};

TEST_F(SigV4, GetObject) {
  HttpRequest request;
  request.path = "/test.txt";
  request.headers = {{"Range", "bytes=0-9"}};
  EXPECT_EQ(SignatureOf(request),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST_F(SigV4, PutObject) {
  HttpRequest request;
  request.method = "PUT";
  request.path = "/" + PercentEncode("test$file.text", /*keep_slash=*/true);
  request.headers = {{"Date", "Fri, 24 May 2013 00:00:00 GMT"},
                     {"x-amz-storage-class", "REDUCED_REDUNDANCY"}};
  EXPECT_EQ(SignatureOf(request, "Welcome to Amazon S3."),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

TEST_F(SigV4, ParameterWithoutAValue) {
  HttpRequest request;
  request.query = {{"lifecycle", ""}};
  EXPECT_EQ(SignatureOf(request),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

TEST_F(SigV4, ParametersAreSorted) {
  HttpRequest request;
  request.query = {{"prefix", "J"}, {"max-keys", "2"}};
  EXPECT_EQ(SignatureOf(request),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

TEST(SigV4Token, ATokenIsSentAndSigned) {
  HttpRequest request;
  request.scheme_host = "http://127.0.0.1:9000";
  SignV4(request, Sha256Hex(""), {"a", "b", "token"}, "eu-west-1", absl::FromUnixSeconds(0));
  EXPECT_THAT(request.headers, testing::Contains(testing::Pair("X-Amz-Security-Token", "token")));
  EXPECT_THAT(request.headers.back().second, testing::HasSubstr("x-amz-security-token"));
  EXPECT_THAT(request.headers.back().second, testing::HasSubstr("/19700101/eu-west-1/s3/"));
}

}  // namespace
}  // namespace ll
