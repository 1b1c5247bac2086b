#include "base/sha256.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file.h"

namespace ll {
namespace {
using Context = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

Context NewContext() {
  Context ctx(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  LL_CHECK(ctx && EVP_DigestInit_ex(ctx.get(), EVP_sha256(), nullptr) == 1);
  return ctx;
}

std::string Finish(Context ctx) {
  unsigned char digest[32];
  unsigned size = 0;
  LL_CHECK(EVP_DigestFinal_ex(ctx.get(), digest, &size) == 1 && size == sizeof digest);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(digest), size));
}
}  // namespace

std::string Sha256Hex(absl::string_view bytes) {
  Context ctx = NewContext();
  LL_CHECK(EVP_DigestUpdate(ctx.get(), bytes.data(), bytes.size()) == 1);
  return Finish(std::move(ctx));
}

absl::StatusOr<std::string> Sha256HexOfFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  Context ctx = NewContext();
  std::vector<char> buffer(1 << 20);
  ssize_t n;
  while ((n = read(fd, buffer.data(), buffer.size())) > 0) {
    LL_CHECK(EVP_DigestUpdate(ctx.get(), buffer.data(), n) == 1);
  }
  const int error = errno;
  close(fd);
  if (n < 0) return ErrnoStatus(error, "cannot read", path);
  return Finish(std::move(ctx));
}

}  // namespace ll
