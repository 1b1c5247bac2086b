#include "worker/trainer/data/sft_loader.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/status_macros.h"

namespace ll {

int64_t LongLoraSftGroupTokens(int64_t length) { return length % 4096 == 0 ? length / 4 : 8192; }

std::vector<std::vector<int32_t>> PackFirstFit(const std::vector<int64_t>& lengths,
                                               int64_t capacity) {
  // A tree of the largest room below each node finds the first bin that fits by one descent.
  size_t leaves = 1;
  while (leaves < lengths.size()) leaves *= 2;
  std::vector<int64_t> room(2 * leaves, capacity);
  std::vector<std::vector<int32_t>> bins;
  for (size_t item = 0; item < lengths.size(); ++item) {
    LL_CHECK(lengths[item] >= 0 && lengths[item] <= capacity);
    size_t node = 1;
    while (node < leaves) node = room[2 * node] >= lengths[item] ? 2 * node : 2 * node + 1;
    const size_t bin = node - leaves;
    if (bin >= bins.size()) bins.resize(bin + 1);
    bins[bin].push_back(static_cast<int32_t>(item));
    room[node] -= lengths[item];
    for (node /= 2; node >= 1; node /= 2) room[node] = std::max(room[2 * node], room[2 * node + 1]);
  }
  return bins;
}

absl::StatusOr<std::vector<SftLoader::Sample>> SftLoader::ReadSamples(
    const TokenFile& file, const SftLoaderOptions& options, std::vector<std::string>* warnings) {
  const TokenSpans& spans = *file.loss_spans();
  std::vector<Sample> samples;
  int64_t number = 0, cut = 0, dropped = 0, without_target = 0;
  size_t span = 0;
  for (const auto& [begin, stop] : file.documents()) {
    ++number;
    int64_t end = stop;
    const auto refuse = [&](absl::string_view expected, absl::string_view found,
                            absl::string_view hint) {
      return MakeFieldError({absl::StrCat(file.path(), " sample ", number), expected, found, hint});
    };
    if (end - begin > options.row_tokens) {
      if (options.truncation == "drop") {
        ++dropped;
        continue;
      }
      if (options.truncation != "right") {
        return refuse(absl::StrCat("at most ", options.row_tokens, " tokens (max_seq_length)"),
                      absl::StrCat(end - begin), "pack the data again with this max_seq_length");
      }
      end = begin + options.row_tokens;
      ++cut;
    }
    while (span < spans.size() && spans[span].second <= begin) ++span;
    Sample sample{begin, end, 0, span};
    for (size_t s = span; s < spans.size() && spans[s].first < end; ++s) {
      // The first token of a sample has none that predicts it.
      sample.targets += std::max<int64_t>(
          0, std::min(spans[s].second, end) - std::max(spans[s].first, begin + 1));
    }
    if (sample.targets > 0) {
      samples.push_back(sample);
    } else if (options.skip_bad_samples) {
      ++without_target;
    } else {
      return refuse("at least one token with a loss", "none",
                    "set on_bad_sample: skip to leave such samples out");
    }
  }
  const auto warn = [&](int64_t count, absl::string_view what) {
    if (count > 0) warnings->push_back(absl::StrCat(count, " of ", number, " samples ", what));
  };
  warn(cut, absl::StrCat("were cut to max_seq_length (", options.row_tokens, ")"));
  warn(dropped, "are longer than max_seq_length and left out");
  warn(without_target, "have no token with a loss and are left out");
  return samples;
}

absl::StatusOr<std::unique_ptr<SftLoader>> SftLoader::Create(std::shared_ptr<const TokenFile> file,
                                                             const SftLoaderOptions& options,
                                                             std::vector<std::string>* warnings) {
  LL_CHECK(options.row_tokens >= 2);
  if (!file->loss_spans() || file->documents().empty()) {
    return MakeFieldError({"data", "a token file of samples (with loss_spans), because sft is set",
                           absl::StrCat("none in ", file->path(), ".json"),
                           "give the instruction file itself, or pack it with --sft"});
  }
  LL_ASSIGN_OR_RETURN(std::vector<Sample> samples, ReadSamples(*file, options, warnings));
  if (samples.empty())
    return MakeFieldError({"data", "at least one sample to train on", "none", file->path()});
  std::vector<std::vector<int32_t>> rows;
  if (options.packing) {
    std::vector<int64_t> lengths;
    for (const Sample& sample : samples) lengths.push_back(sample.end - sample.begin);
    rows = PackFirstFit(lengths, options.row_tokens);
  } else {
    for (size_t i = 0; i < samples.size(); ++i) rows.push_back({static_cast<int32_t>(i)});
  }
  return std::unique_ptr<SftLoader>(
      new SftLoader(std::move(file), std::move(samples), std::move(rows), options));
}

SftLoader::SftLoader(std::shared_ptr<const TokenFile> file, std::vector<Sample> samples,
                     std::vector<std::vector<int32_t>> rows, const SftLoaderOptions& options)
    : file_(std::move(file)),
      samples_(std::move(samples)),
      rows_(std::move(rows)),
      order_(static_cast<int64_t>(rows_.size()), options.seed, options.shuffle) {}

int64_t SftLoader::TokensOf(int64_t index) {
  int64_t tokens = 0;
  for (const int32_t i : rows_[order_.At(index)]) tokens += samples_[i].end - samples_[i].begin;
  return tokens;
}

int64_t SftLoader::TargetsOf(int64_t index) {
  int64_t targets = 0;
  for (const int32_t i : rows_[order_.At(index)]) targets += samples_[i].targets;
  return targets;
}

Row SftLoader::Load(int64_t index) {
  const std::vector<int32_t>& samples = rows_[order_.At(index)];
  const int64_t tokens = TokensOf(index);
  Row row;
  row.tokens = at::empty({tokens}, at::kLong);
  row.labels = at::full({tokens}, -100, at::kLong);
  auto* const ids = row.tokens.mutable_data_ptr<int64_t>();
  auto* const labels = row.labels.mutable_data_ptr<int64_t>();
  const TokenSpans& spans = *file_->loss_spans();
  std::vector<int32_t> buffer;
  int64_t at = 0;
  for (const int32_t i : samples) {
    const Sample& sample = samples_[i];
    const int64_t length = sample.end - sample.begin;
    buffer.resize(static_cast<size_t>(length));
    file_->Read(sample.begin, absl::MakeSpan(buffer));
    std::copy(buffer.begin(), buffer.end(), ids + at);
    for (size_t s = sample.first_span; s < spans.size() && spans[s].first < sample.end; ++s) {
      const int64_t first = std::max(spans[s].first, sample.begin + 1) - sample.begin;
      const int64_t last = std::min(spans[s].second, sample.end) - sample.begin;
      // labels[t] is the target of position t.
      for (int64_t t = first; t < last; ++t) labels[at + t - 1] = buffer[t];
    }
    if (samples.size() > 1) row.documents.emplace_back(at, at + length);
    at += length;
  }
  return row;
}

}  // namespace ll
