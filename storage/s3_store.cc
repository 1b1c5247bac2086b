#include "storage/s3_store.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <functional>
#include <set>
#include <thread>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"

namespace ll {
namespace {

constexpr int64_t kMostParts = 10'000;  // S3's limit of one upload
constexpr char kSha256Header[] = "x-amz-meta-sha256";

// Runs work(0) … work(count - 1) on at most `threads` threads; the first error ends it.
absl::Status InParallel(int64_t count, int threads,
                        const std::function<absl::Status(int64_t)>& work) {
  std::atomic<int64_t> next = 0;
  std::atomic<bool> failed = false;
  absl::Mutex mu;
  absl::Status first;
  const auto loop = [&] {
    for (int64_t i = next++; i < count && !failed; i = next++) {
      const absl::Status status = work(i);
      if (status.ok()) continue;
      const absl::MutexLock lock(&mu);
      if (!failed.exchange(true)) first = status;
    }
  };
  std::vector<std::thread> others;
  for (int64_t i = 1; i < std::min<int64_t>(threads, count); ++i) others.emplace_back(loop);
  loop();
  for (std::thread& thread : others) thread.join();
  return first;
}

absl::StatusOr<std::string> ReadPart(int fd, int64_t offset, int64_t size) {
  std::string bytes(static_cast<size_t>(size), '\0');
  int64_t done = 0;
  while (done < size) {
    const ssize_t n = pread(fd, bytes.data() + done, size - done, offset + done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "cannot read", "the file that is copied");
    if (n == 0) return absl::DataLossError("the file became shorter while it was copied");
    done += n;
  }
  return bytes;
}

absl::Status WritePart(int fd, int64_t offset, absl::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = pwrite(fd, bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "cannot write", path);
    bytes.remove_prefix(n);
    offset += n;
  }
  return absl::OkStatus();
}

void Describe(HttpRequest& request, absl::string_view body) {
  request.body = body;
  request.headers.emplace_back("x-amz-checksum-sha256", absl::Base64Escape(Sha256Bytes(body)));
}

// How most stores make an ETag of a part.
std::string Md5Hex(absl::string_view bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  // Fails where MD5 is forbidden: then no part is known again.
  if (EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_md5(), nullptr) != 1) return "";
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), static_cast<size_t>(size)));
}

bool IsSamePart(const S3Part& there, absl::string_view bytes) {
  if (there.size_bytes != static_cast<int64_t>(bytes.size()) || there.etag.empty()) return false;
  if (!there.checksum_sha256.empty())
    return there.checksum_sha256 == absl::Base64Escape(Sha256Bytes(bytes));
  return absl::StripSuffix(absl::StripPrefix(there.etag, "\""), "\"") == Md5Hex(bytes);
}

// A store that sends its reader in a circle would keep it for ever. `next` empty: the last page.
absl::Status CheckNewPage(const std::string& next, std::set<std::string>& seen) {
  if (next.empty() || seen.insert(next).second) return absl::OkStatus();
  return absl::UnavailableError("the store's listing comes to the same page again");
}

// The store may tell what it stored.
absl::Status CheckStored(const HttpResponse& response, absl::string_view bytes) {
  const absl::string_view told = response.Header("x-amz-checksum-sha256");
  const std::string want = absl::Base64Escape(Sha256Bytes(bytes));
  if (told.empty() || told == want) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the store holds other bytes: sha256 ", told));
}

}  // namespace

S3Store::S3Store(S3Options options, HttpTransport& transport, Clock& clock, Random& random)
    : options_(std::move(options)),
      uri_(absl::StrCat("s3://", options_.bucket, options_.prefix.empty() ? "" : "/",
                        options_.prefix)),
      transport_(transport),
      clock_(clock),
      random_(random) {}

absl::Status S3Store::PutText(const std::string& key, absl::string_view bytes, PutMode mode) {
  LL_RETURN_IF_ERROR(CheckObjectKey(key));
  HttpRequest request = ObjectRequest("PUT", key);
  Describe(request, bytes);
  request.headers.emplace_back(kSha256Header, Sha256Hex(bytes));
  if (mode == PutMode::kOnlyIfAbsent) request.headers.emplace_back("If-None-Match", "*");
  LL_ASSIGN_OR_RETURN(const HttpResponse response, Send(std::move(request), "write " + key));
  return CheckStored(response, bytes);
}

