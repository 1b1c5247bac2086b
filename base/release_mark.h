// What a trainer's file holds so that its release can be told without starting it.
#pragma once

namespace ll {

inline constexpr char kTrainerReleaseMark[] = "ll-trainer release ";

}  // namespace ll

// Once in the program's main file; `version` is a literal. Volatile, so that it stays.
#define LL_TRAINER_RELEASE_MARK(version) \
  [[gnu::used]] static const volatile char ll_trainer_release[] = "ll-trainer release " version
