#include "model/weights/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/lfs_pointer.h"
#include "base/status_macros.h"

namespace ll {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as the format's own library
constexpr size_t kLengthBytes = 8;
// Some 10 values a tensor: far more tensors than any model has, and no more than 200 MB of them.
constexpr JsonLimits kHeaderLimits = {.max_depth = 8, .max_values = 3'000'000};
constexpr size_t kMaxDimensions = 64;  // as torch

struct DtypeRow {
  Dtype dtype;
  const char* name;
  int64_t bytes;
};
constexpr DtypeRow kDtypes[] = {
    {Dtype::kBool, "BOOL", 1}, {Dtype::kU8, "U8", 1},     {Dtype::kI8, "I8", 1},
    {Dtype::kI16, "I16", 2},   {Dtype::kU16, "U16", 2},   {Dtype::kI32, "I32", 4},
    {Dtype::kU32, "U32", 4},   {Dtype::kI64, "I64", 8},   {Dtype::kU64, "U64", 8},
    {Dtype::kF16, "F16", 2},   {Dtype::kBF16, "BF16", 2}, {Dtype::kF32, "F32", 4},
    {Dtype::kF64, "F64", 8}};

absl::Status Bad(absl::string_view what, absl::string_view expected, absl::string_view found) {
  return absl::InvalidArgumentError(absl::StrCat(absl::CHexEscape(what.substr(0, 200)),
                                                 ": expected ", expected, ", found ", found));
}

// shape and dtype → bytes; false where they, or a stride, pass 2^63: an empty tensor of huge sizes
// too, whose strides its users compute.
bool TensorBytes(const TensorInfo& t, int64_t& bytes) {
  int64_t reach = bytes = DtypeBytes(t.dtype);
  for (int64_t size : t.shape) {
    if (__builtin_mul_overflow(reach, std::max<int64_t>(size, 1), &reach)) return false;
    bytes *= size;
  }
  return true;
}

absl::StatusOr<TensorInfo> ParseTensor(const std::string& name, const json& entry) {
  TensorInfo t;
  t.name = name;
  if (!entry.is_object()) return Bad(name, "an object", JsonExcerpt(entry));
  const json dtype = entry.value("dtype", json()), shape = entry.value("shape", json());
  const json offsets = entry.value("data_offsets", json());
  const auto* row = std::find_if(std::begin(kDtypes), std::end(kDtypes), [&](const DtypeRow& r) {
    return dtype.is_string() && dtype == r.name;
  });
  if (row == std::end(kDtypes))
    return Bad(name, "a known dtype (F32, BF16, F16, …)", JsonExcerpt(dtype));
  t.dtype = row->dtype;
  if (!shape.is_array() || shape.size() > kMaxDimensions) {
    return Bad(name, absl::StrCat("a list of at most ", kMaxDimensions, " sizes as shape"),
               JsonExcerpt(shape));
  }
  for (const json& size : shape) {
    if (!size.is_number_unsigned() || size.get<uint64_t>() > std::numeric_limits<int64_t>::max()) {
      return Bad(name, "sizes >= 0 in shape", JsonExcerpt(shape));
    }
    t.shape.push_back(size.get<int64_t>());
  }
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    return Bad(name, "two offsets >= 0 in data_offsets", JsonExcerpt(offsets));
  }
  const uint64_t begin = offsets[0].get<uint64_t>(), end = offsets[1].get<uint64_t>();
  if (begin > end || end > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return Bad(name, "data_offsets that rise", JsonExcerpt(offsets));
  }
  t.begin = static_cast<int64_t>(begin);
  t.size_bytes = static_cast<int64_t>(end - begin);
  int64_t bytes = 0;
  if (!TensorBytes(t, bytes)) {
    return Bad(name, "a shape of less than 2^63 bytes",
               absl::StrCat("[", absl::StrJoin(t.shape, ", "), "] of ", row->name));
  }
  if (bytes != t.size_bytes) {
    return Bad(
        name,
        absl::StrCat(bytes, " bytes for shape [", absl::StrJoin(t.shape, ", "), "] of ", row->name),
        absl::StrCat(t.size_bytes));
  }
  return t;
}

