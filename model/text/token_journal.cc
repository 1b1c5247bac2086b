#include "model/text/token_journal.h"

#include <unistd.h>

#include <cerrno>

#include "absl/strings/string_view.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

using nlohmann::json;

int64_t EndOf(const TokenSpans& spans) { return spans.empty() ? 0 : spans.back().second; }

// Reads [start, end) pairs; false unless they rise from `first` and end by `size`.
bool ReadSpans(const json& list, int64_t first, int64_t size, TokenSpans& spans) {
  if (!list.is_array()) return false;
  for (const json& pair : list) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number_integer() ||
        !pair[1].is_number_integer()) {
      return false;
    }
    const auto start = pair[0].get<int64_t>(), end = pair[1].get<int64_t>();
    if (start < first || end < start || end > size) return false;
    spans.emplace_back(start, end);
    first = end;
  }
  return true;
}

// Adds the commit of one line, all of it or nothing; false where the line is damaged.
bool AddLine(absl::string_view line, TokenCommit& sum) {
  const absl::StatusOr<json> parsed = ParseJsonObject(line);
  if (!parsed.ok()) return false;
  const json& root = *parsed;
  const auto field = [&root](const char* name) -> const json& {
    static const json kAbsent;
    const auto it = root.find(name);
    return it == root.end() ? kAbsent : *it;
  };
  const json &tokens = field("tokens"), &open = field("open_document"), &state = field("state");
  if (!tokens.is_number_integer() || !open.is_number_integer() || !state.is_string()) return false;
  const auto size = tokens.get<int64_t>(), open_document = open.get<int64_t>();
  TokenSpans documents, loss_spans;
  if (size < sum.tokens || open_document < -1 || open_document > size ||
      !ReadSpans(field("documents"), EndOf(sum.documents), size, documents)) {
    return false;
  }
  if (root.contains("loss_spans")) {
    const int64_t first = sum.loss_spans ? EndOf(*sum.loss_spans) : 0;
    if (!ReadSpans(field("loss_spans"), first, size, loss_spans)) return false;
    if (!sum.loss_spans) sum.loss_spans.emplace();
    sum.loss_spans->insert(sum.loss_spans->end(), loss_spans.begin(), loss_spans.end());
  }
  sum.documents.insert(sum.documents.end(), documents.begin(), documents.end());
  sum.tokens = size;
  sum.open_document = open_document;
  sum.state = state.get<std::string>();
  return true;
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
