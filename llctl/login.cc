// llctl login, llctl config: which coordinators this user knows, and by which token.
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>

#include "absl/strings/ascii.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/quiet_terminal.h"
#include "base/status_macros.h"
#include "llctl/contexts.h"
#include "llctl/errors.h"
#include "llctl/session.h"
#include "rpc/channel.h"

namespace ll {
namespace {

absl::StatusOr<std::string> AskForToken(Session& session) {
  const bool prompts = session.environment().in == nullptr && isatty(STDIN_FILENO) != 0;
  if (prompts) session.talk() << "Token: " << std::flush;
  std::string line;
  {
    std::istream* in = session.environment().in;
    const QuietTerminal quiet;
    std::getline(in == nullptr ? std::cin : *in, line);
  }
  if (prompts) session.talk() << "\n";
  std::string token(absl::StripAsciiWhitespace(line));
  if (token.empty() || token.size() > (16 << 10))
    return MakeFieldError({"token", "a token on standard input", "none"});
  return token;
}

std::string AbsolutePath(const std::string& path) {
  return path.empty() ? path : std::filesystem::absolute(path).lexically_normal().string();
}

nlohmann::ordered_json JsonOf(const std::string& name, const ContextFile& file) {
  const CoordinatorContext& context = file.contexts.at(name);
  return {{"name", name},
          {"current", name == file.current},
          {"coordinator", context.coordinator},
          {"ca", context.ca_file},
          {"token_file", context.token_file}};
}

// The context that a command made or chose. People hear of it, or asked for nothing more.
int PrintContext(const std::string& name, const ContextFile& file, Session& session) {
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    output.stream() << name << "\n";
  } else if (!output.is_table()) {
    output.PrintValue(JsonOf(name, file));
  }
  return kExitSuccess;
}

struct LoginOptions {
  std::string context = "default";
};

absl::StatusOr<int> RunLogin(const LoginOptions& options, Session& session) {
  const EnvironmentReader& environment = session.environment().variable;
  LL_RETURN_IF_ERROR(CheckContextName(options.context));
  const std::string dir = ConfigDir(environment);
  LL_ASSIGN_OR_RETURN(ContextFile file, ReadContexts(dir));
  CoordinatorContext& context = file.contexts[options.context];
  const ClientOptions& flags = session.client_options();
  if (!flags.coordinator.empty()) context.coordinator = flags.coordinator;
  if (!flags.ca_file.empty()) context.ca_file = AbsolutePath(flags.ca_file);
  if (context.coordinator.empty())
    return MakeFieldError({"coordinator", "HOST:PORT", "none", "give --coordinator"});
  LL_RETURN_IF_ERROR(ParseAddresses(context.coordinator).status());
  LL_ASSIGN_OR_RETURN(const std::string token, AskForToken(session));
  context.token_file = dir + "/tokens/" + options.context;
  // What does not work is not stored.
  ClientOptions probe = flags;
  probe.coordinator = context.coordinator;
  probe.ca_file = context.ca_file;
  LL_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                      Client::CreateWithToken(probe, environment, token));
  LL_RETURN_IF_ERROR(client
                         ->Call(client->jobs(), &v1::Jobs::Stub::List,
                                [] {
                                  v1::ListRequest one;
                                  one.set_page_size(1);
                                  return one;
                                }())
                         .status());
  LL_RETURN_IF_ERROR(MakeDirs(dir + "/tokens"));
  if (chmod((dir + "/tokens").c_str(), 0700) != 0)
    return ErrnoStatus(errno, "cannot close", dir + "/tokens");
  LL_RETURN_IF_ERROR(WriteFileAtomic(context.token_file, token + "\n", 0600));
  file.current = options.context;
  LL_RETURN_IF_ERROR(WriteContexts(dir, file));
  session.talk() << "llctl: context " << options.context << " is " << context.coordinator
                 << ", and the current one\n";
  return PrintContext(options.context, file, session);
}