absl::Status ReadMetadata(const json& entry, std::map<std::string, std::string>& out) {
  if (!entry.is_object()) return Bad("__metadata__", "an object", JsonExcerpt(entry));
  for (const auto& [key, value] : entry.items()) {
    if (!value.is_string()) return Bad("__metadata__", "texts", JsonExcerpt(value));
    out[key] = value.get<std::string>();
  }
  return absl::OkStatus();
}

}  // namespace

const char* DtypeName(Dtype dtype) { return kDtypes[static_cast<int>(dtype)].name; }
int64_t DtypeBytes(Dtype dtype) { return kDtypes[static_cast<int>(dtype)].bytes; }

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json_text,
                                                         int64_t data_bytes) {
  auto parsed = ParseJsonObject(json_text, kHeaderLimits);
  if (!parsed.ok()) return Annotate(parsed.status(), "header");
  const json& root = *parsed;
  SafetensorsHeader header;
  for (const auto& [name, entry] : root.items()) {
    if (name == "__metadata__") {
      LL_RETURN_IF_ERROR(ReadMetadata(entry, header.metadata));
      continue;
    }
    LL_ASSIGN_OR_RETURN(TensorInfo tensor, ParseTensor(name, entry));
    header.tensors.push_back(std::move(tensor));
  }
  std::stable_sort(header.tensors.begin(), header.tensors.end(),
                   [](const TensorInfo& a, const TensorInfo& b) {
                     return std::pair(a.begin, a.size_bytes) < std::pair(b.begin, b.size_bytes);
                   });
  int64_t next = 0;
  for (const TensorInfo& t : header.tensors) {
    if (t.begin != next) {
      return Bad(t.name, absl::StrCat("its bytes to start at ", next, " (no gap, no overlap)"),
                 absl::StrCat(t.begin));
    }
    next += t.size_bytes;
  }
  if (next != data_bytes)
    return Bad("tensor data", absl::StrCat(next, " bytes"), absl::StrCat(data_bytes));
  return header;
}

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(
    const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  absl::Cleanup close_fd = [fd] { close(fd); };
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, "cannot stat", path);
  if (!S_ISREG(info.st_mode)) return Annotate(Bad("file", "a regular file", "another kind"), path);
  LL_RETURN_IF_ERROR(CheckNotLfsPointer(path));
  const uint64_t size = static_cast<uint64_t>(info.st_size);
  if (size < kLengthBytes)
    return Annotate(Bad("file", "at least 8 bytes", absl::StrCat(size)), path);

  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->path_ = path;
  file->mapping_ = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (file->mapping_ == MAP_FAILED) {
    file->mapping_ = nullptr;
    return ErrnoStatus(errno, "cannot map", path);
  }
  file->mapping_bytes_ = size;
  const auto* bytes = static_cast<const std::byte*>(file->mapping_);
  uint64_t header_bytes;
  std::memcpy(&header_bytes, bytes, kLengthBytes);  // little-endian, as every host this runs on
  if (header_bytes > kMaxHeaderBytes || header_bytes > size - kLengthBytes) {
    return Annotate(Bad("header length",
                        absl::StrCat("at most ", std::min(kMaxHeaderBytes, size - kLengthBytes),
                                     " bytes (the file has ", size, ")"),
                        absl::StrCat(header_bytes)),
                    path);
  }
  const absl::string_view text(reinterpret_cast<const char*>(bytes) + kLengthBytes, header_bytes);
  auto header =
      ParseSafetensorsHeader(text, static_cast<int64_t>(size - kLengthBytes - header_bytes));
  if (!header.ok()) return Annotate(header.status(), path);
  file->header_ = *std::move(header);
  file->data_ = bytes + kLengthBytes + header_bytes;
  for (size_t i = 0; i < file->header_.tensors.size(); ++i)
    file->index_[file->header_.tensors[i].name] = i;
  return std::shared_ptr<const SafetensorsFile>(file);
}

