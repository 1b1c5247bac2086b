#include "model/data/encode_records.h"

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/data/ordered_pool.h"
#include "model/text/line_parts.h"

namespace ll {
namespace {

constexpr int64_t kBatchBytes = 512 << 10;
constexpr size_t kBatchRecords = 4096;

struct Batch {
  std::vector<RawRecord> raw;
  EncodedBatch encoded;
};

// What the threads share; all of it thread-safe.
class Encoder {
 public:
  static absl::StatusOr<Encoder> Create(const EncodeOptions& options, const Tokenizer& tokenizer,
                                        const std::vector<InputFile>& files) {
    Encoder out(options, tokenizer, files);
    if (!tokenizer.SplitsAtLines()) return out;
    LL_ASSIGN_OR_RETURN(auto parts, LinePartEncoder::Create(tokenizer));
    out.parts_.emplace(std::move(parts));
    return out;
  }

  void EncodeBatch(Batch& batch) const {
    for (RawRecord& raw : batch.raw) {
      EncodedPart part;
      part.file = raw.file;
      part.line = raw.line;
      part.first = raw.first;
      part.last = raw.last;
      part.begin = batch.encoded.ids.size();
      part.status = EncodeOne(std::move(raw), part, batch.encoded.ids);
      if (!part.status.ok()) batch.encoded.ids.resize(part.begin);
      part.end = batch.encoded.ids.size();
      batch.encoded.parts.push_back(std::move(part));
    }
    batch.raw.clear();
  }

 private:
  Encoder(const EncodeOptions& options, const Tokenizer& tokenizer,
          const std::vector<InputFile>& files)
      : options_(&options), tokenizer_(&tokenizer), files_(&files) {}

  absl::Status EncodeOne(RawRecord&& raw, EncodedPart& part, std::vector<int32_t>& ids) const {
    const bool first = raw.first, last = raw.last;
    LL_ASSIGN_OR_RETURN(Record record, ParseRecord(std::move(raw), (*files_)[part.file].path,
                                                   options_->invalid_utf8, part.replaced));
    part.kind = record.kind;
    absl::Status status = options_->encode_sample ? EncodeSample(record, part, ids)
                                                  : EncodeText(record, first, last, ids);
    if (options_->keep_records) part.record = std::move(record);
    return status;
  }

  absl::Status EncodeSample(const Record& record, EncodedPart& part,
                            std::vector<int32_t>& ids) const {
    LL_ASSIGN_OR_RETURN(EncodedSample sample, options_->encode_sample(record));
    ids.insert(ids.end(), sample.ids.begin(), sample.ids.end());
    part.loss_spans = std::move(sample.loss_spans);
    part.truncated_targets = sample.truncated_targets;
    return absl::OkStatus();
  }

  absl::Status EncodeText(const Record& record, bool first, bool last,
                          std::vector<int32_t>& ids) const {
    if (record.kind != Record::Kind::kText) {
      return MakeFieldError({RecordPlace(record.file, record.line), "a record with \"text\"",
                             absl::StrCat("one with ", KindName(record.kind)),
                             "supervised samples want --prompt-template"});
    }
    if (first && options_->add_bos) ids.push_back(*tokenizer_->bos_id);
    if (first && last) {
      LL_ASSIGN_OR_RETURN(const std::vector<int32_t> text, tokenizer_->Encode(record.text));
      ids.insert(ids.end(), text.begin(), text.end());
    } else {
      LL_RETURN_IF_ERROR(parts_->Encode(record.text, first, ids));
    }
    if (last && options_->add_eos) ids.push_back(*tokenizer_->eos_id);
    return absl::OkStatus();
  }

  const EncodeOptions* options_;
  const Tokenizer* tokenizer_;
  const std::vector<InputFile>* files_;
  std::optional<LinePartEncoder> parts_;
};

// Files of mixed kinds are mistakes: which template or which target would hold is a guess.
class KindCheck {
 public:
  KindCheck(const ReadPosition& from, std::optional<Record::Kind> kind)
      : file_(from.file), kind_(kind) {}

  void Check(const InputFile& file, EncodedPart& part) {
    if (part.file != file_) kind_.reset();
    file_ = part.file;
    if (!part.status.ok()) return;
    if (!kind_) kind_ = part.kind;
    if (*kind_ == part.kind) return;
    part.status = MakeFieldError(
        {RecordPlace(file.path, part.line),
         absl::StrCat("a record with ", KindName(*kind_), " as those before it in the file"),
         absl::StrCat("one with ", KindName(part.kind))});
    part.end = part.begin;  // its ids stay in the batch, unused
  }
  std::optional<Record::Kind> kind() const { return kind_; }

 private:
  size_t file_;
  std::optional<Record::Kind> kind_;
};

// False at the end of the input.
absl::StatusOr<bool> ReadBatch(RawReader& reader, Batch& batch) {
  RawRecord record;
  while (batch.encoded.text_bytes < kBatchBytes && batch.raw.size() < kBatchRecords) {
    LL_ASSIGN_OR_RETURN(const bool more, reader.Next(record));
    if (!more) return false;
    batch.encoded.text_bytes += static_cast<int64_t>(record.bytes.size());
    batch.raw.push_back(std::move(record));
    batch.encoded.after = reader.position();
    batch.encoded.file_bytes = reader.file_bytes();
  }
  return true;
}

}  // namespace

int64_t PartBytes(const Tokenizer& tokenizer) {
  return tokenizer.SplitsAtLines() ? kBatchBytes / 2 : 0;
}

absl::Status EncodeRecords(RawReader& reader, const EncodeOptions& options,
                           const Tokenizer& tokenizer,
                           const std::function<absl::Status(EncodedBatch&)>& sink) {
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const int threads = options.threads > 0 ? options.threads : cores;
  LL_ASSIGN_OR_RETURN(const Encoder encoder, Encoder::Create(options, tokenizer, reader.files()));
  KindCheck kinds(reader.position(), options.kind);
  OrderedPool<Batch> pool(threads, [&](Batch& batch) { encoder.EncodeBatch(batch); });
  const auto hand_on = [&]() -> absl::Status {
    const std::unique_ptr<Batch> batch = pool.Take();
    EncodedBatch& encoded = batch->encoded;
    for (EncodedPart& part : encoded.parts) {
      kinds.Check(reader.files()[part.file], part);
    }
    encoded.kind = kinds.kind();
    return sink(encoded);
  };
  absl::StatusOr<bool> more = true;
  while (more.ok() && *more) {
    auto batch = std::make_unique<Batch>();
    more = ReadBatch(reader, *batch);
    if (!batch->raw.empty()) pool.Submit(std::move(batch));
    // Enough in flight that no thread waits while the front one is written.
    while (pool.size() > 2 * static_cast<size_t>(threads)) LL_RETURN_IF_ERROR(hand_on());
  }
  while (pool.size() > 0) LL_RETURN_IF_ERROR(hand_on());
  return more.status();
}

}  // namespace ll
