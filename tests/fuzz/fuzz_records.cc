// A file of training data. The input's first byte says how it is read: bits 0-1 the kind of file,
// bits 2-3 the compression, bits 4-5 how a text file is cut. A reader that starts anew at any
// position it gave must go on with the same records.
#include <vector>

#include "base/check.h"
#include "model/data/raw_reader.h"
#include "model/data/record_parser.h"
#include "tests/fuzz/fuzz.h"

namespace ll {
namespace {

struct Read {
  std::vector<RawRecord> records;
  std::vector<ReadPosition> positions;  // behind each
  absl::Status end;
};

Read ReadAll(const InputFile& file, const ReadOptions& options, const ReadPosition& from) {
  Read read;
  RawReader reader({file}, options, from);
  for (;;) {
    RawRecord record;
    const absl::StatusOr<bool> more = reader.Next(record);
    read.end = more.status();
    if (!more.ok() || !*more) return read;
    read.records.push_back(std::move(record));
    read.positions.push_back(reader.position());
  }
}

void CheckParsed(RawRecord raw) {
  bool replaced = false;
  const auto strict = ParseRecord(RawRecord(raw), "f", InvalidUtf8::kRefuse, replaced);
  if (!strict.ok()) CheckRefusal(strict.status());
  const auto lenient = ParseRecord(std::move(raw), "f", InvalidUtf8::kReplace, replaced);
  if (!lenient.ok()) CheckRefusal(lenient.status());
  LL_CHECK(!strict.ok() || lenient.ok());
}

}  // namespace

void FuzzOne(absl::string_view input) {
  if (input.empty()) return;
  const unsigned char how = static_cast<unsigned char>(input[0]);
  const MemoryFile bytes(input.substr(1));
  InputFile file;
  file.path = bytes.path();
  file.format = static_cast<DataFormat>(how % 4 % 3);
  file.compression = static_cast<Compression>(how / 4 % 4 % 3);
  file.size_bytes = static_cast<int64_t>(input.size()) - 1;
  ReadOptions options;
  options.split = static_cast<DocumentSplit>(how / 16 % 4 % 3);
  options.max_record_bytes = 1 << 12;
  options.part_bytes = how & 64 ? 64 : 0;

  const Read whole = ReadAll(file, options, {});
  if (!whole.end.ok()) CheckRefusal(whole.end);
  for (const RawRecord& record : whole.records) CheckParsed(record);
  if (whole.records.empty()) return;
  const size_t cut = whole.records.size() / 2;
  const Read rest = ReadAll(file, options, whole.positions[cut]);
  LL_CHECK(rest.end == whole.end);
  LL_CHECK(rest.records.size() == whole.records.size() - cut - 1);
  for (size_t i = 0; i < rest.records.size(); ++i) {
    const RawRecord &a = rest.records[i], &b = whole.records[cut + 1 + i];
    LL_CHECK(a.bytes == b.bytes && a.line == b.line && a.first == b.first && a.last == b.last);
  }
}

}  // namespace ll