SafetensorsFile::~SafetensorsFile() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

void SafetensorsFile::Release(const TensorInfo& tensor) const {
  // Whole pages only; the first and last may hold a neighbour, which is merely read again.
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(Data(tensor)) & ~(page - 1);
  const auto end =
      reinterpret_cast<uintptr_t>(Data(tensor)) + static_cast<uintptr_t>(tensor.size_bytes);
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

const TensorInfo* SafetensorsFile::Find(absl::string_view name) const {
  auto it = index_.find(name);
  return it == index_.end() ? nullptr : &header_.tensors[it->second];
}

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(
    const std::string& path, std::vector<TensorInfo> tensors,
    std::map<std::string, std::string> metadata) {
  metadata.emplace("format", "pt");
  nlohmann::ordered_json header;
  header["__metadata__"] = metadata;
  int64_t next = 0;
  for (TensorInfo& t : tensors) {
    t.begin = next;
    if (!TensorBytes(t, t.size_bytes) || __builtin_add_overflow(next, t.size_bytes, &next)) {
      return Bad(t.name, "a size that fits in 63 bits", "a larger one");
    }
    if (header.contains(t.name)) return Bad(t.name, "each name once", "it twice");
    header[t.name] = {
        {"dtype", DtypeName(t.dtype)}, {"shape", t.shape}, {"data_offsets", {t.begin, next}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // keeps the tensors aligned in a mapping
  SafetensorsWriter writer;
  writer.path_ = path;
  writer.temporary_ = path + ".tmp";
  writer.expected_bytes_ = next;
  writer.fd_ = open(writer.temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (writer.fd_ < 0) return ErrnoStatus(errno, "cannot create", writer.temporary_);
  const uint64_t length = text.size();
  LL_RETURN_IF_ERROR(writer.WriteAll(&length, sizeof(length)));
  LL_RETURN_IF_ERROR(writer.WriteAll(text.data(), static_cast<int64_t>(text.size())));
  return writer;
}

SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      fd_(std::exchange(other.fd_, -1)),
      expected_bytes_(other.expected_bytes_),
      written_bytes_(other.written_bytes_) {}

SafetensorsWriter::~SafetensorsWriter() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

absl::Status SafetensorsWriter::WriteAll(const void* data, int64_t size_bytes) {
  constexpr int64_t kPiece = 1 << 30;  // write(2) takes at most 2 GB
  const char* at = static_cast<const char*>(data);
  while (size_bytes > 0) {
    const ssize_t n = write(fd_, at, static_cast<size_t>(std::min(size_bytes, kPiece)));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "cannot write", path_);
    at += n;
    size_bytes -= n;
  }
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Append(const void* data, int64_t size_bytes) {
  if (written_bytes_ + size_bytes > expected_bytes_) {
    return Annotate(Bad("tensor data", absl::StrCat(expected_bytes_, " bytes in all"), "more"),
                    path_);
  }
  LL_RETURN_IF_ERROR(WriteAll(data, size_bytes));
  written_bytes_ += size_bytes;
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Finish() {
  if (written_bytes_ != expected_bytes_) {
    return Annotate(
        Bad("tensor data", absl::StrCat(expected_bytes_, " bytes"), absl::StrCat(written_bytes_)),
        path_);
  }
  if (fsync(fd_) != 0) return ErrnoStatus(errno, "cannot sync", path_);
  if (close(std::exchange(fd_, -1)) != 0) return ErrnoStatus(errno, "cannot close", path_);
  return RenameDurably(temporary_, path_);
}

}  // namespace ll
