#include "worker/trainer/data/loader.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"

namespace ll {

Row ReadRow(const TokenFile& file, int64_t begin, int64_t end) {
  LL_CHECK(0 <= begin && begin < end && end <= file.size());
  std::vector<int32_t> ids(static_cast<size_t>(end - begin));
  file.Read(begin, absl::MakeSpan(ids));
  Row row;
  row.tokens = at::empty({end - begin}, at::kLong);
  row.labels = at::empty({end - begin}, at::kLong);
  std::copy(ids.begin(), ids.end(), row.tokens.mutable_data_ptr<int64_t>());
  std::copy(ids.begin() + 1, ids.end(), row.labels.mutable_data_ptr<int64_t>());
  row.labels[end - begin - 1] = -100;
  return row;
}

absl::StatusOr<std::unique_ptr<Loader>> Loader::Create(std::shared_ptr<const TokenFile> file,
                                                       const LoaderOptions& options) {
  LL_CHECK(options.row_tokens >= 2);
  const int64_t tokens = file->size();
  if (tokens < 2)
    return MakeFieldError(
        {"data", "at least 2 tokens", absl::StrCat(tokens, " in ", file->path())});
  std::set<int64_t> boundaries;
  if (options.document_boundaries) {
    if (file->documents().empty()) {
      return MakeFieldError({"document_boundaries",
                             absl::StrCat("documents in ", file->path(), ".json"), "none",
                             "pack the text again, or set document_boundaries: false"});
    }
    for (const auto& [start, end] : file->documents()) {
      boundaries.insert(start);
      boundaries.insert(end);
    }
  }
  // The tail becomes a shorter row: what padding it with -100 labels would compute, without the
  // padding.
  const int64_t tail = tokens % options.row_tokens;
  const int64_t rows = tokens / options.row_tokens + (tail >= 2 ? 1 : 0);
  return std::unique_ptr<Loader>(new Loader(
      std::move(file), options, rows, std::vector<int64_t>(boundaries.begin(), boundaries.end())));
}

Loader::Loader(std::shared_ptr<const TokenFile> file, const LoaderOptions& options, int64_t rows,
               std::vector<int64_t> boundaries)
    : file_(std::move(file)),
      row_tokens_(options.row_tokens),
      boundaries_(std::move(boundaries)),
      order_(rows, options.seed, options.shuffle) {}

std::pair<int64_t, int64_t> Loader::Span(int64_t index) {
  const int64_t begin = order_.At(index) * row_tokens_;
  return {begin, std::min(begin + row_tokens_, file_->size())};
}

std::vector<int64_t> Loader::BoundariesWithin(int64_t begin, int64_t end) const {
  const auto first = std::upper_bound(boundaries_.begin(), boundaries_.end(), begin);
  return {first, std::lower_bound(first, boundaries_.end(), end)};
}

int64_t Loader::TokensOf(int64_t index) {
  const auto [begin, end] = Span(index);
  return end - begin;
}

int64_t Loader::TargetsOf(int64_t index) {
  const auto [begin, end] = Span(index);
  return end - begin - 1 - static_cast<int64_t>(BoundariesWithin(begin, end).size());
}

Row Loader::Load(int64_t index) {
  const auto [begin, end] = Span(index);
  Row row = ReadRow(*file_, begin, end);
  const std::vector<int64_t> cuts = BoundariesWithin(begin, end);
  if (cuts.empty()) return row;
  int64_t start = begin;
  for (const int64_t cut : cuts) {
    row.labels[cut - 1 - begin] = -100;
    row.documents.emplace_back(start - begin, cut - begin);
    start = cut;
  }
  row.documents.emplace_back(start - begin, end - begin);
  return row;
}

}  // namespace ll
