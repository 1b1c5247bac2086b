#include "model/data/doctor.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/sha256.h"
#include "base/status_macros.h"

namespace ll {
namespace {

constexpr size_t kExamples = 10;
// Tokens shown of each end of a long run.
constexpr int64_t kPreviewHead = 64, kPreviewTail = 32;

// 64 bits of a SHA-256: 10 million documents meet by chance once in 400,000 times.
uint64_t HashOf(absl::string_view text) {
  return std::stoull(Sha256Hex(text).substr(0, 16), nullptr, 16);
}

// All texts of a record, each with its length in front so that no two records run together.
std::string AllText(const Record& r) {
  std::string out;
  const auto add = [&](absl::string_view s) { absl::StrAppend(&out, s.size(), ":", s); };
  for (const std::string* s : {&r.text, &r.instruction, &r.input, &r.output}) add(*s);
  for (const ChatMessage& m : r.messages) {
    add(m.role);
    add(m.content);
  }
  return out;
}

bool HasAnswer(const Record& r) {
  const auto some = [](const std::string& s) { return !absl::StripAsciiWhitespace(s).empty(); };
  if (r.kind == Record::Kind::kText) return true;
  if (r.kind != Record::Kind::kMessages) return some(r.output);
  return std::any_of(r.messages.begin(), r.messages.end(), [&](const ChatMessage& m) {
    return m.role == "assistant" && some(m.content);
  });
}

class Examination {
 public:
  Examination(const DoctorOptions& options, const Tokenizer& tokenizer,
              const std::vector<InputFile>& files)
      : options_(options), tokenizer_(tokenizer), files_(files) {
    report_.files = static_cast<int64_t>(files.size());
    report_.supervised = options.encode.encode_sample != nullptr;
    report_.context_length = options.context_length;
    report_.vocab_size = tokenizer.vocab_size();
    used_.assign(static_cast<size_t>(tokenizer.vocab_size()), false);
  }

  void Take(const EncodedBatch& batch) {
    for (const EncodedPart& part : batch.parts) {
      if (part.first) open_ = {};
      TakeText(part);
      if (!part.status.ok()) {
        ++report_.bad_records;
        AddExample(report_.bad_examples, std::string(part.status.message()));
        continue;
      }
      const auto ids = absl::MakeConstSpan(batch.ids).subspan(part.begin, part.end - part.begin);
      TakeIds(part, ids);
      open_.tokens += static_cast<int64_t>(ids.size());
      if (part.last) EndRecord(part);
    }
  }

  DoctorReport Finish() {
    report_.used_ids = std::count(used_.begin(), used_.end(), true);
    SummariseLengths();
    return std::move(report_);
  }

 private:
  // A record whose parts are coming in.
  struct Open {
    int64_t tokens = 0;
    bool special_inside = false;
    std::string part_hashes;
  };

  static void AddExample(std::vector<std::string>& list, std::string text) {
    if (list.size() < kExamples) list.push_back(std::move(text));
  }

  void TakeText(const EncodedPart& part) {
    const Record& r = part.record;
    if (r.file.empty()) return;  // not parsed
    report_.replaced += part.replaced ? 1 : 0;
    absl::StrAppend(&open_.part_hashes, HashOf(AllText(r)), " ");
    if (!part.last) return;
    ++report_.kinds[std::string(KindName(part.kind))];
    for (const ChatMessage& m : r.messages) ++report_.roles[m.role];
    if (!HasAnswer(r)) ++report_.without_target;
    const auto [it, fresh] =
        seen_.try_emplace(HashOf(open_.part_hashes), std::make_pair(part.file, part.line));
    if (fresh) return;
    ++report_.duplicates;
    AddExample(report_.duplicate_examples,
               absl::StrCat(RecordPlace(r.file, r.line), ": the text of ",
                            RecordPlace(files_[it->second.first].path, it->second.second)));
  }

  void TakeIds(const EncodedPart& part, absl::Span<const int32_t> ids) {
    const size_t begin = part.first && options_.encode.add_bos ? 1 : 0;
    const size_t end = ids.size() - (part.last && options_.encode.add_eos && !ids.empty() ? 1 : 0);
    for (size_t i = 0; i < ids.size(); ++i) {
      used_[static_cast<size_t>(ids[i])] = true;
      if (report_.supervised || i < begin || i >= end) continue;
      open_.special_inside |= ids[i] == tokenizer_.bos_id || ids[i] == tokenizer_.eos_id;
    }
    for (const auto& [from, to] : part.loss_spans) report_.targets += to - from;
    report_.truncated_targets += part.truncated_targets;
    report_.truncated_records += part.truncated_targets > 0 ? 1 : 0;
    const bool wanted = static_cast<int>(report_.previews.size()) < options_.preview;
    if (part.first && wanted && !ids.empty()) AddPreview(part, ids);
  }

