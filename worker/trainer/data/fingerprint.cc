#include "worker/trainer/data/fingerprint.h"

#include <algorithm>
#include <cstdint>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"

namespace ll {

absl::StatusOr<std::string> FileFingerprint(const std::string& path) {
  constexpr int64_t kPiece = 1 << 20;
  LL_ASSIGN_OR_RETURN(const int64_t size, FileSize(path));
  std::ifstream file(path, std::ios::binary);
  std::string bytes(static_cast<size_t>(std::min(size, 2 * kPiece)), '\0');
  const int64_t head = std::min(size, kPiece), tail = static_cast<int64_t>(bytes.size()) - head;
  file.read(bytes.data(), head);
  file.seekg(size - tail);
  file.read(bytes.data() + head, tail);
  if (!file) return FieldStatus(absl::StatusCode::kUnavailable, path, "cannot read");
  return Sha256Hex(absl::StrCat(size, ":", bytes));
}

absl::StatusOr<std::string> TokenFileFingerprint(const std::string& path, bool with_sidecar) {
  LL_ASSIGN_OR_RETURN(const std::string tokens, FileFingerprint(path));
  if (!with_sidecar) return tokens;
  LL_ASSIGN_OR_RETURN(const std::string sidecar, Sha256HexOfFile(path + ".json"));
  return Sha256Hex(absl::StrCat(tokens, ":", sidecar));
}

absl::StatusOr<std::string> ModelFingerprint(const std::string& folder, bool quantized) {
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(folder));
  std::string all;
  for (const std::string& name : names) {
    if (!absl::StartsWith(name, "model") || !absl::EndsWith(name, ".safetensors")) continue;
    LL_ASSIGN_OR_RETURN(const std::string file, FileFingerprint(absl::StrCat(folder, "/", name)));
    absl::StrAppend(&all, name, ":", file, "\n");
  }
  return absl::StrCat(quantized ? "nf4:" : "", Sha256Hex(all));
}

}  // namespace ll
