// Files cut into the raw text of one record at a time. Parsing them is left to record_parser.h, so
// that it can run on other threads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/data/byte_source.h"
#include "model/data/input_files.h"

namespace ll {

// Where a document of a text file ends. kFile: each file is one. kBlankLine: at one or more empty
// lines. kJsonLines: not a text file, whatever its name: each line is an object.
enum class DocumentSplit { kFile, kBlankLine, kJsonLines };

struct ReadOptions {
  DocumentSplit split = DocumentSplit::kFile;
  // A longer line, list element or (whole) document is refused: it must sit in memory.
  int64_t max_record_bytes = int64_t{256} << 20;
  // Above 0: a text file that is one document comes in parts of about this size, cut where
  // LastSafeCut (model/text/line_parts.h) allows. 0: whole.
  int64_t part_bytes = 0;
};

struct RawRecord {
  size_t file = 0;   // index of the input file
  int64_t line = 0;  // 1-based: of its first line, or the element of a JSON list
  bool json = false;
  std::string bytes;
  // A part of a document; both are true for a whole one.
  bool first = true, last = true;
};

// After a record: what a later reader needs to go on from there.
struct ReadPosition {
  size_t file = 0;
  int64_t offset = 0;   // in decompressed bytes of the file
  int64_t line = 0;     // lines or elements before it
  bool inside = false;  // of a document that comes in parts
};

// Not thread-safe.
class RawReader {
 public:
  // Starts at `from`, which a reader of the same files and options gave.
  RawReader(std::vector<InputFile> files, const ReadOptions& options,
            const ReadPosition& from = {});
  ~RawReader();

  // False at the end. Errors begin with "FILE:LINE: " where a record is at fault.
  absl::StatusOr<bool> Next(RawRecord& record);
  const ReadPosition& position() const { return position_; }
  const std::vector<InputFile>& files() const { return files_; }
  // Bytes of the input files, as they lie on the disk, that were consumed so far.
  int64_t file_bytes() const;

 private:
  absl::Status OpenFile();
  // Appends up to 256 kB to the buffer; false at the end of the file.
  absl::StatusOr<bool> Fill();
  // Hands out and consumes the first n bytes of the buffer.
  void Take(size_t n, RawRecord& record);
  // The length of the line at the front of the buffer, its newline included; 0 at the end.
  absl::StatusOr<size_t> LineLength();
  // Each gives the next record of the open file, or false at its end.
  absl::StatusOr<bool> NextJsonLine(RawRecord& record);
  absl::StatusOr<bool> NextElement(RawRecord& record);
  absl::StatusOr<bool> NextParagraphs(RawRecord& record);
  absl::StatusOr<bool> NextPart(RawRecord& record);
  // The next byte that is not white space, left in the buffer; 0 at the end.
  absl::StatusOr<char> PeekJson();
  absl::Status TooLong(absl::string_view what, absl::string_view hint) const;
  absl::Status Fault(absl::string_view expected, absl::string_view found) const;
  DataFormat format() const;

  const std::vector<InputFile> files_;
  const ReadOptions options_;
  ReadPosition position_;
  std::unique_ptr<ByteSource> source_;
  std::string buffer_;
  size_t begin_ = 0;      // of what is left of the buffer
  bool ended_ = false;    // the source has no more
  bool in_list_ = false;  // kJson: the elements stand in a list
  int64_t bytes_before_ = 0;
};

}  // namespace ll