absl::Status S3Store::PutFile(const std::string& key, const std::string& path,
                              const std::string& sha256) {
  LL_RETURN_IF_ERROR(CheckObjectKey(key));
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  const absl::Cleanup closer = [fd] { close(fd); };
  LL_ASSIGN_OR_RETURN(const int64_t size, FileSize(path));
  if (size < options_.multipart_bytes) {
    LL_ASSIGN_OR_RETURN(const std::string bytes, ReadPart(fd, 0, size));
    if (Sha256Hex(bytes) != sha256)
      return absl::DataLossError(absl::StrCat(path, ": expected sha256 ", sha256));
    return PutText(key, bytes, PutMode::kReplace);
  }
  // The parts are hashed as they are read; that they are the file's is checked before any goes out.
  LL_ASSIGN_OR_RETURN(const std::string found, Sha256HexOfFile(path));
  if (found != sha256)
    return absl::DataLossError(absl::StrCat(path, ": expected sha256 ", sha256, ", found ", found));
  // Uploads of a process that was killed, and those whose beginning this one was not told of, would
  // lie there unseen and be paid for.
  const auto is_this = [full = FullKey(key)](const std::string& other) { return other == full; };
  const absl::Cleanup sweeper = [&] { AbortUploads(FullKey(key), is_this).IgnoreError(); };
  LL_ASSIGN_OR_RETURN(const bool continued, ContinueUpload(key, fd, size, sha256));
  if (continued) return absl::OkStatus();
  LL_ASSIGN_OR_RETURN(const std::string upload, CreateUpload(key, sha256));
  return PutParts(key, fd, size, sha256, upload, {});
}

absl::StatusOr<bool> S3Store::ContinueUpload(const std::string& key, int fd, int64_t size,
                                             const std::string& sha256) {
  // Whatever is wrong with what was left, the file can be sent anew; only a store that does not
  // answer is an error.
  const auto give_up = [](const absl::Status& status) -> absl::StatusOr<bool> {
    if (absl::IsDeadlineExceeded(status) || absl::IsCancelled(status)) return status;
    return false;
  };
  const auto uploads = ListUploads(FullKey(key));
  if (!uploads.ok()) return give_up(uploads.status());
  std::string upload;
  for (const auto& [full_key, id] : *uploads) {
    if (full_key == FullKey(key)) upload = id;  // the newest
  }
  if (upload.empty()) return false;
  const auto there = ListParts(key, upload);
  if (!there.ok()) return give_up(there.status());
  if (there->empty()) return false;
  const int64_t step = PartBytes(size), begin = (there->front().number - 1) * step;
  if (begin >= size) return false;
  LL_ASSIGN_OR_RETURN(const std::string bytes, ReadPart(fd, begin, std::min(step, size - begin)));
  if (!IsSamePart(there->front(), bytes)) return false;  // of another file under this name
  const absl::Status put = PutParts(key, fd, size, sha256, upload, *there);
  if (!put.ok()) return give_up(put);
  // Its beginning may have been that of a file that goes on differently: then all is as it should
  // be but for the hash that was given when it was begun.
  return Holds(key, size, sha256);
}

absl::StatusOr<std::vector<S3Part>> S3Store::ListParts(const std::string& key,
                                                       const std::string& upload) {
  std::vector<S3Part> parts;
  std::string marker;
  do {
    HttpRequest request = ObjectRequest("GET", key);
    request.query = {{"uploadId", upload}};
    if (!marker.empty()) request.query.emplace_back("part-number-marker", marker);
    LL_ASSIGN_OR_RETURN(const HttpResponse response,
                        Send(std::move(request), "list the parts of " + key));
    LL_ASSIGN_OR_RETURN(S3PartsPage page, ParseParts(response.body));
    parts.insert(parts.end(), page.parts.begin(), page.parts.end());
    marker = page.parts.empty() ? "" : page.next_marker;
  } while (!marker.empty() && parts.size() < kMostParts);
  return parts;
}

int64_t S3Store::PartBytes(int64_t size) const {
  return std::max(options_.part_bytes, (size + kMostParts - 1) / kMostParts);
}

absl::StatusOr<std::string> S3Store::CreateUpload(const std::string& key,
                                                  const std::string& sha256) {
  HttpRequest request = ObjectRequest("POST", key);
  request.query = {{"uploads", ""}};
  request.headers = {{"x-amz-checksum-algorithm", "SHA256"}, {kSha256Header, sha256}};
  LL_ASSIGN_OR_RETURN(const HttpResponse response, Send(std::move(request), "begin " + key));
  return ParseUploadId(response.body);
}

