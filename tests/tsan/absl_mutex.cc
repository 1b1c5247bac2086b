// Tells ThreadSanitizer what absl::Mutex orders. The distribution's absl is not instrumented, so
// that without this every value under an absl::Mutex looks like a data race. Preloaded by
// cmake/LlBuild.cmake: each function stands before the library's one of that name, calls it, marks
// that the mutex was acquired or released.
//
// In a process without ThreadSanitizer (the shell, Python) the marks are absent and nothing
// changes.
#include <dlfcn.h>

#include <cstdint>

extern "C" {
__attribute__((weak)) void __tsan_acquire(void* address);
__attribute__((weak)) void __tsan_release(void* address);
}

namespace {

// absl::Duration and absl::Time travel in two registers, as this does.
struct Ticks {
  int64_t high;
  uint32_t low;
};

void Acquired(void* mutex) {
  if (__tsan_acquire != nullptr) __tsan_acquire(mutex);
}
void Releasing(void* mutex) {
  if (__tsan_release != nullptr) __tsan_release(mutex);
}

template <typename Function>
Function Next(Function, const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

}  // namespace

// NAME is the C++ method in the library's mangled form.
#define LL_WRAP(RESULT, ALIAS, NAME, PARAMETERS, ARGUMENTS, BEFORE, AFTER) \
  extern "C" RESULT ALIAS PARAMETERS __asm__(NAME);                        \
  RESULT ALIAS PARAMETERS {                                                \
    static const auto next = Next(&ALIAS, NAME);                           \
    BEFORE;                                                                \
    AFTER(next ARGUMENTS)                                                  \
  }

#define LL_NOTHING(CALL) CALL;
#define LL_ACQUIRE(CALL) \
  CALL;                  \
  Acquired(mutex);
#define LL_ACQUIRE_RETURN(CALL) \
  const bool result = CALL;     \
  Acquired(mutex);              \
  return result;
#define LL_TRY(CALL)           \
  const bool result = CALL;    \
  if (result) Acquired(mutex); \
  return result;

#define LL_MUTEX "_ZN4absl7debian35Mutex"
#define LL_CONDVAR "_ZN4absl7debian37CondVar"

LL_WRAP(void, Lock, LL_MUTEX "4LockEv", (void* mutex), (mutex), , LL_ACQUIRE)
LL_WRAP(bool, TryLock, LL_MUTEX "7TryLockEv", (void* mutex), (mutex), , LL_TRY)
LL_WRAP(void, Unlock, LL_MUTEX "6UnlockEv", (void* mutex), (mutex), Releasing(mutex), LL_NOTHING)
LL_WRAP(void, ReaderLock, LL_MUTEX "10ReaderLockEv", (void* mutex), (mutex), , LL_ACQUIRE)
LL_WRAP(void, ReaderUnlock, LL_MUTEX "12ReaderUnlockEv", (void* mutex), (mutex), Releasing(mutex),
        LL_NOTHING)
// Waiting lets go of the mutex and takes it again; another thread evaluates the condition in
// between, which is why the waiter's own frame is released too.
LL_WRAP(void, Await, LL_MUTEX "5AwaitERKNS0_9ConditionE", (void* mutex, const void* condition),
        (mutex, condition), Releasing(mutex), LL_ACQUIRE)
LL_WRAP(bool, AwaitWithTimeout, LL_MUTEX "16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE",
        (void* mutex, const void* condition, Ticks timeout), (mutex, condition, timeout),
        Releasing(mutex), LL_ACQUIRE_RETURN)
LL_WRAP(bool, AwaitWithDeadline, LL_MUTEX "17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE",
        (void* mutex, const void* condition, Ticks deadline), (mutex, condition, deadline),
        Releasing(mutex), LL_ACQUIRE_RETURN)
LL_WRAP(void, LockWhen, LL_MUTEX "8LockWhenERKNS0_9ConditionE",
        (void* mutex, const void* condition), (mutex, condition), Releasing(mutex), LL_ACQUIRE)
LL_WRAP(bool, LockWhenWithTimeout, LL_MUTEX "19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE",
        (void* mutex, const void* condition, Ticks timeout), (mutex, condition, timeout),
        Releasing(mutex), LL_ACQUIRE_RETURN)
LL_WRAP(bool, LockWhenWithDeadline, LL_MUTEX "20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE",
        (void* mutex, const void* condition, Ticks deadline), (mutex, condition, deadline),
        Releasing(mutex), LL_ACQUIRE_RETURN)
LL_WRAP(void, Wait, LL_CONDVAR "4WaitEPNS0_5MutexE", (void* variable, void* mutex),
        (variable, mutex), Releasing(mutex), LL_ACQUIRE)
LL_WRAP(bool, WaitWithTimeout, LL_CONDVAR "15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE",
        (void* variable, void* mutex, Ticks timeout), (variable, mutex, timeout), Releasing(mutex),
        LL_ACQUIRE_RETURN)
LL_WRAP(bool, WaitWithDeadline, LL_CONDVAR "16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE",
        (void* variable, void* mutex, Ticks deadline), (variable, mutex, deadline),
        Releasing(mutex), LL_ACQUIRE_RETURN)
