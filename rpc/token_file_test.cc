#include "rpc/token_file.h"

#include <sys/stat.h>

#include "base/file.h"
#include "base/sha256.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

std::string Line(const std::string& rest) {
  return "{\"token_sha256\":\"" + Sha256Hex("t") + "\"," + rest + "}";
}

TEST(TokenFile, WhatIsWrongIsNamedWithItsLine) {
  for (const auto& [line, why] : std::vector<std::pair<std::string, std::string>>{
           {"no json", "a JSON object"},
           {"{\"user\":\"a\"}", "token_sha256"},
           {Line("\"scopes\":[]"), "a user"},
           {Line("\"user\":\"a\\nb\",\"scopes\":[]"), "a user"},
           {Line("\"user\":\"a\""), "scopes"},
           {Line("\"user\":\"a\",\"scopes\":[\"root\"]"), "scopes out of"},
           {Line("\"user\":\"a\",\"scopes\":[7]"), "scopes out of"},
           {Line("\"user\":\"a\",\"scopes\":[],\"tenant\":\"a/b\""), "tenant"},
           {Line("\"user\":\"a\",\"scopes\":[],\"tenant\":\"\""), "tenant"},
           {Line("\"user\":\"a\",\"scopes\":[],\"expires\":\"soon\""), "RFC 3339"},
           {Line("\"user\":\"a\",\"user\":\"b\",\"scopes\":[]"), "a JSON object"},
           {Line("\"user\":\"ann\",\"scopes\":[],\"tenant\":\"other\""), "one tenant"}}) {
    const std::string text =
        Line("\"user\":\"ann\",\"scopes\":[\"read\"],\"tenant\":\"red\"") + "\n\n" + line;
    const auto parsed = ParseTokens(text, "FILE");
    EXPECT_THAT(parsed, StatusIs(absl::StatusCode::kInvalidArgument, why)) << line;
    EXPECT_THAT(parsed, StatusIs(absl::StatusCode::kInvalidArgument, "line 3 of FILE")) << line;
  }
}

TEST(TokenFile, EntriesComeAndGoWhole) {
  const TempDir dir;
  const std::string path = dir.path() + "/tokens";
  SeededRandom random(7);
  const std::string token = NewToken(random);
  EXPECT_GE(token.size(), 64u);
  const TokenEntry ann{.sha256 = Sha256Hex(token),
                       .user = "ann",
                       .tenant = "red",
                       .scopes = {"read", "submit"},
                       .expires = absl::FromUnixSeconds(1'800'000'000)};
  LL_ASSERT_OK(AddToken(path, ann));
  LL_ASSERT_OK(AddToken(path, {.sha256 = Sha256Hex("b"), .user = "bob", .scopes = {"admin"}}));
  EXPECT_THAT(AddToken(path, {.sha256 = Sha256Hex("c"), .user = "ann", .tenant = "blue"}),
              StatusIs(absl::StatusCode::kInvalidArgument, "one tenant"));
  struct stat st;
  ASSERT_EQ(stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600);
  LL_ASSERT_OK_AND_ASSIGN(std::vector<TokenEntry> read, ReadTokens(path));
  ASSERT_EQ(read.size(), 2u);
  EXPECT_EQ(read[0].tenant, "red");
  EXPECT_EQ(read[0].scopes, ann.scopes);
  EXPECT_EQ(read[0].expires, ann.expires);
  EXPECT_EQ(read[1].expires, absl::InfiniteFuture());
  LL_ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(path));
  EXPECT_EQ(text.find(token), std::string::npos);  // only its hash
  EXPECT_THAT(RemoveToken(path, ""), StatusIs(absl::StatusCode::kNotFound, "no token"));
  EXPECT_THAT(RemoveToken(path, "x"), StatusIs(absl::StatusCode::kNotFound, "no token"));
  LL_ASSERT_OK_AND_ASSIGN(TokenEntry gone, RemoveToken(path, ann.sha256.substr(0, kTokenIdDigits)));
  EXPECT_EQ(gone.user, "ann");
  LL_ASSERT_OK_AND_ASSIGN(read, ReadTokens(path));
  EXPECT_EQ(read.size(), 1u);
}

TEST(TokenFile, UsersAreTextAndALockIsNotWaitedForForEver) {
  const TempDir dir;
  const std::string path = dir.path() + "/tokens";
  for (const TokenEntry& entry :
       {TokenEntry{.sha256 = Sha256Hex("t"), .user = "a\xff"},
        TokenEntry{.sha256 = Sha256Hex("t"), .user = "a", .tenant = "a\xff"},
        TokenEntry{.sha256 = Sha256Hex("t"), .user = "a", .scopes = {"a\xff"}}}) {
    EXPECT_FALSE(AddToken(path, entry).ok());
  }
  EXPECT_FALSE(FileExists(path));
  {
    LL_ASSERT_OK_AND_ASSIGN(const FileLock held, FileLock::Take(path));
    EXPECT_THAT(FileLock::Take(path, absl::Milliseconds(30)),
                StatusIs(absl::StatusCode::kUnavailable, "tokens.lock"));
  }
  LL_EXPECT_OK(FileLock::Take(path, absl::ZeroDuration()).status());
}

}  // namespace
}  // namespace ll
