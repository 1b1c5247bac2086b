#include "storage/s3_config.h"

#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

Environment Of(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const char* name) -> std::optional<std::string> {
    const auto it = values.find(name);
    if (it == values.end()) return std::nullopt;
    return it->second;
  };
}

TEST(S3Config, FromVariables) {
  LL_ASSERT_OK_AND_ASSIGN(
      const S3Config config,
      S3ConfigFromEnvironment(Of({{"AWS_ACCESS_KEY_ID", "id"},
                                  {"AWS_SECRET_ACCESS_KEY", "key"},
                                  {"AWS_ENDPOINT_URL", "http://127.0.0.1:9000/"},
                                  {"AWS_REGION", "eu-west-1"}})));
  EXPECT_EQ(config.credentials.access_key, "id");
  EXPECT_EQ(config.region, "eu-west-1");
  LL_ASSERT_OK_AND_ASSIGN(const S3Endpoint endpoint, EndpointOf(config, "bucket"));
  EXPECT_EQ(endpoint.scheme_host, "http://127.0.0.1:9000");  // a store of one's own: in the path
  EXPECT_EQ(endpoint.path_prefix, "/bucket");
}

TEST(S3Config, FromTheProfilesFiles) {
  const TempDir dir;
  const std::string file = dir.path() + "/config";
  LL_ASSERT_OK(WriteFileAtomic(file,
                               "# mine\n[default]\naws_access_key_id = other\n[ll]\n"
                               "aws_access_key_id = id\naws_secret_access_key=key\n"
                               "aws_session_token = t=1\n[profile ll]\nregion = eu-north-1\n"));
  const std::map<std::string, std::string> variables = {
      {"AWS_PROFILE", "ll"}, {"AWS_SHARED_CREDENTIALS_FILE", file}, {"AWS_CONFIG_FILE", file}};
  LL_ASSERT_OK_AND_ASSIGN(const S3Config config, S3ConfigFromEnvironment(Of(variables)));
  EXPECT_EQ(config.credentials.access_key, "id");
  EXPECT_EQ(config.credentials.session_token, "t=1");
  EXPECT_EQ(config.region, "eu-north-1");
  LL_ASSERT_OK(RemoveTree(file));
  const auto without = S3ConfigFromEnvironment(Of(variables));
  EXPECT_THAT(without, StatusIs(absl::StatusCode::kUnauthenticated, "no credentials"));
  EXPECT_FALSE(S3ConfigFromEnvironment(Of({})).ok());
}

TEST(S3Config, WhereABucketIs) {
  S3Config config;
  config.region = "eu-west-1";
  EXPECT_EQ(EndpointOf(config, "bucket")->scheme_host, "https://bucket.s3.eu-west-1.amazonaws.com");
  EXPECT_EQ(EndpointOf(config, "bucket")->path_prefix, "");
  EXPECT_EQ(EndpointOf(config, "my.bucket")->path_prefix, "/my.bucket");  // no such certificate
  config.endpoint = "https://s3.example:9000";
  config.addressing = AddressingStyle::kVirtual;
  EXPECT_EQ(EndpointOf(config, "b-1")->scheme_host, "https://b-1.s3.example:9000");
}

TEST(S3Config, BadValuesAreNamed) {
  std::map<std::string, std::string> values = {{"AWS_ACCESS_KEY_ID", "id"},
                                               {"AWS_SECRET_ACCESS_KEY", "very-secret"}};
  for (const auto& [key, value] :
       std::map<std::string, std::string>{{"AWS_ENDPOINT_URL", "127.0.0.1:9000"},
                                          {"AWS_ENDPOINT_URL_S3", "http://u:p@host"},
                                          {"AWS_REGION", "x/y"},
                                          {"LL_S3_DEADLINE_S", "0"},
                                          {"LL_S3_ADDRESSING_STYLE", "sideways"}}) {
    auto bad = values;
    bad[key] = value;
    const absl::Status status = S3ConfigFromEnvironment(Of(bad)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << key;
    EXPECT_EQ(std::string(status.message()).find("very-secret"), std::string::npos);
  }
}

}  // namespace
}  // namespace ll
