// Where files go that must outlive a host: a folder, or a bucket of an S3-compatible store, behind
// one interface. Torch-free.
//
// Promises that every implementation keeps (object_store_test.cc holds each to them):
//
//   Whole     An object appears whole or not at all; a Put that fails leaves what was there.
//   Durable   What Put returned OK for is on the store's disks.
//   Checked   Bytes that change on their way are an error, never an object.
//   Bounded   Every call ends by its deadline, whatever the store does.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace ll {

struct ObjectInfo {
  std::string key;  // relative to the store's root, parts divided by '/'
  int64_t size_bytes = 0;
};

enum class PutMode { kReplace, kOnlyIfAbsent };

// Thread-safe. Keys are relative paths of plain names ("step-000100/COMPLETE"); another is
// InvalidArgument. Errors say which object; codes: NotFound, AlreadyExists (kOnlyIfAbsent),
// PermissionDenied, Unauthenticated, ResourceExhausted (a full disk), DataLoss (a checksum),
// Unavailable and DeadlineExceeded (it may work later).
class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  // The file's bytes; `sha256` (hex) is what they must be, and is kept with the object.
  virtual absl::Status PutFile(const std::string& key, const std::string& path,
                               const std::string& sha256) = 0;
  // A small object. With kOnlyIfAbsent one of two writers wins, where the store knows conditions.
  virtual absl::Status PutText(const std::string& key, absl::string_view bytes,
                               PutMode mode = PutMode::kReplace) = 0;
  // A small object's bytes; OutOfRange where it is larger than `max_bytes`.
  virtual absl::StatusOr<std::string> GetText(const std::string& key,
                                              int64_t max_bytes = 16 << 20) = 0;
  // Writes the object to `path`, which must not exist, and syncs it. On an error nothing stays.
  virtual absl::Status GetFile(const std::string& key, const std::string& path) = 0;
  // Whether an object of that size and SHA-256 is there already.
  virtual absl::StatusOr<bool> Holds(const std::string& key, int64_t size_bytes,
                                     const std::string& sha256) = 0;
  // All objects whose key begins with `prefix`, sorted by key. None is no error.
  virtual absl::StatusOr<std::vector<ObjectInfo>> List(const std::string& prefix) = 0;
  // OK also where there is no such object.
  virtual absl::Status Delete(const std::string& key) = 0;
  // Gives up what killed processes left half-written, of the keys that `doomed` is true for: that
  // of the object, or a name of its folder's. Only while nobody writes them.
  virtual absl::Status SweepPartial(const std::function<bool(const std::string& key)>& doomed) = 0;
  // Every call, also one that is under way, ends soon with Cancelled from here on.
  virtual void Cancel() = 0;
  // "s3://bucket/prefix" or the folder's path, for messages.
  virtual const std::string& uri() const = 0;
};

// Opens the store of a URI (base/store_uri.h). A folder is made when something is written. S3's
// endpoint, region and credentials come from the environment (s3_config.h): Unauthenticated where
// there are none.
absl::StatusOr<std::unique_ptr<ObjectStore>> OpenObjectStore(absl::string_view field,
                                                             absl::string_view uri);

// The two kinds. `root` is an absolute path.
std::unique_ptr<ObjectStore> OpenFolderStore(const std::string& root);

// InvalidArgument unless `key` is a relative path of plain names.
absl::Status CheckObjectKey(absl::string_view key);

}  // namespace ll
