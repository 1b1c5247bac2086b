// Preloaded into a program: makes operations on some of its files fail as a full disk, a broken one
// or a read-only one would. LL_TEST_FAULTS names a file with one line "OPERATION ERRNO" (write,
// fsync, open, rename, mkdir, or change: each of them); no file, no fault. LL_TEST_FAULTS_IN: what
// the paths contain; default: a checkpoint that is being written.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

template <typename Function>
Function* Real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

using Open = int(const char*, int, ...);
using Write = ssize_t(int, const void*, size_t);
using WriteAt = ssize_t(int, const void*, size_t, off_t);

// The errno that the operation on that path is to fail with, or 0.
int FaultOf(const char* operation, const char* path) {
  static Open* const real_open = Real<Open>("open");
  const char* plan = std::getenv("LL_TEST_FAULTS");
  const char* where = std::getenv("LL_TEST_FAULTS_IN");
  if (plan == nullptr || path == nullptr ||
      std::strstr(path, where == nullptr ? "/.writing-" : where) == nullptr)
    return 0;
  const int fd = real_open(plan, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  char line[64] = "", wanted[32] = "";
  const ssize_t n = read(fd, line, sizeof line - 1);
  close(fd);
  int error = 0;
  if (n <= 0 || std::sscanf(line, "%31s %d", wanted, &error) != 2) return 0;
  const bool meant = std::strcmp(wanted, operation) == 0 || std::strcmp(wanted, "change") == 0;
  return meant ? error : 0;
}

int FaultOf(const char* operation, int fd) {
  char path[4096] = "";
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  return readlink(link.c_str(), path, sizeof path - 1) < 0 ? 0 : FaultOf(operation, path);
}

bool Fails(int error) {
  if (error != 0) errno = error;
  return error != 0;
}

int OpenOrFail(const char* path, int flags, mode_t mode) {
  static Open* const real = Real<Open>("open");
  if ((flags & O_CREAT) != 0 && Fails(FaultOf("open", path))) return -1;
  return real(path, flags, mode);
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return OpenOrFail(path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return OpenOrFail(path, flags, mode);
}

ssize_t write(int fd, const void* bytes, size_t count) {
  static Write* const real = Real<Write>("write");
  return Fails(FaultOf("write", fd)) ? -1 : real(fd, bytes, count);
}

ssize_t pwrite(int fd, const void* bytes, size_t count, off_t at) {
  static WriteAt* const real = Real<WriteAt>("pwrite");
  return Fails(FaultOf("write", fd)) ? -1 : real(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void* bytes, size_t count, off64_t at) {
  static WriteAt* const real = Real<WriteAt>("pwrite64");
  return Fails(FaultOf("write", fd)) ? -1 : real(fd, bytes, count, at);
}

int fsync(int fd) {
  static auto* const real = Real<int(int)>("fsync");
  return Fails(FaultOf("fsync", fd)) ? -1 : real(fd);
}

int fdatasync(int fd) {
  static auto* const real = Real<int(int)>("fdatasync");
  return Fails(FaultOf("fsync", fd)) ? -1 : real(fd);
}

int rename(const char* from, const char* to) noexcept {
  static auto* const real = Real<int(const char*, const char*)>("rename");
  return Fails(FaultOf("rename", from)) ? -1 : real(from, to);
}

int mkdir(const char* path, mode_t mode) noexcept {
  static auto* const real = Real<int(const char*, mode_t)>("mkdir");
  return Fails(FaultOf("mkdir", path)) ? -1 : real(path, mode);
}

}  // extern "C"
