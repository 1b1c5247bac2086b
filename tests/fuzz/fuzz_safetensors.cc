// A safetensors file. An input that starts with '{' is its header alone: the length before it and
// 64 bytes of data behind it are made here, so that mutations reach what lies behind the first
// check.
#include <cstring>

#include "base/check.h"
#include "model/weights/safetensors.h"
#include "tests/fuzz/fuzz.h"

namespace ll {
namespace {

std::string WholeFile(absl::string_view header) {
  const uint64_t length = header.size();
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  file.append(header.data(), header.size());
  return file.append(64, '\x3f');
}

}  // namespace

void FuzzOne(absl::string_view input) {
  const bool header_only = !input.empty() && input[0] == '{';
  const MemoryFile file(header_only ? WholeFile(input) : std::string(input));
  const auto opened = SafetensorsFile::Open(file.path());
  if (!opened.ok()) return CheckRefusal(opened.status());
  int64_t sum = 0, covered = 0;
  for (const TensorInfo& tensor : (*opened)->tensors()) {
    LL_CHECK((*opened)->Find(tensor.name) == &tensor);
    covered += tensor.size_bytes;
    int64_t elements = 1;
    for (const int64_t size : tensor.shape) elements *= size;
    LL_CHECK(elements * DtypeBytes(tensor.dtype) == tensor.size_bytes);
    const std::byte* bytes = (*opened)->Data(tensor);
    for (int64_t i = 0; i < tensor.size_bytes; ++i) sum += static_cast<int64_t>(bytes[i]);
  }
  LL_CHECK(sum >= 0 && covered <= static_cast<int64_t>(input.size()) + 64);
}

}  // namespace ll
