// What S3Store does when the store misbehaves; tests/storage runs it against a stand-in.
#include "storage/s3_store.h"

#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

constexpr char kSlowDown[] = "<Error><Code>SlowDown</Code><Message>later</Message></Error>";

// Time passes only by waiting, at once.
class SkippingClock : public Clock {
 public:
  absl::Time Now() override { return absl::FromUnixSeconds(1'700'000'000) + Steady(); }
  absl::Duration Steady() override {
    absl::MutexLock lock(&mu_);
    return steady_;
  }
  void Sleep(absl::Duration d) override {
    absl::MutexLock lock(&mu_);
    steady_ += d;
  }

 private:
  absl::Mutex mu_;
  absl::Duration steady_ ABSL_GUARDED_BY(mu_) = absl::ZeroDuration();
};

// Answers as the test says and remembers what was asked.
class ScriptedTransport : public HttpTransport {
 public:
  using Answer = std::function<absl::StatusOr<HttpResponse>(const HttpRequest&, int times)>;
  explicit ScriptedTransport(Answer answer) : answer_(std::move(answer)) {}

  absl::StatusOr<HttpResponse> Send(const HttpRequest& request) override {
    absl::MutexLock lock(&mu_);
    const std::string line =
        absl::StrCat(request.method, " ", request.path, "?", CanonicalQuery(request));
    log_.push_back(line);
    return answer_(request, ++times_[line]);
  }
  std::vector<std::string> log() {
    absl::MutexLock lock(&mu_);
    return log_;
  }

 private:
  const Answer answer_;
  absl::Mutex mu_;
  std::vector<std::string> log_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, int> times_ ABSL_GUARDED_BY(mu_);
};

HttpResponse Reply(int status, std::string body = "",
                   std::vector<std::pair<std::string, std::string>> headers = {}) {
  return {status, std::move(headers), std::move(body)};
}

HttpResponse HeadOf(const std::string& bytes) {
  return Reply(
      200, "",
      {{"content-length", absl::StrCat(bytes.size())}, {"x-amz-meta-sha256", Sha256Hex(bytes)}});
}

class S3StoreTest : public testing::Test {
 protected:
  void Script(ScriptedTransport::Answer answer) {
    transport_ = std::make_unique<ScriptedTransport>(std::move(answer));
    S3Options options;
    options.bucket = "bucket";
    options.prefix = "p";
    options.endpoint = {"http://store", "/bucket"};
    options.config.credentials = {"id", "very-secret", "token-secret"};
    options.config.region = "r";
    options.multipart_bytes = 20;
    options.part_bytes = 10;
    options.parallel = 1;
    options.config.deadline = absl::Seconds(60);
    store_ = std::make_unique<S3Store>(options, *transport_, clock_, random_);
  }

  // Parts 1 to 3 of a file of 25 bytes; `answer` may take over a request.
  absl::Status PutInParts(ScriptedTransport::Answer answer) {
    Script([answer](const HttpRequest& request, int times) -> absl::StatusOr<HttpResponse> {
      auto taken = answer(request, times);
      if (!taken.ok() || taken->status != 0) return taken;
      if (CanonicalQuery(request) == "uploads=") {
        return Reply(200,
                     "<InitiateMultipartUploadResult><UploadId>u1</UploadId>"
                     "</InitiateMultipartUploadResult>");
      }
      return Reply(200, "", {{"etag", "\"e\""}});
    });
    const TempDir dir;
    const std::string path = dir.path() + "/f";
    const std::string bytes(25, 'x');
    EXPECT_TRUE(WriteFileAtomic(path, bytes).ok());
    absl::Status status = store_->PutFile("k", path, Sha256Hex(bytes));
    return status;
  }

  int Count(absl::string_view part) {
    int count = 0;
    for (const std::string& line : transport_->log()) count += absl::StrContains(line, part);
    return count;
  }

  SkippingClock clock_;
  SeededRandom random_{7};
  std::unique_ptr<ScriptedTransport> transport_;
  std::unique_ptr<S3Store> store_;
};

TEST_F(S3StoreTest, SlowDownAndCutConnectionsAreTriedAgainWithGrowingPauses) {
  std::vector<absl::Duration> begun;
  Script([&](const HttpRequest&, int times) -> absl::StatusOr<HttpResponse> {
    begun.push_back(clock_.Steady());
    if (times <= 2) return Reply(503, kSlowDown);
    if (times <= 4) return absl::UnavailableError("cut");
    if (times == 5) return Reply(429, "", {{"retry-after", "7"}});
    return Reply(200);
  });
  LL_ASSERT_OK(store_->PutText("k", "v", PutMode::kReplace));
  ASSERT_EQ(begun.size(), 6u);
  for (int i = 0; i < 4; ++i)
    EXPECT_LT(begun[i + 1] - begun[i], absl::Milliseconds(100) * (1 << i));
  EXPECT_GE(begun[5] - begun[4], absl::Seconds(7));  // as the store wished
}

TEST_F(S3StoreTest, TheDeadlineHoldsAndTheErrorTellsHowOften) {
  Script([](const HttpRequest& request, int) -> absl::StatusOr<HttpResponse> {
    EXPECT_GT(request.timeout, absl::ZeroDuration());
    return Reply(500);
  });
  const absl::Status status = store_->PutText("k", "v", PutMode::kReplace);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDeadlineExceeded,
                               "s3://bucket/p: cannot write k: HTTP 500"));
  EXPECT_LE(clock_.Steady(), absl::Seconds(60));
  EXPECT_GT(transport_->log().size(), 5u);
}

