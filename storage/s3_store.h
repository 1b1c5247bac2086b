// A bucket of Amazon S3 or a store that speaks like it.
//
// Every exchange is signed (sigv4.h), carries the SHA-256 of its body twice (in the signature and,
// for objects, as x-amz-checksum-sha256, which the store checks and keeps), and is tried again with
// growing, jittered pauses after 408, 429, 5xx and cut connections, until a deadline. Objects above
// `multipart_bytes` go in parts, several at once; a part that fails is sent again alone, and an
// upload that fails is aborted. One that a killed process left is continued: parts that are there
// and are the file's are not sent again.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "storage/http.h"
#include "storage/object_store.h"
#include "storage/s3_config.h"
#include "storage/s3_xml.h"

namespace ll {

struct S3Options {
  std::string bucket, prefix;  // the prefix without slashes at its ends
  S3Endpoint endpoint;
  S3Config config;
  int64_t multipart_bytes = 16 << 20;  // from which size on an object goes in parts
  int64_t part_bytes = 8 << 20;        // of one part, 5 MiB at least; larger for huge objects
  int parallel = 4;                    // parts on their way at once; each holds part_bytes
  absl::Duration deadline = absl::Minutes(10);  // of one exchange with all its tries
  // Of a listing with all its pages: a store that always has another one would go on for ever.
  absl::Duration listing_deadline = absl::Hours(1);
  absl::Duration first_pause = absl::Milliseconds(100), longest_pause = absl::Seconds(20);
};

class S3Store : public ObjectStore {
 public:
  // All three must outlive it; `random` must be thread-safe where `parallel` is not 1.
  S3Store(S3Options options, HttpTransport& transport, Clock& clock, Random& random);

  absl::Status PutFile(const std::string& key, const std::string& path,
                       const std::string& sha256) override;
  absl::Status PutText(const std::string& key, absl::string_view bytes, PutMode mode) override;
  absl::StatusOr<std::string> GetText(const std::string& key, int64_t max_bytes) override;
  absl::Status GetFile(const std::string& key, const std::string& path) override;
  absl::StatusOr<bool> Holds(const std::string& key, int64_t size_bytes,
                             const std::string& sha256) override;
  absl::StatusOr<std::vector<ObjectInfo>> List(const std::string& prefix) override;
  absl::Status Delete(const std::string& key) override;
  absl::Status SweepPartial(const std::function<bool(const std::string&)>& doomed) override;
  void Cancel() override { cancelled_ = true; }
  const std::string& uri() const override { return uri_; }

 private:
  struct Part {
    std::string etag, checksum;
  };

  std::string FullKey(const std::string& key) const;
  HttpRequest ObjectRequest(const char* method, const std::string& key) const;
  HttpRequest BucketRequest() const;
  // One exchange with its retries; `what` for messages. A status of 300 or more is an error, but a
  // 404 of a DELETE is not.
  // Sleeps in pieces; Cancelled where that happens meanwhile.
  absl::Status Pause(absl::Duration pause);
  absl::StatusOr<HttpResponse> Send(HttpRequest request, const std::string& what);
  // The next page of a listing, within what is left of its time.
  absl::StatusOr<HttpResponse> SendPage(HttpRequest request, const std::string& what,
                                        absl::Duration began);
  absl::StatusOr<std::string> CreateUpload(const std::string& key, const std::string& sha256);
  // `there`: parts that the upload may have already; those that are the file's are left alone.
  absl::Status PutParts(const std::string& key, int fd, int64_t size, const std::string& sha256,
                        const std::string& upload, const std::vector<S3Part>& there);
  // Completes an upload that a killed process left of this very file. False: there is none, and
  // nothing of one stays.
  absl::StatusOr<bool> ContinueUpload(const std::string& key, int fd, int64_t size,
                                      const std::string& sha256);
  absl::StatusOr<std::vector<S3Part>> ListParts(const std::string& key, const std::string& upload);
  int64_t PartBytes(int64_t size) const;  // of a file's parts but the last
  absl::StatusOr<Part> PutPart(const std::string& key, const std::string& upload, int number,
                               absl::string_view bytes);
  // NotFound: the upload is gone.
  absl::Status CompleteUpload(const std::string& key, const std::string& upload,
                              const std::vector<Part>& parts);
  // Full key and id of unfinished uploads, oldest first as far as the store says.
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ListUploads(
      const std::string& full_prefix);
  // Those of the full keys with that prefix that are chosen.
  absl::Status AbortUploads(const std::string& full_prefix,
                            const std::function<bool(const std::string&)>& chosen);
  absl::Status AbortUpload(const std::string& full_key, const std::string& upload);
  absl::Status GetParts(const std::string& key, int fd, int64_t size, const std::string& etag);

  const S3Options options_;
  const std::string uri_;
  HttpTransport& transport_;
  Clock& clock_;
  Random& random_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace ll