absl::StatusOr<int> RunGetContexts(Session& session) {
  LL_ASSIGN_OR_RETURN(const ContextFile file,
                      ReadContexts(ConfigDir(session.environment().variable)));
  Output& output = session.output();
  if (output.is_table()) {
    Table table({"CURRENT", "NAME", "COORDINATOR", "CA", "TOKEN"});
    for (const auto& [name, context] : file.contexts) {
      table.Add({name == file.current ? "*" : "", name, context.coordinator, context.ca_file,
                 context.token_file});
    }
    output.PrintTable(table);
    if (file.contexts.empty())
      session.talk() << "llctl: no contexts; llctl --coordinator HOST:PORT login NAME\n";
    return kExitSuccess;
  }
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const auto& [name, context] : file.contexts) {
    if (output.format() == OutputFormat::kName) {
      output.stream() << name << "\n";
      continue;
    }
    list.push_back(JsonOf(name, file));
  }
  if (output.format() != OutputFormat::kName) output.PrintValue(list);
  return kExitSuccess;
}

absl::StatusOr<int> RunUseContext(const std::string& name, Session& session) {
  const std::string dir = ConfigDir(session.environment().variable);
  LL_ASSIGN_OR_RETURN(ContextFile file, ReadContexts(dir));
  if (file.contexts.count(name) == 0) {
    return FieldStatus(absl::StatusCode::kNotFound, "context",
                       "there is no context " + OneLine(name.substr(0, 80)),
                       "llctl config get-contexts shows them");
  }
  file.current = name;
  LL_RETURN_IF_ERROR(WriteContexts(dir, file));
  return PrintContext(name, file, session);
}

absl::StatusOr<int> RunSetContext(const std::string& name, Session& session) {
  LL_RETURN_IF_ERROR(CheckContextName(name));
  const std::string dir = ConfigDir(session.environment().variable);
  LL_ASSIGN_OR_RETURN(ContextFile file, ReadContexts(dir));
  CoordinatorContext& context = file.contexts[name];
  const ClientOptions& flags = session.client_options();
  if (!flags.coordinator.empty()) {
    LL_RETURN_IF_ERROR(ParseAddresses(flags.coordinator).status());
    context.coordinator = flags.coordinator;
  }
  if (!flags.ca_file.empty()) context.ca_file = AbsolutePath(flags.ca_file);
  if (!flags.token_file.empty()) context.token_file = AbsolutePath(flags.token_file);
  LL_RETURN_IF_ERROR(WriteContexts(dir, file));
  return PrintContext(name, file, session);
}

}  // namespace

void AddLoginCommands(CLI::App& app, Action& chosen) {
  auto login_options = std::make_shared<LoginOptions>();
  CLI::App* login = app.add_subcommand(
      "login", "Store a token, read from standard input, for --coordinator (with --ca).");
  login->add_option("NAME", login_options->context, "Name of the context. Default: default.");
  login->callback([login_options, &chosen] {
    chosen = [login_options](Session& session) { return RunLogin(*login_options, session); };
  });

  CLI::App* config = app.add_subcommand("config", "Contexts: named coordinators.");
  config->require_subcommand(1);
  config->add_subcommand("get-contexts", "List them.")->callback([&chosen] {
    chosen = RunGetContexts;
  });
  auto name = std::make_shared<std::string>();
  CLI::App* use = config->add_subcommand("use-context", "Make one the current one.");
  use->add_option("NAME", *name, "The context.")->required();
  use->callback([name, &chosen] {
    chosen = [name](Session& session) { return RunUseContext(*name, session); };
  });
  CLI::App* set = config->add_subcommand(
      "set-context", "Make or change one, by --coordinator, --ca and --token-file.");
  set->add_option("NAME", *name, "The context.")->required();
  set->callback([name, &chosen] {
    chosen = [name](Session& session) { return RunSetContext(*name, session); };
  });
}

}  // namespace ll