TEST_F(S3StoreTest, WhatNoRetryMendsIsToldAtOnceAndWithoutSecrets) {
  Script([](const HttpRequest&, int) -> absl::StatusOr<HttpResponse> {
    return Reply(403, "<Error><Code>AccessDenied</Code><Message>no</Message></Error>");
  });
  const absl::Status status = store_->GetText("k", 100).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kPermissionDenied, "HTTP 403 AccessDenied: no"));
  EXPECT_EQ(transport_->log().size(), 1u);
  EXPECT_FALSE(absl::StrContains(status.message(), "secret"));
}

TEST_F(S3StoreTest, ATriedAgainRequestIsSignedAnew) {
  std::vector<std::string> dates;
  Script([&](const HttpRequest& request, int times) -> absl::StatusOr<HttpResponse> {
    int authorizations = 0;
    for (const auto& [name, value] : request.headers) {
      if (name == "X-Amz-Date") dates.push_back(value);
      authorizations += name == "Authorization";
    }
    EXPECT_EQ(authorizations, 1);
    return times == 1 ? Reply(503, "", {{"retry-after", "5"}}) : Reply(200);
  });
  LL_ASSERT_OK(store_->Delete("k"));
  ASSERT_EQ(dates.size(), 2u);
  EXPECT_NE(dates[0], dates[1]);
}

TEST_F(S3StoreTest, OnePartThatFailsIsSentAgainAlone) {
  LL_ASSERT_OK(PutInParts([](const HttpRequest& request, int times) {
    const bool second = absl::StrContains(CanonicalQuery(request), "partNumber=2");
    return second && times < 3 ? Reply(500) : Reply(0);
  }));
  EXPECT_EQ(Count("partNumber=1"), 1);
  EXPECT_EQ(Count("partNumber=2"), 3);
  EXPECT_EQ(Count("partNumber=3"), 1);
  EXPECT_EQ(Count("DELETE"), 0);
}

