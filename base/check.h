// LL_CHECK aborts on a broken invariant, in every build. Never use it on input or on the
// environment: those are a Status.
#pragma once

#include <cstdio>
#include <cstdlib>

#define LL_CHECK(condition)                                                                  \
  do {                                                                                       \
    if (!(condition)) {                                                                      \
      std::fprintf(stderr, "%s:%d: broken invariant: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                          \
    }                                                                                        \
  } while (false)

// As LL_CHECK, with a reason a reader of the log understands.
#define LL_CHECK_MSG(condition, message)                                                        \
  do {                                                                                          \
    if (!(condition)) {                                                                         \
      std::fprintf(stderr, "%s:%d: broken invariant: %s: %s\n", __FILE__, __LINE__, #condition, \
                   (message));                                                                  \
      std::abort();                                                                             \
    }                                                                                           \
  } while (false)
