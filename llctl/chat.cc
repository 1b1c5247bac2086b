// llctl chat: a conversation with a job's model, on a worker.
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "base/terminal_text.h"
#include "llctl/command_line.h"
#include "llctl/conversation.h"
#include "llctl/errors.h"
#include "llctl/plan.h"

namespace ll {
namespace {

struct ChatOptions {
  std::map<std::string, std::string> keys;  // of the job's spec
  nlohmann::json sampling = nlohmann::json::object();
  std::string system;
};

// A line of the conversation; false at its end (end of input, /exit, Ctrl-C).
class LineReader {
 public:
  LineReader(Session& session, bool prompts) : session_(session), prompts_(prompts) {}

  bool Next(std::string& line) {
    if (prompts_) session_.talk() << "> " << std::flush;
    std::istream& in = session_.environment().in != nullptr ? *session_.environment().in : std::cin;
    // A blocked read would not notice Ctrl-C. What cin has buffered already is read at once.
    while (&in == &std::cin && in.rdbuf()->in_avail() <= 0) {
      pollfd wait = {STDIN_FILENO, POLLIN, 0};
      if (poll(&wait, 1, 100) != 0 && wait.revents != 0) break;
      if (session_.environment().interrupt.raised()) return false;
    }
    return static_cast<bool>(std::getline(in, line)) && line != "/exit";
  }

 private:
  Session& session_;
  const bool prompts_;
};

nlohmann::json Message(const char* role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

absl::StatusOr<std::string> StartJob(const ChatOptions& options, Session& session) {
  JobSpec spec;
  for (const auto& [key, text] : options.keys) LL_RETURN_IF_ERROR(SetField(spec, key, text));
  spec.kind = "generate";
  MakePathsAbsolute(spec);
  LL_RETURN_IF_ERROR(Validate(spec));
  const std::string request_id = NewRequestId(session.environment().random);
  LL_ASSIGN_OR_RETURN(const v1::JobSpec proto, SpecToProto(spec));
  LL_ASSIGN_OR_RETURN(const v1::SubmitResponse response, SubmitJob(proto, request_id, session));
  return response.job().job_id();
}

// The turns, until the input ends. History stays on this side: every message carries all of it, and
// the worker's cache pays for what is new.
absl::StatusOr<int> Talk(const ChatOptions& options, Conversation& conversation, Session& session,
                         bool prompts) {
  Output& output = session.output();
  const bool text_out = output.is_table();
  nlohmann::json start = nlohmann::json::array();
  if (!options.system.empty()) start.push_back(Message("system", options.system));
  nlohmann::json messages = start;
  LineReader reader(session, prompts);
  std::string line;
  int failures = 0;
  while (reader.Next(line)) {
    const std::string text(absl::StripAsciiWhitespace(line));
    if (text == "/reset") messages = start;
    if (text.empty() || text == "/reset") continue;
    messages.push_back(Message("user", text));
    nlohmann::json message = options.sampling;
    message["messages"] = messages;
    const auto answer = conversation.Ask(message, [&](const std::string& piece) {
      if (text_out) output.stream() << output.Foreign(piece) << std::flush;
    });
    if (!answer.ok() && answer.status().code() != absl::StatusCode::kInvalidArgument)
      return answer.status();
    if (!answer.ok()) {  // the model's side refused this message; the next one may do
      session.talk() << "llctl: " << Shown(answer.status().message()) << std::endl;
      messages.erase(messages.size() - 1);
      ++failures;
      continue;
    }
    if (text_out) {
      output.stream() << std::endl;
    } else {
      output.stream() << answer->dump() << std::endl;
    }
    messages.push_back(Message("assistant", answer->value("text", "")));
  }
  if (session.environment().interrupt.raised()) return kExitDetached;
  return failures > 0 && !prompts ? kExitJobFailed : kExitSuccess;
}

absl::StatusOr<int> RunChat(const ChatOptions& options, Session& session) {
  session.environment().interrupt.Arm();
  const bool prompts = session.environment().in == nullptr && isatty(STDIN_FILENO) != 0;
  LL_ASSIGN_OR_RETURN(const std::string job_id, StartJob(options, session));
  session.talk() << "llctl: talking through job " << job_id << std::endl;
  Conversation conversation(session, job_id);
  const absl::Status ready = conversation.AwaitReady([&](const std::string& reason) {
    if (!reason.empty()) session.talk() << "llctl: " << Shown(reason) << std::endl;
  });
  if (session.environment().interrupt.raised()) return kExitDetached;
  LL_RETURN_IF_ERROR(ready);
  if (prompts) session.talk() << "/reset forgets the conversation, /exit or Ctrl-D ends it\n";
  return Talk(options, conversation, session, prompts);
}

}  // namespace

void AddChatCommand(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<ChatOptions>();
  CLI::App* command =
      app.add_subcommand("chat", "Talk with a job's model; its worker is busy until the end.");
  const auto key = [&](const char* flag, const char* name, const char* type, const char* help) {
    AddKeyFlag(*command, options->keys, flag, name, type, help);
  };
  const auto sampling = [&](const char* flag, const char* name, const char* type, const char* help,
                            const CLI::Validator& check) {
    command
        ->add_option_function<double>(
            flag,
            [options, name = std::string(name)](const double value) {
              options->sampling[name] = value;
            },
            help)
        ->type_name(type)
        ->check(check);
  };
  // Before a worker has read the model for them.
  const auto whole = [](double least, double most) {
    return CLI::Validator(
        [=](const std::string& text) {
          int64_t number = 0;
          const bool good = absl::SimpleAtoi(text, &number) &&
                            static_cast<double>(number) >= least &&
                            static_cast<double>(number) <= most;
          return good ? std::string()
                      : absl::StrFormat("expected a whole number from %.0f to %.0f, found %s",
                                        least, most, text);
        },
        "");
  };
  key("JOB,--job", "job", "", "The job whose newest checkpoint talks.");
  key("--model", "model", "M",
      "Model to talk with instead, or the base the job's adapter goes on.");
  key("--adapter", "adapter", "DIR", "Adapter folder on the workers.");
  key("--prompt-template", "prompt_template", "NAME",
      "How turns become text. Default: the model folder's chat template.");
  key("--precision", "precision", "bf16|fp32", "Compute type.");
  key("--quantization", "quantization", "none|nf4", "The base in NF4 or not.");
  key("--queue", "queue", "Q", "Queue.");
  command->add_option("--system", options->system, "A system message in front.")->type_name("TEXT");
  sampling("--max-new-tokens", "max_new_tokens", "N", "Longest answer. Default: 512.",
           whole(1, 16'000'000));
  sampling("--temperature", "temperature", "T", "0: the likeliest token. Default: 0.6.",
           NumberFrom(0, 1e6));
  sampling("--top-p", "top_p", "P", "Share of the likeliest tokens. Default: 0.9.",
           NumberFrom(0, 1));
  sampling("--top-k", "top_k", "K", "Number of the likeliest tokens. Default: all.", whole(0, 1e9));
  sampling("--repetition-penalty", "repetition_penalty", "R", "Default: 1, none.",
           NumberFrom(0, 1e6));
  sampling("--seed", "seed", "N", "The same seed and conversation give the same answers.",
           whole(0, 9'007'199'254'740'992));
  command->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunChat(*options, session); };
  });
}

}  // namespace ll
