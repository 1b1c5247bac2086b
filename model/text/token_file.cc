#include "model/text/token_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/status_macros.h"

namespace ll {
namespace {

using nlohmann::json;
constexpr int64_t kMaxUint16Vocabulary = 65536;
constexpr uint64_t kMaxTokens = uint64_t{1} << 60;  // their number of bytes is an int64_t

// The first id >= limit among n ids of type T, or n.
template <typename T>
int64_t FirstOutside(const T* ids, int64_t n, uint32_t limit) {
  constexpr int64_t kBlock = 4096;  // a block's maximum vectorises; only a bad block is searched
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, n);
    T top = 0;
    for (int64_t i = begin; i < end; ++i) top = std::max(top, ids[i]);
    if (top < limit) continue;
    for (int64_t i = begin; i < end; ++i) {
      if (ids[i] >= limit) return i;
    }
  }
  return n;
}

// The sidecar's member `name`: [start, end) pairs, rising.
absl::StatusOr<TokenSpans> ReadSpans(const std::string& sidecar, const char* name,
                                     const json& list) {
  if (!list.is_array()) {
    return MakeFieldError({absl::StrCat(sidecar, " ", name), "a list", JsonExcerpt(list)});
  }
  TokenSpans out;
  out.reserve(list.size());
  uint64_t last = 0;
  for (const json& entry : list) {
    const bool pair = entry.is_array() && entry.size() == 2 && entry[0].is_number_unsigned() &&
                      entry[1].is_number_unsigned();
    const uint64_t start = pair ? entry[0].get<uint64_t>() : 0,
                   end = pair ? entry[1].get<uint64_t>() : 0;
    if (!pair || start < last || end < start || end > kMaxTokens) {
      return MakeFieldError({absl::StrCat(sidecar, " ", name), "rising [start, end) pairs",
                             absl::StrCat(JsonExcerpt(entry), " at index ", out.size())});
    }
    last = end;
    out.emplace_back(static_cast<int64_t>(start), static_cast<int64_t>(end));
  }
  return out;
}

absl::Status CheckInside(const std::string& path, const char* name, const TokenSpans& spans,
                         int64_t size) {
  if (spans.empty() || spans.back().second <= size) return absl::OkStatus();
  return MakeFieldError({absl::StrCat(path, ".json ", name), absl::StrCat("ends of at most ", size),
                         absl::StrCat(spans.back().second)});
}

}  // namespace

absl::Status TokenFile::ReadSidecar(int64_t file_bytes, int64_t& token_count) {
  const std::string sidecar = path_ + ".json";
  token_count = -1;
  if (!FileExists(sidecar)) return absl::OkStatus();
  LL_ASSIGN_OR_RETURN(std::string text, ReadFile(sidecar));
  // A document or a loss span has a token at least, and three values here: its pair and both ends.
  const auto parsed = ParseJsonObject(text, {.max_depth = 8, .max_values = 1000 + 6 * file_bytes});
  if (!parsed.ok()) return Annotate(parsed.status(), sidecar);
  const json& root = *parsed;
  const json dtype = root.value("dtype", json()), count = root.value("token_count", json());
  if (dtype != "uint16" && dtype != "uint32") {
    return MakeFieldError(
        {absl::StrCat(sidecar, " dtype"), "uint16 or uint32", JsonExcerpt(dtype)});
  }
  width_ = dtype == "uint16" ? 2 : 4;
  if (!count.is_null()) {
    if (!count.is_number_unsigned() || count.get<uint64_t>() > kMaxTokens) {
      return MakeFieldError(
          {absl::StrCat(sidecar, " token_count"), "a number of tokens", JsonExcerpt(count)});
    }
    token_count = count.get<int64_t>();
  }
  const json hash = root.value("tokenizer_hash", json()),
             documents = root.value("documents", json()),
             loss_spans = root.value("loss_spans", json());
  if (hash.is_string()) tokenizer_hash_ = hash.get<std::string>();
  if (!documents.is_null()) {
    LL_ASSIGN_OR_RETURN(documents_, ReadSpans(sidecar, "documents", documents));
  }
  if (!loss_spans.is_null()) {
    LL_ASSIGN_OR_RETURN(loss_spans_, ReadSpans(sidecar, "loss_spans", loss_spans));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const TokenFile>> TokenFile::Open(const std::string& path,
                                                                 int64_t vocab_size) {
  std::shared_ptr<TokenFile> file(new TokenFile);
  file->path_ = path;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open token file", path);
  absl::Cleanup close_fd = [fd] { close(fd); };
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, "cannot stat token file", path);
  if (!S_ISREG(info.st_mode))
    return MakeFieldError({path, "a token file", "something that is not a regular file"});
  int64_t promised = -1;
  const int64_t bytes = info.st_size;
  LL_RETURN_IF_ERROR(file->ReadSidecar(bytes, promised));
  if (bytes % file->width_ != 0) {
    return MakeFieldError(
        {path,
         absl::StrCat("a multiple of ", file->width_, " bytes (uint", 8 * file->width_, " ids)"),
         absl::StrCat(bytes, " bytes"), "the file is cut or is not a token file"});
  }
  file->size_ = bytes / file->width_;
  if (promised >= 0 && promised != file->size_) {
    return MakeFieldError({path,
                           absl::StrCat(promised, " tokens (", promised * file->width_,
                                        " bytes) as its sidecar says"),
                           absl::StrCat(file->size_, " tokens (", bytes, " bytes)")});
  }
  if (file->size_ == 0) return MakeFieldError({path, "at least one token", "an empty file"});
  LL_RETURN_IF_ERROR(CheckInside(path, "documents", file->documents_, file->size_));
  if (file->loss_spans_) {
    LL_RETURN_IF_ERROR(CheckInside(path, "loss_spans", *file->loss_spans_, file->size_));
  }
  void* mapping = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ, MAP_PRIVATE, fd, 0);
  if (mapping == MAP_FAILED) return ErrnoStatus(errno, "cannot map", path);
  file->mapping_ = mapping;
  file->mapping_bytes_ = static_cast<size_t>(bytes);
  if (vocab_size > 0) LL_RETURN_IF_ERROR(file->CheckIds(vocab_size));
  return std::shared_ptr<const TokenFile>(file);
}

TokenFile::~TokenFile() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

absl::Status TokenFile::CheckIds(int64_t vocab_size) const {
  const auto limit = static_cast<uint32_t>(vocab_size);
  if (width_ == 2 && vocab_size >= kMaxUint16Vocabulary) return absl::OkStatus();
  const int64_t at = width_ == 2
                         ? FirstOutside(static_cast<const uint16_t*>(mapping_), size_, limit)
                         : FirstOutside(static_cast<const uint32_t*>(mapping_), size_, limit);
  if (at == size_) return absl::OkStatus();
  const uint32_t id = width_ == 2 ? static_cast<const uint16_t*>(mapping_)[at]
                                  : static_cast<const uint32_t*>(mapping_)[at];
  return MakeFieldError({path_, absl::StrCat("ids below the model's vocabulary of ", vocab_size),
                         absl::StrCat("id ", id, " at token ", at),
                         "the file was made with another tokenizer"});
}

void TokenFile::Read(int64_t begin, absl::Span<int32_t> out) const {
  LL_CHECK(begin >= 0 && begin + static_cast<int64_t>(out.size()) <= size_);
  if (width_ == 2) {
    std::copy_n(static_cast<const uint16_t*>(mapping_) + begin, out.size(), out.begin());
  } else {
    std::memcpy(out.data(), static_cast<const uint32_t*>(mapping_) + begin, out.size() * 4);
  }
}

}  // namespace ll
