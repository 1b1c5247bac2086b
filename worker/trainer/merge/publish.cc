#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "storage/object_store.h"
#include "worker/trainer/error_class.h"
#include "worker/trainer/merge/merge.h"
#include "worker/trainer/merge/out_folder.h"

namespace ll {
namespace {

constexpr char kConfig[] = "config.json";

struct Listing {
  std::vector<std::string> names;
  int64_t bytes = 0;
};

// A model folder is flat; what is not a plain file would be lost silently.
absl::StatusOr<Listing> ListModel(const std::string& from) {
  if (!FileExists(from + "/config.json")) {
    return MakeFieldError({"DIR", "a model folder", from,
                           IsDirectory(from) ? "it has no config.json" : "there is no such folder"},
                          absl::StatusCode::kNotFound);
  }
  Listing listing;
  LL_ASSIGN_OR_RETURN(listing.names, ListDir(from));
  for (const std::string& name : listing.names) {
    const std::string path = absl::StrCat(from, "/", name);
    if (IsDirectory(path))
      return MakeFieldError({"DIR", "a folder of files", absl::StrCat("the folder ", path)});
    LL_ASSIGN_OR_RETURN(const int64_t bytes, FileSize(path));
    listing.bytes += bytes;
  }
  return listing;
}

// A bucket has no rename: the copy is a model folder only once config.json, the last file, is
// there.
absl::Status CopyToStore(ObjectStore& store, const std::string& from, const Listing& listing,
                         bool overwrite, const std::function<bool()>& stop,
                         nlohmann::ordered_json& files) {
  LL_ASSIGN_OR_RETURN(const std::vector<ObjectInfo> there, store.List(""));
  if (!there.empty() && !overwrite) {
    return MakeFieldError({"--to", "an empty place", absl::StrCat(there.size(), " objects"),
                           "give another prefix, or --overwrite"},
                          absl::StatusCode::kAlreadyExists);
  }
  const bool model =
      std::any_of(there.begin(), there.end(), [](const ObjectInfo& o) { return o.key == kConfig; });
  if (!there.empty() && !model) {
    return MakeFieldError({"--to", "a model folder to replace", store.uri(),
                           "it has no config.json; remove it yourself if it may go"},
                          absl::StatusCode::kFailedPrecondition);
  }
  if (model) LL_RETURN_IF_ERROR(store.Delete(kConfig));
  std::vector<std::string> names = listing.names;
  std::stable_partition(names.begin(), names.end(),
                        [](const std::string& name) { return name != kConfig; });
  for (const std::string& name : names) {
    if (stop()) return absl::CancelledError("stopped on request");
    const std::string source = absl::StrCat(from, "/", name);
    LL_ASSIGN_OR_RETURN(const std::string sha256, Sha256HexOfFile(source));
    LL_RETURN_IF_ERROR(store.PutFile(name, source, sha256));
    LL_ASSIGN_OR_RETURN(const int64_t bytes, FileSize(source));
    LL_ASSIGN_OR_RETURN(const bool holds, store.Holds(name, bytes, sha256));
    if (!holds) {
      return MakeFieldError({absl::StrCat(store.uri(), "/", name), "sha256 " + sha256, "another"},
                            absl::StatusCode::kDataLoss);
    }
    files[name] = sha256;
  }
  for (const ObjectInfo& object : there) {  // what the old model had and the new one has not
    if (std::find(names.begin(), names.end(), object.key) == names.end())
      LL_RETURN_IF_ERROR(store.Delete(object.key));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<nlohmann::ordered_json> Publish(const std::string& from, const std::string& to,
                                               bool overwrite, const std::function<bool()>& stop) {
  LL_ASSIGN_OR_RETURN(const Listing listing, ListModel(from));
  nlohmann::ordered_json files = nlohmann::ordered_json::object();
  if (absl::StrContains(to, "://")) {
    LL_ASSIGN_OR_RETURN(const auto store, OpenObjectStore("--to", to));
    LL_RETURN_IF_ERROR(CopyToStore(*store, from, listing, overwrite, stop, files));
    return nlohmann::ordered_json{{"to", to}, {"bytes", listing.bytes}, {"sha256", files}};
  }
  LL_ASSIGN_OR_RETURN(NewFolder out, OpenOutFolder("--to", to, overwrite, {from}, listing.bytes));
  for (const std::string& name : listing.names) {
    if (stop()) return absl::CancelledError("stopped on request");
    const std::string source = absl::StrCat(from, "/", name),
                      copy = absl::StrCat(out.partial(), "/", name);
    LL_RETURN_IF_ERROR(DiskError(CopyFileDurably(source, copy)));
    LL_ASSIGN_OR_RETURN(const std::string want, Sha256HexOfFile(source));
    LL_ASSIGN_OR_RETURN(const std::string found, Sha256HexOfFile(copy));
    if (want != found) {
      return MakeFieldError({copy, "sha256 " + want, found}, absl::StatusCode::kDataLoss);
    }
    files[name] = want;
  }
  LL_RETURN_IF_ERROR(DiskError(out.Commit()));
  return nlohmann::ordered_json{{"to", out.path()}, {"bytes", listing.bytes}, {"sha256", files}};
}

}  // namespace ll
