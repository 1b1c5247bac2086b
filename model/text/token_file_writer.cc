#include "model/text/token_file_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

int64_t WidthOf(int64_t vocab_size) { return vocab_size <= 65536 ? 2 : 4; }
std::string PartialPath(const std::string& path) { return path + ".partial"; }
std::string JournalPath(const std::string& path) { return path + ".partial.journal"; }

// Corpora have millions of documents: written as text at once, never as a tree of values.
void AppendSpans(const TokenSpans& spans, std::string& out) {
  out.push_back('[');
  for (size_t i = 0; i < spans.size(); ++i) {
    absl::StrAppend(&out, i == 0 ? "[" : ",[", spans[i].first, ",", spans[i].second, "]");
  }
  out.push_back(']');
}

}  // namespace

absl::StatusOr<TokenFileWriter> TokenFileWriter::Open(const std::string& path, int64_t vocab_size,
                                                      std::string tokenizer_hash) {
  if (vocab_size <= 0)
    return MakeFieldError({"vocab_size", "a positive number", absl::StrCat(vocab_size)});
  TokenFileWriter writer;
  writer.path_ = path;
  writer.tokenizer_hash_ = std::move(tokenizer_hash);
  writer.vocab_size_ = vocab_size;
  const std::string partial = PartialPath(path);
  const int fd = open(partial.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus(errno, "cannot create", partial);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    close(fd);
    return FieldStatus(absl::StatusCode::kFailedPrecondition, partial,
                       "another process is writing this file", "wait for it, or stop it");
  }
  writer.fd_ = fd;
  return writer;
}

absl::StatusOr<TokenFileWriter> TokenFileWriter::Create(const std::string& path, int64_t vocab_size,
                                                        std::string tokenizer_hash) {
  LL_ASSIGN_OR_RETURN(TokenFileWriter writer, Open(path, vocab_size, std::move(tokenizer_hash)));
  unlink(JournalPath(path).c_str());
  if (ftruncate(writer.fd_, 0) != 0) return ErrnoStatus(errno, "cannot empty", path);
  return writer;
}

absl::StatusOr<TokenFileWriter> TokenFileWriter::CreateResumable(const std::string& path,
                                                                 int64_t vocab_size,
                                                                 std::string tokenizer_hash,
                                                                 const std::string& fingerprint) {
  LL_ASSIGN_OR_RETURN(TokenFileWriter writer, Open(path, vocab_size, std::move(tokenizer_hash)));
  LL_RETURN_IF_ERROR(writer.Restore(fingerprint));
  return writer;
}

absl::Status TokenFileWriter::Restore(const std::string& fingerprint) {
  std::optional<TokenCommit> restored;
  LL_ASSIGN_OR_RETURN(
      journal_, TokenJournal::Open(JournalPath(path_), fingerprint, restored, dropped_partial_));
  struct stat info;
  if (fstat(fd_, &info) != 0) return ErrnoStatus(errno, "cannot stat", PartialPath(path_));
  if (restored && restored->tokens * WidthOf(vocab_size_) > info.st_size) {
    restored.reset();  // somebody shortened or replaced it
    dropped_partial_ = true;
    LL_RETURN_IF_ERROR(journal_->Restart());
  }
  if (restored) {
    size_ = restored->tokens;
    open_document_ = restored->open_document;
    documents_ = std::move(restored->documents);
    loss_spans_ = std::move(restored->loss_spans);
    state_ = std::move(restored->state);
    journaled_documents_ = documents_.size();
    journaled_spans_ = loss_spans_ ? loss_spans_->size() : 0;
  }
  const int64_t bytes = size_ * WidthOf(vocab_size_);
  if (ftruncate(fd_, bytes) != 0 || lseek(fd_, bytes, SEEK_SET) < 0) {
    return ErrnoStatus(errno, "cannot continue", PartialPath(path_));
  }
  return absl::OkStatus();
}

TokenFileWriter::TokenFileWriter(TokenFileWriter&& other) noexcept
    : path_(std::move(other.path_)),
      tokenizer_hash_(std::move(other.tokenizer_hash_)),
      state_(std::move(other.state_)),
      journal_(std::move(other.journal_)),
      dropped_partial_(other.dropped_partial_),
      fd_(std::exchange(other.fd_, -1)),
      vocab_size_(other.vocab_size_),
      size_(other.size_),
      open_document_(other.open_document_),
      buffer_(std::move(other.buffer_)),
      documents_(std::move(other.documents_)),
      loss_spans_(std::move(other.loss_spans_)),
      journaled_documents_(other.journaled_documents_),
      journaled_spans_(other.journaled_spans_) {}

TokenFileWriter::~TokenFileWriter() {
  if (fd_ < 0) return;
  if (journal_ == nullptr) {
    Discard();
  } else {
    close(fd_);
  }
}

