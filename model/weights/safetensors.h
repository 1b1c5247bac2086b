// The safetensors file format: 8 bytes of header length (little-endian), a JSON header, then the
// tensors' bytes.
//
// Reading maps the file; nothing is copied. Every length and offset is checked before it is used,
// so a truncated or hostile file gives an error and never a wild read. Torch-free; tensor_io.h
// makes at::Tensor views of these.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ll {

enum class Dtype { kBool, kU8, kI8, kI16, kU16, kI32, kU32, kI64, kU64, kF16, kBF16, kF32, kF64 };

// "BF16", "F32", …: the name in the header.
const char* DtypeName(Dtype dtype);
int64_t DtypeBytes(Dtype dtype);

struct TensorInfo {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;  // row-major
  int64_t begin = 0;           // offset of the first byte after the header
  int64_t size_bytes = 0;
};

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;              // in the order of their bytes
  std::map<std::string, std::string> metadata;  // `__metadata__`
};

// Parses the header's JSON for a file with `data_bytes` after it. The tensors must cover those
// bytes without gap or overlap. Errors are InvalidArgument without the file's name (the caller
// annotates).
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json_text,
                                                         int64_t data_bytes);

// A mapped file. Immutable, thread-safe. The file must not be truncated while it is mapped.
class SafetensorsFile {
 public:
  // Errors name the path: NotFound, InvalidArgument (with expected and found bytes where the file
  // is truncated).
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  // nullptr where there is no such tensor.
  const TensorInfo* Find(absl::string_view name) const;
  // The tensor's bytes; valid while this object lives.
  const std::byte* Data(const TensorInfo& tensor) const { return data_ + tensor.begin; }
  // Gives the tensor's pages back to the system; they are read again when they are touched.
  void Release(const TensorInfo& tensor) const;

 private:
  SafetensorsFile() = default;
  std::string path_;
  SafetensorsHeader header_;
  std::map<std::string, size_t, std::less<>> index_;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
  const std::byte* data_ = nullptr;  // first byte after the header
};

// Writes one file, tensor by tensor, so that no more than one tensor need be in memory. Not
// thread-safe. The file appears under its name, whole and synced, with Finish(); without it nothing
// is left behind.
class SafetensorsWriter {
 public:
  // `tensors` gives name, dtype and shape in the order the bytes will come; begin and size_bytes
  // are computed. The metadata gets "format": "pt", which transformers wants.
  static absl::StatusOr<SafetensorsWriter> Create(const std::string& path,
                                                  std::vector<TensorInfo> tensors,
                                                  std::map<std::string, std::string> metadata = {});
  SafetensorsWriter(SafetensorsWriter&& other) noexcept;
  SafetensorsWriter& operator=(SafetensorsWriter&&) = delete;
  ~SafetensorsWriter();

  // The next tensor's bytes, or a part of them. More than the header promised is an
  // InvalidArgument.
  absl::Status Append(const void* data, int64_t size_bytes);
  absl::Status Finish();

 private:
  SafetensorsWriter() = default;
  absl::Status WriteAll(const void* data, int64_t size_bytes);
  std::string path_, temporary_;
  int fd_ = -1;
  int64_t expected_bytes_ = 0, written_bytes_ = 0;
};

}  // namespace ll
