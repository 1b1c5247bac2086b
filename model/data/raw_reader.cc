#include "model/data/raw_reader.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/format.h"
#include "base/status_macros.h"
#include "model/data/json_text.h"
#include "model/text/line_parts.h"

namespace ll {
namespace {
constexpr size_t kReadBytes = 256 << 10;
constexpr absl::string_view kByteOrderMark = "\xEF\xBB\xBF";
}  // namespace

RawReader::RawReader(std::vector<InputFile> files, const ReadOptions& options,
                     const ReadPosition& from)
    : files_(std::move(files)), options_(options), position_(from) {
  for (size_t i = 0; i < position_.file && i < files_.size(); ++i) {
    bytes_before_ += files_[i].size_bytes;
  }
}

RawReader::~RawReader() = default;

int64_t RawReader::file_bytes() const {
  return bytes_before_ + (source_ == nullptr ? 0 : source_->file_bytes());
}

DataFormat RawReader::format() const {
  const DataFormat format = files_[position_.file].format;
  const bool lines = format == DataFormat::kText && options_.split == DocumentSplit::kJsonLines;
  return lines ? DataFormat::kJsonLines : format;
}

absl::Status RawReader::Fault(absl::string_view expected, absl::string_view found) const {
  return MakeFieldError(
      {absl::StrCat(files_[position_.file].path, ":", position_.line + 1), expected, found});
}

absl::Status RawReader::TooLong(absl::string_view what, absl::string_view hint) const {
  return MakeFieldError({absl::StrCat(files_[position_.file].path, ":", position_.line + 1),
                         absl::StrCat(what, " of at most ", HumanBytes(options_.max_record_bytes)),
                         "more", hint});
}

absl::Status RawReader::OpenFile() {
  LL_ASSIGN_OR_RETURN(source_, ByteSource::Open(files_[position_.file]));
  buffer_.clear();
  begin_ = 0;
  ended_ = in_list_ = false;
  const int64_t from = position_.offset;
  position_.offset = 0;
  while (buffer_.size() < kByteOrderMark.size()) {
    LL_ASSIGN_OR_RETURN(const bool more, Fill());
    if (!more) break;
  }
  if (absl::StartsWith(buffer_, kByteOrderMark)) {
    begin_ = kByteOrderMark.size();
    position_.offset = static_cast<int64_t>(begin_);
  }
  if (format() == DataFormat::kJson) {
    LL_ASSIGN_OR_RETURN(const char first, PeekJson());
    in_list_ = first == '[';
    if (in_list_) ++begin_, ++position_.offset;
  }
  const int64_t rest = from - position_.offset;
  if (rest <= 0) return absl::OkStatus();
  const auto buffered = static_cast<int64_t>(buffer_.size() - begin_);
  if (rest > buffered) {
    if (absl::Status s = source_->Skip(rest - buffered); !s.ok()) {
      return Annotate(s, files_[position_.file].path);
    }
  }
  begin_ += static_cast<size_t>(std::min(rest, buffered));
  position_.offset = from;
  return absl::OkStatus();
}

absl::StatusOr<bool> RawReader::Fill() {
  if (ended_) return false;
  if (begin_ > 0) {
    buffer_.erase(0, begin_);
    begin_ = 0;
  }
  const size_t old = buffer_.size();
  buffer_.resize(old + kReadBytes);
  auto n = source_->Read(buffer_.data() + old, kReadBytes);
  buffer_.resize(old + (n.ok() ? *n : 0));
  if (!n.ok()) return n.status();
  ended_ = *n == 0;
  return !ended_;
}

void RawReader::Take(size_t n, RawRecord& record) {
  record.bytes.assign(buffer_, begin_, n);
  begin_ += n;
  position_.offset += static_cast<int64_t>(n);
}

absl::StatusOr<size_t> RawReader::LineLength() {
  size_t seen = 0;
  while (true) {
    const size_t at = buffer_.find('\n', begin_ + seen);
    if (at != std::string::npos) return at + 1 - begin_;
    seen = buffer_.size() - begin_;
    if (static_cast<int64_t>(seen) > options_.max_record_bytes) return TooLong("a line", "");
    LL_ASSIGN_OR_RETURN(const bool more, Fill());
    if (!more) return seen;
  }
}

absl::StatusOr<bool> RawReader::NextJsonLine(RawRecord& record) {
  while (true) {
    LL_ASSIGN_OR_RETURN(const size_t length, LineLength());
    if (length == 0) return false;
    Take(length, record);
    record.line = ++position_.line;
    record.json = true;
    if (!absl::StripAsciiWhitespace(record.bytes).empty()) return true;
  }
}

absl::StatusOr<char> RawReader::PeekJson() {
  while (true) {
    while (begin_ < buffer_.size()) {
      const char c = buffer_[begin_];
      if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return c;
      ++begin_, ++position_.offset;
    }
    LL_ASSIGN_OR_RETURN(const bool more, Fill());
    if (!more) return '\0';
  }
}

absl::StatusOr<bool> RawReader::NextElement(RawRecord& record) {
  LL_ASSIGN_OR_RETURN(char c, PeekJson());
  if (in_list_ && c != ']' && position_.line > 0) {
    if (c != ',')
      return Fault("a comma or the end of the list", c == 0 ? "the end" : "another value");
    ++begin_, ++position_.offset;
    LL_ASSIGN_OR_RETURN(c, PeekJson());
    if (c == ']') return Fault("an object after the comma", "the end of the list");
  }
  if (in_list_ && c == ']') {
    ++begin_, ++position_.offset;
    LL_ASSIGN_OR_RETURN(c, PeekJson());
    if (c != 0) return Fault("nothing after the list", "more text");
    in_list_ = false;
    return false;
  }
  if (c == 0 && in_list_) return Fault("an object or the end of the list", "the end of the file");
  if (c == 0) return false;
  if (c != '{') return Fault("a JSON object", "something else");
  JsonNesting nesting;
  size_t seen = 0;
  while (true) {
    while (begin_ + seen < buffer_.size()) {
      if (!nesting.Feed(buffer_[begin_ + seen++])) return Fault(kJsonDepthLimit, "more");
      if (nesting.closed()) {
        Take(seen, record);
        record.line = ++position_.line;
        record.json = true;
        return true;
      }
    }
    if (static_cast<int64_t>(seen) > options_.max_record_bytes) return TooLong("an object", "");
    LL_ASSIGN_OR_RETURN(const bool more, Fill());
    if (!more) return Fault("a whole JSON object", "the end of the file");
  }
}

absl::StatusOr<bool> RawReader::NextParagraphs(RawRecord& record) {
  record.bytes.clear();
  record.line = 0;
  while (true) {
    LL_ASSIGN_OR_RETURN(const size_t length, LineLength());
    const absl::string_view line(buffer_.data() + begin_, length);
    const bool blank = absl::StripAsciiWhitespace(line).empty();
    if (blank && !record.bytes.empty()) return true;
    if (length == 0) return false;
    if (!blank) {
      if (record.bytes.empty()) record.line = position_.line + 1;
      record.bytes.append(line.data(), line.size());
      if (line.back() != '\n') record.bytes.push_back('\n');
      if (static_cast<int64_t>(record.bytes.size()) > options_.max_record_bytes) {
        return TooLong("a document", "put empty lines between documents");
      }
    }
    begin_ += length;
    position_.offset += static_cast<int64_t>(length);
    ++position_.line;
  }
}

absl::StatusOr<bool> RawReader::NextPart(RawRecord& record) {
  record.first = !position_.inside;
  record.line = position_.line + 1;
  const size_t wanted = options_.part_bytes > 0 ? static_cast<size_t>(options_.part_bytes) : 0;
  size_t searched = 0;
  while (true) {
    const size_t held = buffer_.size() - begin_;
    if (wanted > 0 && held >= wanted) {
      const absl::string_view fresh = absl::string_view(buffer_).substr(begin_ + searched);
      if (const size_t cut = LastSafeCut(fresh); cut > 0) {
        Take(searched + cut, record);
        record.last = false;
        position_.inside = true;
        break;
      }
      searched = held < 2 ? 0 : held - 2;  // a cut depends on the two bytes before it
    }
    if (static_cast<int64_t>(held) > options_.max_record_bytes) {
      return TooLong(wanted > 0 ? "text without a line break" : "a document",
                     "split the file, or pack with --documents blank-line");
    }
    LL_ASSIGN_OR_RETURN(const bool more, Fill());
    if (more) continue;
    if (held == 0 && position_.line > 0) return false;  // the end was handed out
    Take(held, record);
    record.last = true;
    position_.inside = false;
    position_.line = std::max<int64_t>(position_.line, 1);  // even an empty file is a document
    break;
  }
  position_.line += std::count(record.bytes.begin(), record.bytes.end(), '\n');
  return true;
}

absl::StatusOr<bool> RawReader::Next(RawRecord& record) {
  while (position_.file < files_.size()) {
    if (source_ == nullptr) LL_RETURN_IF_ERROR(OpenFile());
    record.file = position_.file;
    record.first = record.last = true;
    record.json = false;
    absl::StatusOr<bool> found = format() == DataFormat::kJsonLines ? NextJsonLine(record)
                                 : format() == DataFormat::kJson    ? NextElement(record)
                                 : options_.split == DocumentSplit::kBlankLine
                                     ? NextParagraphs(record)
                                     : NextPart(record);
    if (!found.ok() || *found) return found;
    bytes_before_ += files_[position_.file].size_bytes;
    source_.reset();
    position_ = {position_.file + 1};
  }
  return false;
}

}  // namespace ll