TEST_F(S3StoreTest, AnUploadThatFailsIsAborted) {
  const absl::Status status = PutInParts([](const HttpRequest& request, int) {
    if (request.method == "GET") {
      return Reply(200,
                   "<ListMultipartUploadsResult><Upload><Key>p/k</Key><UploadId>u1</UploadId>"
                   "</Upload><Upload><Key>p/k2</Key><UploadId>u2</UploadId></Upload>"
                   "</ListMultipartUploadsResult>");
    }
    return absl::StrContains(CanonicalQuery(request), "partNumber=2") ? Reply(403) : Reply(0);
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(transport_->log().back(), "DELETE /bucket/p/k?uploadId=u1");
  EXPECT_EQ(Count("u2"), 0);  // another file's
}

constexpr char kMd5OfTenXs[] = "336311a016184326ddbdd61edd4eeb52";

// What a killed process left of this file, in its second part's place something else.
TEST_F(S3StoreTest, AnUploadThatWasLeftIsContinued) {
  for (const bool same_beginning : {true, false}) {
    bool completed = false;
    LL_ASSERT_OK(PutInParts([&](const HttpRequest& request, int) {
      const std::string query = CanonicalQuery(request);
      if (request.method == "GET" && absl::StrContains(query, "uploads=")) {
        return completed ? Reply(200, "<ListMultipartUploadsResult/>")
                         : Reply(200,
                                 "<ListMultipartUploadsResult><Upload><Key>p/k</Key><UploadId>u0"
                                 "</UploadId></Upload></ListMultipartUploadsResult>");
      }
      if (request.method == "GET") {
        return Reply(200, absl::StrCat("<ListPartsResult><Part><PartNumber>1</PartNumber>"
                                       "<Size>10</Size><ETag>\"",
                                       same_beginning ? kMd5OfTenXs : "other",
                                       "\"</ETag></Part><Part><PartNumber>2</PartNumber>"
                                       "<Size>10</Size><ETag>\"other\"</ETag></Part>"
                                       "</ListPartsResult>"));
      }
      if (request.method == "HEAD") {
        return Reply(
            200, "",
            {{"content-length", "25"}, {"x-amz-meta-sha256", Sha256Hex(std::string(25, 'x'))}});
      }
      completed |= request.method == "POST" && absl::StrContains(query, "uploadId");
      return Reply(0);
    }));
    EXPECT_EQ(Count("partNumber=1&uploadId=u0"), 0);  // it was there
    EXPECT_EQ(Count("partNumber=2&uploadId=u0"), same_beginning);
    EXPECT_EQ(Count("partNumber=3&uploadId=u0"), same_beginning);
    EXPECT_EQ(Count("POST /bucket/p/k?uploadId=u0"), same_beginning);
    EXPECT_EQ(Count("POST /bucket/p/k?uploads="), !same_beginning);
    EXPECT_EQ(Count("partNumber=1&uploadId=u1"), !same_beginning);
  }
}

// A store that keeps parts but cannot list them, or whose object turns out to be another file's.
TEST_F(S3StoreTest, WhatCannotBeContinuedIsSentAnew) {
  for (const bool lists : {false, true}) {
    LL_ASSERT_OK(PutInParts([&](const HttpRequest& request, int) {
      if (request.method == "GET" && absl::StrContains(CanonicalQuery(request), "uploads=")) {
        return Reply(200,
                     "<ListMultipartUploadsResult><Upload><Key>p/k</Key><UploadId>u0"
                     "</UploadId></Upload></ListMultipartUploadsResult>");
      }
      if (request.method == "GET") {
        return lists ? Reply(200, absl::StrCat("<ListPartsResult><Part><PartNumber>1</PartNumber>"
                                               "<Size>10</Size><ETag>\"",
                                               kMd5OfTenXs, "\"</ETag></Part></ListPartsResult>"))
                     : Reply(403);
      }
      if (request.method == "HEAD") {
        return Reply(200, "", {{"content-length", "25"}, {"x-amz-meta-sha256", "other"}});
      }
      return Reply(0);
    }));
    EXPECT_EQ(Count("POST /bucket/p/k?uploadId=u0"), lists);
    EXPECT_EQ(Count("POST /bucket/p/k?uploadId=u1"), 1);
    for (const int part : {1, 2, 3})
      EXPECT_EQ(Count(absl::StrCat("partNumber=", part, "&uploadId=u1")), 1);
    EXPECT_EQ(Count("DELETE /bucket/p/k?uploadId=u0"), 1);
  }
}

TEST_F(S3StoreTest, AnErrorInsideOf200IsAnError) {
  LL_ASSERT_OK(PutInParts([](const HttpRequest& request, int times) {
    const bool completes = request.method == "POST" && CanonicalQuery(request) == "uploadId=u1";
    return completes && times == 1 ? Reply(200, "<Error><Code>InternalError</Code></Error>")
                                   : Reply(0);
  }));
  EXPECT_EQ(Count("POST /bucket/p/k?uploadId=u1"), 2);
}

TEST_F(S3StoreTest, ACompletionWhoseAnswerWasLostIsDone) {
  LL_ASSERT_OK(
      PutInParts([](const HttpRequest& request, int times) -> absl::StatusOr<HttpResponse> {
        if (request.method == "HEAD") return HeadOf(std::string(25, 'x'));
        if (request.method != "POST" || CanonicalQuery(request) != "uploadId=u1") return Reply(0);
        if (times == 1) return absl::UnavailableError("cut");
        return Reply(404, "<Error><Code>NoSuchUpload</Code></Error>");
      }));
  EXPECT_EQ(Count("HEAD /bucket/p/k?"), 1);
}

// Somebody gave the upload up; what lies under the name is from before.
TEST_F(S3StoreTest, AnUploadThatIsGoneWasNotCompletedByTheObjectBeforeIt) {
  const absl::Status status =
      PutInParts([](const HttpRequest& request, int) -> absl::StatusOr<HttpResponse> {
        if (request.method == "HEAD") return HeadOf("what was there before");
        if (request.method != "POST" || CanonicalQuery(request) != "uploadId=u1") return Reply(0);
        return Reply(404, "<Error><Code>NoSuchUpload</Code></Error>");
      });
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kNotFound, "NoSuchUpload"));
}

