#include "storage/object_store.h"

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/ids.h"
#include "base/status_macros.h"
#include "base/store_uri.h"
#include "storage/http.h"
#include "storage/s3_config.h"
#include "storage/s3_store.h"

namespace ll {
absl::Status CheckObjectKey(absl::string_view key) {
  if (IsObjectKey(key)) return absl::OkStatus();
  return MakeFieldError({"key", "a relative path of plain names, at most 1000 bytes",
                         absl::StrCat("\"", key.substr(0, 100), "\"")});
}

absl::StatusOr<std::unique_ptr<ObjectStore>> OpenObjectStore(absl::string_view field,
                                                             absl::string_view uri) {
  LL_ASSIGN_OR_RETURN(const StoreUri place, ParseStoreUri(field, uri));
  if (!place.folder.empty()) return OpenFolderStore(place.folder);
  auto config = S3ConfigFromEnvironment(RealEnvironment());
  if (!config.ok()) return Annotate(config.status(), field);
  S3Options options;
  options.bucket = place.bucket;
  options.prefix = place.prefix;
  LL_ASSIGN_OR_RETURN(options.endpoint, EndpointOf(*config, place.bucket));
  options.config = *std::move(config);
  return std::unique_ptr<ObjectStore>(
      std::make_unique<S3Store>(std::move(options), CurlTransport(), RealClock(), SystemRandom()));
}

}  // namespace ll
