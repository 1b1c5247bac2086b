#include "base/quiet_terminal.h"

#include <signal.h>
#include <termios.h>
#include <unistd.h>

namespace ll {
namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM};

// What a signal's handler may use.
volatile sig_atomic_t g_quiet = 0;
termios g_before;
struct sigaction g_handlers[2];

void Restore() {
  if (g_quiet != 0) tcsetattr(STDIN_FILENO, TCSAFLUSH, &g_before);
  g_quiet = 0;
}

void EndQuietly(int signal) {
  Restore();
  _exit(128 + signal);
}

}  // namespace

QuietTerminal::QuietTerminal() {
  if (isatty(STDIN_FILENO) == 0 || tcgetattr(STDIN_FILENO, &g_before) != 0) return;
  g_quiet = 1;  // first: a signal may come at once
  struct sigaction action = {};
  action.sa_handler = EndQuietly;
  for (int i = 0; i < 2; ++i) sigaction(kSignals[i], &action, &g_handlers[i]);
  termios quiet = g_before;
  quiet.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
}

QuietTerminal::~QuietTerminal() {
  if (g_quiet == 0) return;
  Restore();
  for (int i = 0; i < 2; ++i) sigaction(kSignals[i], &g_handlers[i], nullptr);
}

}  // namespace ll
