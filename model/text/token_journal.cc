#include "model/text/token_journal.h"

#include <unistd.h>

#include <cerrno>

#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

using nlohmann::json;

// Adds the commit of one line; false where the line is damaged.
bool AddLine(absl::string_view line, TokenCommit& sum) {
  try {
    const json root = json::parse(line.begin(), line.end());
    const auto tokens = root.at("tokens").get<int64_t>();
    if (tokens < sum.tokens) return false;
    const auto documents = root.at("documents").get<TokenSpans>();
    sum.documents.insert(sum.documents.end(), documents.begin(), documents.end());
    if (root.contains("loss_spans")) {
      const auto spans = root["loss_spans"].get<TokenSpans>();
      if (!sum.loss_spans) sum.loss_spans.emplace();
      sum.loss_spans->insert(sum.loss_spans->end(), spans.begin(), spans.end());
    }
    sum.open_document = root.at("open_document").get<int64_t>();
    sum.state = root.at("state").get<std::string>();
    sum.tokens = tokens;
    return true;
  } catch (const json::exception&) {
    return false;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<TokenJournal>> TokenJournal::Open(
    const std::string& path, const std::string& fingerprint, std::optional<TokenCommit>& restored,
    bool& dropped) {
  std::unique_ptr<TokenJournal> journal(new TokenJournal(path, fingerprint));
  restored.reset();
  dropped = false;
  std::string text;
  if (FileExists(path)) {
    LL_ASSIGN_OR_RETURN(text, ReadFile(path));
  }
  const std::string header = json{{"fingerprint", fingerprint}}.dump() + "\n";
  if (text.compare(0, header.size(), header) != 0) {
    dropped = !text.empty();
    LL_RETURN_IF_ERROR(journal->Restart());
    return journal;
  }
  TokenCommit sum;
  bool any = false;
  size_t whole = header.size();
  for (size_t end; (end = text.find('\n', whole)) != std::string::npos; whole = end + 1) {
    if (!AddLine(absl::string_view(text).substr(whole, end - whole), sum)) break;
    any = true;
  }
  if (any) restored = std::move(sum);
  // A line that was cut by a power failure must not stand in front of the next commit.
  if (truncate(path.c_str(), static_cast<off_t>(whole)) != 0) {
    return ErrnoStatus(errno, "cannot shorten", path);
  }
  LL_ASSIGN_OR_RETURN(auto file, AppendOnlyFile::Open(path));
  journal->file_.emplace(std::move(file));
  return journal;
}

absl::Status TokenJournal::Restart() {
  file_.reset();
  LL_RETURN_IF_ERROR(WriteFileAtomic(path_, json{{"fingerprint", fingerprint_}}.dump() + "\n"));
  LL_ASSIGN_OR_RETURN(auto file, AppendOnlyFile::Open(path_));
  file_.emplace(std::move(file));
  return absl::OkStatus();
}

absl::Status TokenJournal::Append(const TokenCommit& commit) {
  json line = {{"tokens", commit.tokens},
               {"documents", commit.documents},
               {"open_document", commit.open_document},
               {"state", commit.state}};
  if (commit.loss_spans) line["loss_spans"] = *commit.loss_spans;
  LL_RETURN_IF_ERROR(file_->Append(line.dump() + "\n"));
  return file_->Sync();
}

}  // namespace ll
