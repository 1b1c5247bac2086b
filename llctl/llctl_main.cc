// llctl: the command line of the service. See cli.h.
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>

#include "llctl/cli.h"

namespace {

ll::TerminalSize SizeOfTerminal() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0) return {};
  return {size.ws_col, size.ws_row};
}

}  // namespace

int main(int argc, char** argv) {
  // gRPC's own log lines would stand between ours; llctl reports failures itself.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  std::ios::sync_with_stdio(false);
  ll::Interrupt interrupt;
  const ll::Environment environment = {
      .variable =
          [](const std::string& name) {
            const char* value = std::getenv(name.c_str());
            return std::string(value == nullptr ? "" : value);
          },
      .out = std::cout,
      .err = std::cerr,
      .out_is_terminal = isatty(STDOUT_FILENO) != 0,
      .columns = SizeOfTerminal().columns,
      .rows = SizeOfTerminal().rows,
      .clock = ll::RealClock(),
      .random = ll::SystemRandom(),
      .interrupt = interrupt,
      .resized = SizeOfTerminal,
  };
  return ll::RunLlctl({argv + 1, argv + argc}, environment);
}
