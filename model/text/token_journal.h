// What a killed writer of a token file had on the disk: F.bin.partial.journal, one JSON object a
// line. The first names the fingerprint; each of the others adds one commit.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"
#include "model/text/token_file.h"

namespace ll {

// One commit, or the sum of all of them.
struct TokenCommit {
  int64_t tokens = 0;          // in the file, from its start
  int64_t open_document = -1;  // where a document that is not ended yet starts
  TokenSpans documents;        // in one commit: those that were added
  std::optional<TokenSpans> loss_spans;
  std::string state;
};

// Not thread-safe.
class TokenJournal {
 public:
  // Opens or makes the journal. `restored` gets the sum of the commits that are whole; absent where
  // there is none of this fingerprint. `dropped`: there were some of another.
  static absl::StatusOr<std::unique_ptr<TokenJournal>> Open(const std::string& path,
                                                            const std::string& fingerprint,
                                                            std::optional<TokenCommit>& restored,
                                                            bool& dropped);
  // Forgets all commits.
  absl::Status Restart();
  // Returns when the commit is on the disk.
  absl::Status Append(const TokenCommit& commit);

 private:
  TokenJournal(std::string path, std::string fingerprint)
      : path_(std::move(path)), fingerprint_(std::move(fingerprint)) {}
  std::string path_, fingerprint_;
  std::optional<AppendOnlyFile> file_;
};

}  // namespace ll
