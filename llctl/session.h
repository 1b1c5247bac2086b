// What a command works with, and how commands are added to the command line.
#pragma once

#include <functional>
#include <istream>
#include <memory>
#include <ostream>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/ids.h"
#include "llctl/client.h"
#include "llctl/interrupt.h"
#include "llctl/live_screen.h"
#include "llctl/output.h"

namespace CLI {
class App;
}

namespace ll {

// The world outside, injected so that tests run whole commands in their own process.
struct Environment {
  EnvironmentReader variable;
  std::ostream& out;
  std::ostream& err;
  bool out_is_terminal = false;
  int columns = 0;  // of the terminal
  int rows = 0;
  Clock& clock;
  Random& random;
  Interrupt& interrupt;
  // Where a conversation's lines come from; null: standard input.
  std::istream* in = nullptr;
  // The terminal's size as it is now; null: it stays `columns` by `rows`.
  std::function<TerminalSize()> resized = nullptr;
};

// One run of llctl after its command line was read.
class Session {
 public:
  Session(const Environment& environment, const ClientOptions& options, OutputFormat format);

  // The connection, made at the first call.
  absl::StatusOr<Client*> client();
  const ClientOptions& client_options() const { return options_; }
  Output& output() { return output_; }
  const Environment& environment() const { return environment_; }
  // For people, on stderr.
  std::ostream& talk() { return environment_.err; }
  absl::Time now() { return environment_.clock.Now(); }
  TerminalSize terminal_size() const;
  // Whether the terminal shows more than ASCII (terminal_text.h).
  bool utf8() const;

 private:
  const Environment& environment_;
  ClientOptions options_;
  Output output_;
  std::unique_ptr<Client> client_;
};

// What a command does once it is chosen; the value is the exit code.
using Action = std::function<absl::StatusOr<int>(Session&)>;

// Each adds one command to `app`; parsing a command line that names it sets `chosen`.
void AddSubmitCommand(CLI::App& app, Action& chosen);
void AddPlanCommand(CLI::App& app, Action& chosen);
void AddListCommand(CLI::App& app, Action& chosen);
void AddGetCommand(CLI::App& app, Action& chosen);
void AddWatchCommand(CLI::App& app, Action& chosen);
void AddLogsCommand(CLI::App& app, Action& chosen);
void AddControlCommands(CLI::App& app, Action& chosen);  // cancel, pause, resume
void AddCheckpointsCommand(CLI::App& app, Action& chosen);
void AddWhyCommand(CLI::App& app, Action& chosen);
void AddDoctorCommand(CLI::App& app, Action& chosen);
void AddChatCommand(CLI::App& app, Action& chosen);
void AddVerifyCommand(CLI::App& app, Action& chosen);
void AddEvalCommand(CLI::App& app, Action& chosen);
void AddMergeCommand(CLI::App& app, Action& chosen);
void AddDescribeCommand(CLI::App& app, Action& chosen);
void AddTopCommand(CLI::App& app, Action& chosen);
void AddPlotCommand(CLI::App& app, Action& chosen);
void AddWorkersCommand(CLI::App& app, Action& chosen);
void AddQueuesCommand(CLI::App& app, Action& chosen);
void AddScheduleCommand(CLI::App& app, Action& chosen);
void AddModelsCommand(CLI::App& app, Action& chosen);
void AddDataCommand(CLI::App& app, Action& chosen);
void AddTokenCommand(CLI::App& app, Action& chosen);
void AddLoginCommands(CLI::App& app, Action& chosen);  // login, config
void AddVersionCommand(CLI::App& app, Action& chosen);
void AddCompletionCommand(CLI::App& app, Action& chosen);
void AddManCommand(CLI::App& app, Action& chosen);

}  // namespace ll