TEST_F(S3StoreTest, UploadsOfSeveralPagesAreGivenUp) {
  Script([](const HttpRequest& request, int) -> absl::StatusOr<HttpResponse> {
    if (request.method == "DELETE") return Reply(204);
    const std::string query = CanonicalQuery(request);
    const bool second = absl::StrContains(query, "key-marker=p%2Fa%20b") &&
                        absl::StrContains(query, "upload-id-marker=u1");
    return Reply(200,
                 absl::StrCat("<ListMultipartUploadsResult><EncodingType>url</EncodingType><Upload>"
                              "<Key>p/",
                              second ? "z" : "a%20b", "</Key><UploadId>", second ? "u2" : "u1",
                              "</UploadId></Upload>",
                              second ? ""
                                     : "<IsTruncated>true</IsTruncated>"
                                       "<NextKeyMarker>p/a%20b</NextKeyMarker>"
                                       "<NextUploadIdMarker>u1</NextUploadIdMarker>",
                              "</ListMultipartUploadsResult>"));
  });
  LL_ASSERT_OK(store_->SweepPartial([](const std::string&) { return true; }));
  EXPECT_EQ(Count("DELETE /bucket/p/a%20b?uploadId=u1"), 1);
  EXPECT_EQ(Count("DELETE /bucket/p/z?uploadId=u2"), 1);
}