  void EndRecord(const EncodedPart& part) {
    if (open_.tokens == 0) {
      ++report_.dropped;
      return;
    }
    ++report_.records;
    report_.tokens += open_.tokens;
    report_.with_special_inside += open_.special_inside ? 1 : 0;
    lengths_.push_back(open_.tokens);
  }

  std::string DecodeShort(absl::Span<const int32_t> ids) const {
    const auto text = [&](absl::Span<const int32_t> some) {
      std::string out;
      size_t done = 0;
      for (size_t i = 0; i <= some.size(); ++i) {
        const bool bos = i < some.size() && some[i] == tokenizer_.bos_id;
        const bool eos = i < some.size() && some[i] == tokenizer_.eos_id;
        if (i < some.size() && !bos && !eos) continue;
        out += tokenizer_.Decode(some.subspan(done, i - done));
        if (i < some.size()) out += bos ? "<bos>" : "<eos>";
        done = i + 1;
      }
      return out;
    };
    const auto n = static_cast<int64_t>(ids.size());
    if (n <= kPreviewHead + kPreviewTail) return text(ids);
    return absl::StrCat(text(ids.subspan(0, kPreviewHead)), " … (", n - kPreviewHead - kPreviewTail,
                        " more tokens) … ",
                        text(ids.subspan(static_cast<size_t>(n - kPreviewTail))));
  }

  void AddPreview(const EncodedPart& part, absl::Span<const int32_t> ids) {
    DoctorReport::Preview preview;
    preview.place = RecordPlace(files_[part.file].path, part.line);
    preview.tokens = static_cast<int64_t>(ids.size());
    int64_t done = 0;
    const auto add = [&](int64_t to, bool trained) {
      if (to <= done) return;
      preview.runs.push_back(
          {DecodeShort(ids.subspan(static_cast<size_t>(done), static_cast<size_t>(to - done))),
           trained});
      done = to;
    };
    for (const auto& [from, to] : part.loss_spans) {
      add(from, false);
      add(to, true);
    }
    add(preview.tokens, !report_.supervised);
    report_.previews.push_back(std::move(preview));
  }

  void SummariseLengths() {
    if (lengths_.empty()) return;
    std::sort(lengths_.begin(), lengths_.end());
    const auto quantile = [&](double q) {
      return lengths_[static_cast<size_t>(q * static_cast<double>(lengths_.size() - 1))];
    };
    report_.shortest = lengths_.front();
    report_.median = quantile(0.5);
    report_.p90 = quantile(0.9);
    report_.p99 = quantile(0.99);
    report_.longest = lengths_.back();
    report_.mean = static_cast<double>(report_.tokens) / static_cast<double>(lengths_.size());
    for (int64_t length : lengths_) {
      const auto from = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(length)));
      if (report_.histogram.empty() || report_.histogram.back().from != from) {
        report_.histogram.push_back({from, 2 * from, 0});
      }
      ++report_.histogram.back().records;
      if (report_.context_length == 0) continue;
      if (length < report_.context_length) ++report_.shorter_than_context;
      if (length > report_.context_length) ++report_.longer_than_context;
    }
  }

  const DoctorOptions& options_;
  const Tokenizer& tokenizer_;
  const std::vector<InputFile>& files_;
  DoctorReport report_;
  Open open_;
  std::vector<bool> used_;
  std::vector<int64_t> lengths_;
  absl::flat_hash_map<uint64_t, std::pair<size_t, int64_t>> seen_;  // text to its first place
};

}  // namespace

absl::StatusOr<DoctorReport> ExamineData(const DoctorOptions& options, const Tokenizer& tokenizer) {
  LL_ASSIGN_OR_RETURN(const std::vector<InputFile> files, FindInputFiles(options.inputs));
  ReadOptions reading;
  reading.split = options.split;
  reading.part_bytes = PartBytes(tokenizer);
  RawReader reader(files, reading);
  EncodeOptions encode = options.encode;
  encode.keep_records = true;
  Examination examination(options, tokenizer, files);
  LL_RETURN_IF_ERROR(EncodeRecords(reader, encode, tokenizer, [&](EncodedBatch& batch) {
    examination.Take(batch);
    return absl::OkStatus();
  }));
  return examination.Finish();
}

}  // namespace ll
