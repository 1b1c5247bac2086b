// The sidecar of a token file of 64 ids, and the ids themselves where the input holds a zero byte:
// what follows it is the token file.
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "base/check.h"
#include "model/text/token_file.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/token_spans.h"

namespace ll {
namespace {

// The reader finds the sidecar by the token file's name, so both have one.
const std::string& TokenPath() {
  static const auto& path = *[] {
    std::string folder = "/dev/shm/ll-fuzz-XXXXXX";
    LL_CHECK(mkdtemp(folder.data()) != nullptr);
    static std::string made = folder;
    std::atexit([] {
      unlink((made + "/f.bin").c_str());
      unlink((made + "/f.bin.json").c_str());
      rmdir(made.c_str());
    });
    return new std::string(folder + "/f.bin");
  }();
  return path;
}

void Write(const std::string& path, absl::string_view bytes) {
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace

void FuzzOne(absl::string_view input) {
  const size_t zero = input.find('\0');
  const bool with_ids = zero != absl::string_view::npos;
  Write(TokenPath(), with_ids ? input.substr(zero + 1) : absl::string_view(std::string(128, '\1')));
  Write(TokenPath() + ".json", input.substr(0, zero));
  const auto file = TokenFile::Open(TokenPath(), 300);
  if (!file.ok()) return CheckRefusal(file.status());
  std::vector<int32_t> ids(static_cast<size_t>((*file)->size()));
  (*file)->Read(0, absl::MakeSpan(ids));
  for (const int32_t id : ids) LL_CHECK(id >= 0 && id < 300);
  CheckSpans((*file)->documents(), (*file)->size());
  if ((*file)->loss_spans()) CheckSpans(*(*file)->loss_spans(), (*file)->size());
}

}  // namespace ll