void TokenFileWriter::Discard() {
  if (fd_ < 0) return;
  unlink(JournalPath(path_).c_str());
  unlink(PartialPath(path_).c_str());
  close(std::exchange(fd_, -1));
}

absl::Status TokenFileWriter::AppendPart(absl::Span<const int32_t> ids, bool last) {
  LL_CHECK_MSG(!loss_spans_, "documents with and without loss spans in one file");
  return Append(ids, last);
}

absl::Status TokenFileWriter::AppendDocument(absl::Span<const int32_t> ids,
                                             const TokenSpans& loss_spans) {
  if (size_ == 0 && !loss_spans_) loss_spans_.emplace();
  LL_CHECK_MSG(loss_spans_.has_value(), "documents with and without loss spans in one file");
  const int64_t begin = size_;
  int64_t last = 0;
  for (const auto& [start, end] : loss_spans) {
    LL_CHECK(last <= start && start <= end && end <= static_cast<int64_t>(ids.size()));
    last = end;
    if (start < end) loss_spans_->emplace_back(begin + start, begin + end);
  }
  return Append(ids, true);
}

absl::Status TokenFileWriter::Append(absl::Span<const int32_t> ids, bool last) {
  const auto width = static_cast<size_t>(WidthOf(vocab_size_));
  for (int32_t id : ids) {
    if (id < 0 || id >= vocab_size_) {
      return MakeFieldError({path_, absl::StrCat("ids below ", vocab_size_), absl::StrCat(id)});
    }
    const auto value = static_cast<uint32_t>(id);
    buffer_.append(reinterpret_cast<const char*>(&value),
                   width);  // the low bytes come first on these hosts
  }
  if (open_document_ < 0) open_document_ = size_;
  size_ += static_cast<int64_t>(ids.size());
  if (last) {
    if (size_ > open_document_) documents_.emplace_back(open_document_, size_);
    open_document_ = -1;
  }
  return buffer_.size() >= kBufferBytes ? Flush() : absl::OkStatus();
}

absl::Status TokenFileWriter::Flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t n =
        write(fd_, buffer_.data() + done, std::min(buffer_.size() - done, size_t{1} << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "cannot write", path_);
    done += static_cast<size_t>(n);
  }
  buffer_.clear();
  return absl::OkStatus();
}

absl::Status TokenFileWriter::Commit(const std::string& state) {
  LL_CHECK_MSG(journal_ != nullptr, "a commit of a writer that is not resumable");
  LL_RETURN_IF_ERROR(Flush());
  if (fdatasync(fd_) != 0) return ErrnoStatus(errno, "cannot sync", path_);
  TokenCommit commit;
  commit.tokens = size_;
  commit.open_document = open_document_;
  commit.state = state;
  commit.documents.assign(documents_.begin() + static_cast<std::ptrdiff_t>(journaled_documents_),
                          documents_.end());
  if (loss_spans_) {
    commit.loss_spans.emplace(loss_spans_->begin() + static_cast<std::ptrdiff_t>(journaled_spans_),
                              loss_spans_->end());
  }
  LL_RETURN_IF_ERROR(journal_->Append(commit));
  journaled_documents_ = documents_.size();
  journaled_spans_ = loss_spans_ ? loss_spans_->size() : 0;
  state_ = state;
  return absl::OkStatus();
}

std::string TokenFileWriter::Sidecar() const {
  std::string out = absl::StrCat("{\"dtype\":\"", WidthOf(vocab_size_) == 2 ? "uint16" : "uint32",
                                 "\",\"token_count\":", size_, ",\"vocab_size\":", vocab_size_,
                                 ",\"tokenizer_hash\":", nlohmann::json(tokenizer_hash_).dump(),
                                 ",\"documents\":");
  AppendSpans(documents_, out);
  if (loss_spans_) {
    out += ",\"loss_spans\":";
    AppendSpans(*loss_spans_, out);
  }
  return out + "}\n";
}

absl::Status TokenFileWriter::Finish() {
  LL_RETURN_IF_ERROR(Flush());
  if (size_ == 0) return MakeFieldError({path_, "at least one token", "none"});
  if (fsync(fd_) != 0) return ErrnoStatus(errno, "cannot sync", path_);
  // The sidecar first: ids without it would be read as uint16; with it an older file fails its size
  // check.
  LL_RETURN_IF_ERROR(WriteFileAtomic(path_ + ".json", Sidecar()));
  LL_RETURN_IF_ERROR(RenameDurably(PartialPath(path_), path_));
  unlink(JournalPath(path_).c_str());
  close(std::exchange(fd_, -1));
  return absl::OkStatus();
}

}  // namespace ll
