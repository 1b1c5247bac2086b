// A library to preload under ll-trainer that ends the process with SIGKILL at the n-th operation of
// one class, or lists them all. Test-only: the product knows nothing of it.
//
//   LL_KILL_CLASS   io       what changes files below LL_KILL_DIR: open for writing, write, sync,
//                            rename, truncate, make and remove; and the process's own end
//                   compute  every tensor's memory (posix_memalign), and every look of a kernel at
//                            fp32 data (at::TensorBase's data_ptr)
//                   net      every message to another rank (writev, sendmsg, send on sockets)
//   LL_KILL_DIR     the job's folder
//   LL_KILL_AT      counts from 1; 0 or absent: lists only
//   LL_KILL_LOG     a line an operation, the fatal one only where there is one: "n kind what"; of
//                   `compute` the call stack inside the program, as offsets, innermost first
//
// The process dies before the operation; of a write of several bytes, after the first half.
#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

enum Class { kNone, kIo, kCompute, kNet };

Class g_class = kNone;
long g_at = 0;
int g_log = -1;
const char* g_dir = nullptr;
uintptr_t g_base = 0, g_end = 0;  // where the program is loaded
std::atomic<long> g_count{0};
thread_local bool t_inside = false;

template <typename F>
F Next(const char* name) {
  return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}
#define REAL(name) static const auto real = Next<decltype(&name)>(#name)

__attribute__((constructor)) void Start() {
  const char* what = getenv("LL_KILL_CLASS");
  const char* log = getenv("LL_KILL_LOG");
  const char* at = getenv("LL_KILL_AT");
  g_dir = getenv("LL_KILL_DIR");
  // The ranks' own children, if any, are left alone.
  unsetenv("LD_PRELOAD");
  if (what == nullptr || log == nullptr || g_dir == nullptr) return;
  g_at = at != nullptr ? atol(at) : 0;
  g_log = static_cast<int>(
      syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  void* warm_up[4];
  backtrace(warm_up, 4);  // loads what it needs before anything counts
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void*) {
        g_base = info->dlpi_addr;  // the first is the program
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& part = info->dlpi_phdr[i];
          const uintptr_t end = g_base + part.p_vaddr + part.p_memsz;
          if (part.p_type == PT_LOAD && end > g_end) g_end = end;
        }
        return 1;
      },
      nullptr);
  g_class = strcmp(what, "io") == 0        ? kIo
            : strcmp(what, "compute") == 0 ? kCompute
            : strcmp(what, "net") == 0     ? kNet
                                           : kNone;
}

void Log(const char* text) { syscall(SYS_write, g_log, text, strlen(text)); }

// Counts an operation; true: the process is to die at it, and the log says so.
bool Fatal(const char* kind, const char* what) {
  const long n = ++g_count;
  if (g_at != 0 && n != g_at) return false;
  char line[4500];
  snprintf(line, sizeof line, "%ld %s %s\n", n, kind, what);
  Log(line);
  return g_at != 0;
}

[[noreturn]] void Die() {
  syscall(SYS_kill, getpid(), SIGKILL);
  for (;;) pause();
}

bool Below(const char* path) { return strncmp(path, g_dir, strlen(g_dir)) == 0; }

// Absolute path of `path` as seen from directory `fd`.
bool PathAt(int fd, const char* path, char (&out)[4096]) {
  if (path[0] == '/') {
    snprintf(out, sizeof out, "%s", path);
    return true;
  }
  char link[64], folder[2048];
  snprintf(link, sizeof link, fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", fd);
  const long n = syscall(SYS_readlinkat, AT_FDCWD, link, folder, sizeof folder - 1);
  if (n <= 0) return false;
  folder[n] = '\0';
  snprintf(out, sizeof out, "%s/%s", folder, path);
  return true;
}

bool PathOf(int fd, char (&out)[4096]) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const long n = syscall(SYS_readlinkat, AT_FDCWD, link, out, sizeof out - 1);
  if (n <= 0) return false;
  out[n] = '\0';
  return true;
}

struct Inside {
  Inside() { t_inside = true; }
  ~Inside() { t_inside = false; }
};

void Touch(const char* kind, int fd, const char* path) {
  if (g_class != kIo || t_inside) return;
  const Inside inside;
  char full[4096];
  if (PathAt(fd, path, full) && Below(full) && Fatal(kind, full)) Die();
}

void TouchFd(const char* kind, int fd) {
  if (g_class != kIo || t_inside) return;
  const Inside inside;
  char full[4096];
  if (PathOf(fd, full) && Below(full) && Fatal(kind, full)) Die();
}

// Dies after half of it where it is the one.
void TouchWrite(int fd, const void* bytes, size_t size, long offset) {
  if (g_class != kIo || t_inside) return;
  const Inside inside;
  char full[4096];
  if (!PathOf(fd, full) || !Below(full) || !Fatal("write", full)) return;
  if (offset < 0) {
    syscall(SYS_write, fd, bytes, size / 2);
  } else {
    syscall(SYS_pwrite64, fd, bytes, size / 2, offset);
  }
  Die();
}

void TouchSocket(const char* kind, int fd) {
  if (g_class != kNet || t_inside) return;
  const Inside inside;
  struct stat s;
  if (fstat(fd, &s) != 0 || !S_ISSOCK(s.st_mode)) return;
  if (Fatal(kind, "socket")) Die();
}

