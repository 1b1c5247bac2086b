// A terminal at which a secret is typed.
#pragma once

namespace ll {

// While it lives, standard input does not show what is typed, where it is a terminal. Ctrl-C and
// SIGTERM end the process, with 128 and the signal's number, and leave the terminal as it was. One
// at a time in a process, on one thread.
class QuietTerminal {
 public:
  QuietTerminal();
  ~QuietTerminal();
  QuietTerminal(const QuietTerminal&) = delete;
  QuietTerminal& operator=(const QuietTerminal&) = delete;
};

}  // namespace ll
