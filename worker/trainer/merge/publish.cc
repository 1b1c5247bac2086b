#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "worker/trainer/error_class.h"
#include "worker/trainer/merge/merge.h"
#include "worker/trainer/merge/out_folder.h"

namespace ll {
namespace {

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

}  // namespace

absl::StatusOr<nlohmann::ordered_json> Publish(const std::string& from, const std::string& to,
                                               bool overwrite, const std::function<bool()>& stop) {
  if (absl::StrContains(to, "://")) {
    return FieldStatus(absl::StatusCode::kUnimplemented, "--to",
                       absl::StrCat("expected a path, found ", to,
                                    ": object stores are not available in this version"),
                       "publish to a folder and copy it with the store's own tool");
  }
  LL_ASSIGN_OR_RETURN(const Listing listing, ListModel(from));
  LL_ASSIGN_OR_RETURN(NewFolder out, OpenOutFolder("--to", to, overwrite, {from}, listing.bytes));
  nlohmann::ordered_json files = nlohmann::ordered_json::object();
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
