#include "llctl/session.h"

#include "base/status_macros.h"
#include "llctl/terminal_text.h"

namespace ll {

Session::Session(const Environment& environment, const ClientOptions& options, OutputFormat format)
    : environment_(environment),
      options_(options),
      output_(environment.out, format, environment.out_is_terminal,
              environment.out_is_terminal && environment.variable("NO_COLOR").empty() &&
                  environment.variable("TERM") != "dumb",
              environment.columns) {}

TerminalSize Session::terminal_size() const {
  if (environment_.resized != nullptr) return environment_.resized();
  return {environment_.columns, environment_.rows};
}

bool Session::utf8() const {
  return IsUtf8Locale(environment_.variable("LC_ALL"), environment_.variable("LC_CTYPE"),
                      environment_.variable("LANG"));
}

absl::StatusOr<Client*> Session::client() {
  if (client_ == nullptr) {
    LL_ASSIGN_OR_RETURN(client_, Client::Create(options_, environment_.variable));
  }
  return client_.get();
}

}  // namespace ll