absl::Status S3Store::PutParts(const std::string& key, int fd, int64_t size,
                               const std::string& sha256, const std::string& upload,
                               const std::vector<S3Part>& there) {
  const int64_t step = PartBytes(size);
  std::vector<Part> parts(static_cast<size_t>((size + step - 1) / step));
  const auto send = [&](int64_t i) -> absl::Status {
    LL_ASSIGN_OR_RETURN(const std::string bytes,
                        ReadPart(fd, i * step, std::min(step, size - i * step)));
    const auto known = std::find_if(there.begin(), there.end(),
                                    [i](const S3Part& part) { return part.number == i + 1; });
    if (known != there.end() && IsSamePart(*known, bytes)) {
      parts[i] = {known->etag, absl::Base64Escape(Sha256Bytes(bytes))};
      return absl::OkStatus();
    }
    LL_ASSIGN_OR_RETURN(parts[i], PutPart(key, upload, static_cast<int>(i + 1), bytes));
    return absl::OkStatus();
  };
  LL_RETURN_IF_ERROR(InParallel(static_cast<int64_t>(parts.size()), options_.parallel, send));
  const absl::Status completed = CompleteUpload(key, upload, parts);
  if (!absl::IsNotFound(completed)) return completed;
  // The answer may have been lost on its way, and the upload be gone because it is an object now;
  // or somebody gave it up, and what lies there is from before.
  LL_ASSIGN_OR_RETURN(const bool there_now, Holds(key, size, sha256));
  return there_now ? absl::OkStatus() : completed;
}

absl::StatusOr<S3Store::Part> S3Store::PutPart(const std::string& key, const std::string& upload,
                                               int number, absl::string_view bytes) {
  HttpRequest request = ObjectRequest("PUT", key);
  request.query = {{"partNumber", absl::StrCat(number)}, {"uploadId", upload}};
  Describe(request, bytes);
  LL_ASSIGN_OR_RETURN(const HttpResponse response,
                      Send(std::move(request), absl::StrCat("write part ", number, " of ", key)));
  LL_RETURN_IF_ERROR(CheckStored(response, bytes));
  Part part{std::string(response.Header("etag")), absl::Base64Escape(Sha256Bytes(bytes))};
  if (part.etag.empty()) return absl::InternalError("a part was answered without an ETag");
  return part;
}

absl::Status S3Store::CompleteUpload(const std::string& key, const std::string& upload,
                                     const std::vector<Part>& parts) {
  std::vector<std::pair<std::string, std::string>> list;
  for (const Part& part : parts) list.emplace_back(part.etag, part.checksum);
  const std::string body = CompletionXml(list);
  HttpRequest request = ObjectRequest("POST", key);
  request.query = {{"uploadId", upload}};
  request.headers = {{"Content-Type", "application/xml"}};
  request.body = body;
  return Send(std::move(request), "complete " + key).status();
}

absl::Status S3Store::AbortUpload(const std::string& full_key, const std::string& upload) {
  HttpRequest request = BucketRequest();
  request.method = "DELETE";
  absl::StrAppend(&request.path, PercentEncode(full_key, /*keep_slash=*/true));
  request.query = {{"uploadId", upload}};
  return Send(std::move(request), "abort " + full_key).status();
}

absl::StatusOr<std::string> S3Store::GetText(const std::string& key, int64_t max_bytes) {
  LL_RETURN_IF_ERROR(CheckObjectKey(key));
  HttpRequest request = ObjectRequest("GET", key);
  request.max_response_bytes = max_bytes;
  auto response = Send(std::move(request), "read " + key);
  if (absl::IsResourceExhausted(response.status()))
    return absl::OutOfRangeError(std::string(response.status().message()));
  LL_RETURN_IF_ERROR(response.status());
  return std::move(response->body);
}

absl::Status S3Store::GetFile(const std::string& key, const std::string& path) {
  LL_RETURN_IF_ERROR(CheckObjectKey(key));
  LL_ASSIGN_OR_RETURN(const HttpResponse head, Send(ObjectRequest("HEAD", key), "look at " + key));
  int64_t size = 0;
  if (!absl::SimpleAtoi(head.Header("content-length"), &size) || size < 0)
    return absl::InternalError(absl::StrCat(uri_, ": ", key, " has no length"));
  const int fd = open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus(errno, "cannot create", path);
  absl::Status status = GetParts(key, fd, size, std::string(head.Header("etag")));
  if (status.ok() && fsync(fd) != 0) status = ErrnoStatus(errno, "cannot sync", path);
  close(fd);
  if (!status.ok()) unlink(path.c_str());
  return status;
}

