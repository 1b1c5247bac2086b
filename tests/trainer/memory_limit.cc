// Preloaded into a trainer: a host with so much memory for tensors and no more. Counts the bytes of
// tensors that live (posix_memalign of 64 KiB and more) and lets an allocation fail, as the kernel
// of a host without overcommitment would, where they would exceed LL_TEST_MEMORY_LIMIT (bytes; 0 or
// absent: no limit). The most that lived is written to the file LL_TEST_MEMORY_PEAK at the end.
// Test-only: the product knows nothing of it.
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>

namespace {

constexpr size_t kLarge = 64 << 10;
constexpr size_t kSlots = 1 << 16;

std::mutex g_mutex;
const void* g_blocks[kSlots];  // open addressing; kGone where one was freed
const void* const kGone = reinterpret_cast<const void*>(1);
size_t g_live = 0, g_peak = 0;

template <typename F>
F* Real(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

size_t Limit() {
  static const size_t limit = [] {
    const char* text = std::getenv("LL_TEST_MEMORY_LIMIT");
    return text == nullptr ? size_t{0} : static_cast<size_t>(std::strtoull(text, nullptr, 10));
  }();
  return limit;
}

size_t SlotOf(const void* block) {
  return (reinterpret_cast<uintptr_t>(block) >> 6) * 0x9e3779b97f4a7c15ull >> 48;
}

void Add(const void* block) {
  for (size_t i = SlotOf(block), n = 0; n < kSlots; i = (i + 1) % kSlots, ++n) {
    if (g_blocks[i] != nullptr && g_blocks[i] != kGone) continue;
    g_blocks[i] = block;
    return;
  }
}

bool Remove(const void* block) {
  for (size_t i = SlotOf(block), n = 0; n < kSlots && g_blocks[i] != nullptr;
       i = (i + 1) % kSlots, ++n) {
    if (g_blocks[i] != block) continue;
    g_blocks[i] = kGone;
    return true;
  }
  return false;
}

__attribute__((destructor)) void WritePeak() {
  const char* path = std::getenv("LL_TEST_MEMORY_PEAK");
  if (path == nullptr) return;
  const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return;
  dprintf(fd, "%zu\n", g_peak);
  close(fd);
}

}  // namespace

extern "C" {

int posix_memalign(void** out, size_t alignment, size_t size) noexcept {
  static auto* const real = Real<int(void**, size_t, size_t)>("posix_memalign");
  if (size < kLarge) return real(out, alignment, size);
  const std::lock_guard<std::mutex> lock(g_mutex);
  if (Limit() > 0 && g_live + size > Limit()) return ENOMEM;
  const int failed = real(out, alignment, size);
  if (failed != 0) return failed;
  Add(*out);
  g_live += malloc_usable_size(*out);
  if (g_live > g_peak) g_peak = g_live;
  return 0;
}

void free(void* block) noexcept {
  static auto* const real = Real<void(void*)>("free");
  const size_t size = block == nullptr ? 0 : malloc_usable_size(block);
  if (size >= kLarge) {
    const std::lock_guard<std::mutex> lock(g_mutex);
    if (Remove(block)) g_live -= size;
  }
  real(block);
}

}  // extern "C"