TEST_F(S3StoreTest, AListingThatNeverEndsIsAnError) {
  int asked = 0;
  Script([&asked](const HttpRequest& request, int) -> absl::StatusOr<HttpResponse> {
    const bool more = ++asked < 1000;  // or this test would not end either
    const std::string rest =
        !more ? ""
              : "<IsTruncated>true</IsTruncated><NextContinuationToken>c</NextContinuationToken>"
                "<NextKeyMarker>p/k</NextKeyMarker><NextUploadIdMarker>u1</NextUploadIdMarker>";
    if (request.method == "DELETE") return Reply(204);
    if (absl::StrContains(CanonicalQuery(request), "uploads="))
      return Reply(200, absl::StrCat("<ListMultipartUploadsResult><Upload><Key>p/k</Key><UploadId>"
                                     "u1</UploadId></Upload>",
                                     rest, "</ListMultipartUploadsResult>"));
    return Reply(200, absl::StrCat("<ListBucketResult><Contents><Key>p/k</Key><Size>3</Size>"
                                   "</Contents>",
                                   rest, "</ListBucketResult>"));
  });
  EXPECT_THAT(store_->List("").status(), StatusIs(absl::StatusCode::kUnavailable, "same page"));
  EXPECT_THAT(store_->SweepPartial([](const std::string&) { return true; }),
              StatusIs(absl::StatusCode::kUnavailable, "same page"));
  EXPECT_LT(asked, 10);
}

// Each page is another one, and so it could go on for weeks.
TEST_F(S3StoreTest, AListingHasADeadline) {
  int asked = 0;
  Script([&](const HttpRequest&, int) -> absl::StatusOr<HttpResponse> {
    clock_.Sleep(absl::Minutes(5));
    const std::string rest = ++asked == 1000 ? ""
                                             : absl::StrCat("<IsTruncated>true</IsTruncated>",
                                                            "<NextContinuationToken>c", asked,
                                                            "</NextContinuationToken>");
    return Reply(200, absl::StrCat("<ListBucketResult>", rest, "</ListBucketResult>"));
  });
  EXPECT_THAT(store_->List("").status(),
              StatusIs(absl::StatusCode::kDeadlineExceeded, "still more pages"));
  EXPECT_EQ(asked, 12);
}

TEST_F(S3StoreTest, OtherBytesInTheStoreAreDataLoss) {
  Script([](const HttpRequest&, int) -> absl::StatusOr<HttpResponse> {
    return Reply(200, "", {{"x-amz-checksum-sha256", "AAAA"}});
  });
  EXPECT_EQ(store_->PutText("k", "v", PutMode::kReplace).code(), absl::StatusCode::kDataLoss);
}

TEST_F(S3StoreTest, AShortRangeIsNoFile) {
  const TempDir dir;
  const std::string path = dir.path() + "/f";
  Script([](const HttpRequest& request, int) -> absl::StatusOr<HttpResponse> {
    if (request.method == "HEAD") return Reply(200, "", {{"content-length", "15"}});
    return Reply(206, "0123");
  });
  EXPECT_EQ(store_->GetFile("k", path).code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(FileExists(path));
}

TEST_F(S3StoreTest, AListingOfSeveralPages) {
  Script([](const HttpRequest& request, int) -> absl::StatusOr<HttpResponse> {
    const bool second = absl::StrContains(CanonicalQuery(request), "continuation-token=c%2F1");
    const std::string entry = absl::StrCat("<Contents><Key>p/", second ? "a%20b" : "z",
                                           "</Key><Size>3</Size></Contents>");
    return Reply(200, absl::StrCat("<ListBucketResult><EncodingType>url</EncodingType>", entry,
                                   second ? ""
                                          : "<IsTruncated>true</IsTruncated>"
                                            "<NextContinuationToken>c/1</NextContinuationToken>",
                                   "</ListBucketResult>"));
  });
  LL_ASSERT_OK_AND_ASSIGN(const auto objects, store_->List(""));
  ASSERT_EQ(objects.size(), 2u);
  EXPECT_EQ(objects[0].key, "a b");
  EXPECT_EQ(objects[1].key, "z");
}

TEST_F(S3StoreTest, AListingThatIsNoneIsAnError) {
  for (const char* bad : {"", "<html>",
                          "<ListBucketResult><Contents><Key>a</Key></Contents>"
                          "</ListBucketResult>"}) {
    Script(
        [bad](const HttpRequest&, int) -> absl::StatusOr<HttpResponse> { return Reply(200, bad); });
    EXPECT_FALSE(store_->List("").ok()) << bad;
  }
}

}  // namespace
}  // namespace ll
