#include "base/store_uri.h"

#include "base/status_matchers.h"

namespace ll {
namespace {

TEST(StoreUriTest, WhatThereIs) {
  LL_ASSERT_OK_AND_ASSIGN(StoreUri uri, ParseStoreUri("f", "s3://my.bucket-1/a/b/"));
  EXPECT_EQ(uri.bucket, "my.bucket-1");
  EXPECT_EQ(uri.prefix, "a/b");
  LL_ASSERT_OK_AND_ASSIGN(uri, ParseStoreUri("f", "s3://bucket"));
  EXPECT_EQ(uri.prefix, "");
  LL_ASSERT_OK_AND_ASSIGN(uri, ParseStoreUri("f", "file:///tmp/x/"));
  EXPECT_EQ(uri.folder, "/tmp/x");
  EXPECT_EQ(uri.bucket, "");
}

TEST(StoreUriTest, WhatThereIsNot) {
  for (const char* bad : {"", "/", "relative", "gs://bucket/x", "s3://", "s3:///x", "s3://Bucket",
                          "s3://a..b/c", "s3://bucket/../other", "s3://bucket/a//b", "file://x"}) {
    EXPECT_THAT(ParseStoreUri("checkpoint_uri", bad),
                StatusIs(absl::StatusCode::kInvalidArgument, "checkpoint_uri: expected"))
        << bad;
  }
}

}  // namespace
}  // namespace ll