absl::Status S3Store::GetParts(const std::string& key, int fd, int64_t size,
                               const std::string& etag) {
  const int64_t step = options_.part_bytes;
  return InParallel((size + step - 1) / step, options_.parallel, [&](int64_t i) -> absl::Status {
    const int64_t offset = i * step, want = std::min(step, size - offset);
    HttpRequest request = ObjectRequest("GET", key);
    request.headers = {{"Range", absl::StrCat("bytes=", offset, "-", offset + want - 1)}};
    // All parts are of one object, also where somebody replaces it meanwhile.
    if (!etag.empty()) request.headers.emplace_back("If-Match", etag);
    request.max_response_bytes = want;
    LL_ASSIGN_OR_RETURN(const HttpResponse response, Send(std::move(request), "read " + key));
    if (static_cast<int64_t>(response.body.size()) != want)
      return absl::DataLossError(absl::StrCat(uri_, ": ", key, ": expected ", want, " bytes from ",
                                              offset, ", found ", response.body.size()));
    return WritePart(fd, offset, response.body, key);
  });
}

absl::StatusOr<bool> S3Store::Holds(const std::string& key, int64_t size_bytes,
                                    const std::string& sha256) {
  LL_RETURN_IF_ERROR(CheckObjectKey(key));
  const auto head = Send(ObjectRequest("HEAD", key), "look at " + key);
  if (absl::IsNotFound(head.status())) return false;
  LL_RETURN_IF_ERROR(head.status());
  int64_t size = 0;
  return absl::SimpleAtoi(head->Header("content-length"), &size) && size == size_bytes &&
         head->Header(kSha256Header) == sha256;
}

absl::StatusOr<std::vector<ObjectInfo>> S3Store::List(const std::string& prefix) {
  const std::string strip = options_.prefix.empty() ? "" : absl::StrCat(options_.prefix, "/");
  std::vector<ObjectInfo> objects;
  std::set<std::string> seen;
  std::string continuation;
  const absl::Duration began = clock_.Steady();
  do {
    HttpRequest request = BucketRequest();
    request.query = {{"list-type", "2"}, {"encoding-type", "url"}, {"prefix", strip + prefix}};
    if (!continuation.empty()) request.query.emplace_back("continuation-token", continuation);
    LL_ASSIGN_OR_RETURN(const HttpResponse response,
                        SendPage(std::move(request), absl::StrCat("list ", prefix), began));
    LL_ASSIGN_OR_RETURN(S3Page page, ParseListing(response.body));
    for (ObjectInfo& info : page.objects) {
      absl::string_view key = info.key;
      if (!absl::ConsumePrefix(&key, strip) || !CheckObjectKey(key).ok()) continue;  // not ours
      info.key = std::string(key);
      objects.push_back(std::move(info));
    }
    LL_RETURN_IF_ERROR(CheckNewPage(page.continuation, seen));
    continuation = page.continuation;
  } while (!continuation.empty());
  std::sort(objects.begin(), objects.end(),
            [](const ObjectInfo& a, const ObjectInfo& b) { return a.key < b.key; });
  return objects;
}

absl::Status S3Store::Delete(const std::string& key) {
  LL_RETURN_IF_ERROR(CheckObjectKey(key));
  return Send(ObjectRequest("DELETE", key), "delete " + key).status();
}

absl::Status S3Store::SweepPartial(const std::function<bool(const std::string&)>& doomed) {
  const std::string root = options_.prefix.empty() ? "" : absl::StrCat(options_.prefix, "/");
  return AbortUploads(
      root, [&](const std::string& full_key) { return doomed(full_key.substr(root.size())); });
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> S3Store::ListUploads(
    const std::string& full_prefix) {
  std::vector<std::pair<std::string, std::string>> uploads;
  std::set<std::string> seen;
  S3UploadsPage page;
  const absl::Duration began = clock_.Steady();
  do {
    HttpRequest request = BucketRequest();
    request.query = {{"uploads", ""}, {"encoding-type", "url"}, {"prefix", full_prefix}};
    if (!page.next_key.empty()) {
      request.query.emplace_back("key-marker", page.next_key);
      request.query.emplace_back("upload-id-marker", page.next_upload);
    }
    LL_ASSIGN_OR_RETURN(const HttpResponse response,
                        SendPage(std::move(request), "list uploads", began));
    LL_ASSIGN_OR_RETURN(page, ParseUploads(response.body));
    uploads.insert(uploads.end(), page.uploads.begin(), page.uploads.end());
    LL_RETURN_IF_ERROR(CheckNewPage(
        page.next_key.empty() ? "" : absl::StrCat(page.next_key, "\n", page.next_upload), seen));
  } while (!page.next_key.empty());
  return uploads;
}

absl::Status S3Store::AbortUploads(const std::string& full_prefix,
                                   const std::function<bool(const std::string&)>& chosen) {
  LL_ASSIGN_OR_RETURN(const auto uploads, ListUploads(full_prefix));
  for (const auto& [key, upload] : uploads) {
    if (absl::StartsWith(key, full_prefix) && chosen(key))
      LL_RETURN_IF_ERROR(AbortUpload(key, upload));
  }
  return absl::OkStatus();
}

}  // namespace ll