void TouchCompute(const char* kind) {
  if (g_class != kCompute || t_inside) return;
  if (g_at != 0 && g_count.load() + 1 != g_at) {
    ++g_count;
    return;
  }
  const Inside inside;
  void* frames[48];
  const int n = backtrace(frames, 48);
  char text[4096] = "";
  size_t used = 0;
  for (int i = 0; i < n && used + 32 < sizeof text; ++i) {
    const auto frame = reinterpret_cast<uintptr_t>(frames[i]);
    if (frame < g_base || frame >= g_end) continue;
    used +=
        static_cast<size_t>(snprintf(text + used, sizeof text - used, "%lx ", frame - g_base - 1));
  }
  if (Fatal(kind, text)) Die();
}

bool Writes(int flags) { return (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) != 0; }

mode_t ModeOf(int flags, va_list& more) {
  return (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0;
}

}  // namespace

extern "C" {

#define LL_OPEN(name)                                 \
  int name(const char* path, int flags, ...) {        \
    REAL(name);                                       \
    va_list more;                                     \
    va_start(more, flags);                            \
    const mode_t mode = ModeOf(flags, more);          \
    va_end(more);                                     \
    if (Writes(flags)) Touch("open", AT_FDCWD, path); \
    return real(path, flags, mode);                   \
  }
LL_OPEN(open)
LL_OPEN(open64)
#define LL_OPENAT(name)                                \
  int name(int fd, const char* path, int flags, ...) { \
    REAL(name);                                        \
    va_list more;                                      \
    va_start(more, flags);                             \
    const mode_t mode = ModeOf(flags, more);           \
    va_end(more);                                      \
    if (Writes(flags)) Touch("open", fd, path);        \
    return real(fd, path, flags, mode);                \
  }
LL_OPENAT(openat)
LL_OPENAT(openat64)

ssize_t write(int fd, const void* bytes, size_t size) {
  REAL(write);
  TouchWrite(fd, bytes, size, -1);
  return real(fd, bytes, size);
}
#define LL_PWRITE(name)                                                \
  ssize_t name(int fd, const void* bytes, size_t size, off_t offset) { \
    REAL(name);                                                        \
    TouchWrite(fd, bytes, size, offset);                               \
    return real(fd, bytes, size, offset);                              \
  }
LL_PWRITE(pwrite)
LL_PWRITE(pwrite64)
ssize_t writev(int fd, const iovec* parts, int count) {
  REAL(writev);
  TouchFd("write", fd);
  TouchSocket("writev", fd);
  return real(fd, parts, count);
}
ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  REAL(sendmsg);
  TouchSocket("sendmsg", fd);
  return real(fd, message, flags);
}
int fsync(int fd) {
  REAL(fsync);
  TouchFd("sync", fd);
  return real(fd);
}
int fdatasync(int fd) {
  REAL(fdatasync);
  TouchFd("sync", fd);
  return real(fd);
}
int ftruncate(int fd, off_t size) noexcept {
  REAL(ftruncate);
  TouchFd("truncate", fd);
  return real(fd, size);
}
int ftruncate64(int fd, off64_t size) noexcept {
  REAL(ftruncate64);
  TouchFd("truncate", fd);
  return real(fd, size);
}
int rename(const char* from, const char* to) noexcept {
  REAL(rename);
  Touch("rename", AT_FDCWD, to);
  return real(from, to);
}
int mkdir(const char* path, mode_t mode) noexcept {
  REAL(mkdir);
  Touch("mkdir", AT_FDCWD, path);
  return real(path, mode);
}
int unlink(const char* path) noexcept {
  REAL(unlink);
  Touch("remove", AT_FDCWD, path);
  return real(path);
}
int unlinkat(int fd, const char* path, int flags) noexcept {
  REAL(unlinkat);
  Touch("remove", fd, path);
  return real(fd, path, flags);
}
int rmdir(const char* path) noexcept {
  REAL(rmdir);
  Touch("remove", AT_FDCWD, path);
  return real(path);
}
ssize_t send(int fd, const void* bytes, size_t size, int flags) {
  REAL(send);
  TouchSocket("send", fd);
  return real(fd, bytes, size, flags);
}
int posix_memalign(void** out, size_t alignment, size_t size) noexcept {
  REAL(posix_memalign);
  TouchCompute("alloc");
  return real(out, alignment, size);
}

// at::TensorBase::const_data_ptr<float>() and data_ptr<float>(), which every kernel calls.
#define LL_DATA_PTR(name, symbol)                                  \
  void* name(const void* tensor) __asm__(symbol);                  \
  void* name(const void* tensor) {                                 \
    static const auto real = Next<void* (*)(const void*)>(symbol); \
    TouchCompute("data");                                          \
    return real(tensor);                                           \
  }
LL_DATA_PTR(ConstDataPtr, "_ZNK2at10TensorBase14const_data_ptrIfLi0EEEPKT_v")
LL_DATA_PTR(DataPtr, "_ZNK2at10TensorBase8data_ptrIfEEPT_v")

}  // extern "C"

namespace {
// Runs after main has returned: all is written, the process has only to end.
__attribute__((destructor)) void End() {
  if (g_class == kIo && !t_inside && Fatal("exit", "main has returned")) Die();
}
}  // namespace
