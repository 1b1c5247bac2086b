#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <memory>

#include "absl/strings/ascii.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "worker/trainer/cli/commands.h"
#include "worker/trainer/cli/generate_flags.h"
#include "worker/trainer/event_sink.h"
#include "worker/trainer/generate/chat_model.h"
#include "worker/trainer/rank.h"

namespace ll {
namespace {

using nlohmann::ordered_json;

struct Flags : GenerateFlags {
  std::string prompt_template, system;
};

// Ctrl-C ends the answer, not the program, and gives a new prompt. As a descriptor it cannot fall
// between a look and a wait. Made before other threads, which inherit the signal mask.
class Interrupts {
 public:
  Interrupts() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    fd_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    LL_CHECK(fd_ >= 0);
  }
  ~Interrupts() { close(fd_); }
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  // True where one came since the last call.
  bool Take() const {
    signalfd_siginfo info;
    return read(fd_, &info, sizeof(info)) == sizeof(info);
  }
  // Waits for one, or for input; true where it is one, which is then taken.
  bool ComesBeforeInput() const {
    pollfd fds[2] = {{STDIN_FILENO, POLLIN, 0}, {fd_, POLLIN, 0}};
    while (poll(fds, 2, /*timeout_ms=*/-1) < 0) LL_CHECK(errno == EINTR);  // a person decides
    return Take();
  }

 private:
  int fd_ = -1;
};

struct Chat {
  const Flags& flags;
  const Interrupts& interrupts;
  std::unique_ptr<ChatModel> model;
};

// ---- A program on the other side: JSON lines.

void PrintEvent(const char* event, const std::string& request_id, const ordered_json& fields) {
  ordered_json line = {{"event", event}};
  if (!request_id.empty()) line["request_id"] = request_id;
  line.update(fields);
  std::printf("%s\n", line.dump(-1, ' ', false, ordered_json::error_handler_t::replace).c_str());
  std::fflush(stdout);
}

absl::StatusOr<Answer> AnswerRequest(Chat& chat, const ChatRequest& request) {
  return chat.model->AnswerRequest(request, [&](absl::string_view text) {
    if (!text.empty()) PrintEvent("token", request.request_id, {{"text", std::string(text)}});
    return !chat.interrupts.Take();
  });
}

int ServeLines(Chat& chat) {
  std::string line;
  while (std::getline(std::cin, line)) {
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    chat.interrupts.Take();  // it was about the answer before
    const auto request = ParseChatRequest(line, chat.flags.answer);
    const std::string id = request.ok() ? request->request_id : "";
    const auto answer =
        request.ok() ? AnswerRequest(chat, *request) : absl::StatusOr<Answer>(request.status());
    answer.ok() ? PrintEvent("answer", id, ToJson(*answer))
                : PrintEvent("error", id, ErrorToJson(answer.status()));
  }
  return 0;
}

// ---- A person at a terminal.

// False at the end of input; an interrupted line is empty.
bool ReadLine(const Interrupts& interrupts, std::string& line) {
  interrupts.Take();  // it was about the answer before
  std::fprintf(stderr, "> ");
  line.clear();
  if (!interrupts.ComesBeforeInput() && std::getline(std::cin, line)) return true;
  std::fprintf(stderr, "\n");
  return !std::cin.eof();
}

absl::Status Talk(Chat& chat) {
  LL_RETURN_IF_ERROR(chat.model->PrepareMessages());
  LL_RETURN_IF_ERROR(chat.model->generator().Prepare(chat.flags.answer.generation.max_new_tokens));
  std::fprintf(stderr,
               "/reset forgets the conversation, /exit or Ctrl-D ends, Ctrl-C stops an answer\n");
  std::vector<ChatMessage> start, messages;
  if (!chat.flags.system.empty()) start.push_back({"system", chat.flags.system});
  messages = start;
  std::string line;
  while (ReadLine(chat.interrupts, line)) {
    const std::string text(absl::StripAsciiWhitespace(line));
    if (text == "/exit") break;
    if (text == "/reset") messages = start;
    if (text.empty() || text == "/reset") continue;
    messages.push_back({"user", text});
    const auto answer = chat.model->AnswerMessages(
        messages, chat.flags.answer,
        [&](absl::string_view piece) { return PrintText(piece) && !chat.interrupts.Take(); });
    PrintText("\n");
    if (!answer.ok()) ReportToStderr(answer.status());
    // A turn without an answer is no turn: templates and models expect one.
    if (!answer.ok() || absl::StripAsciiWhitespace(answer->text).empty()) {
      messages.pop_back();
    } else {
      messages.push_back({"assistant", answer->text});
    }
  }
  return absl::OkStatus();
}

int Execute(const Flags& flags) {
  const Interrupts interrupts;
  SetThreads(flags.threads, 1);
  auto model = ChatModel::Open(flags.model, flags.prompt_template);
  if (!model.ok()) return ReportToStderr(model.status());
  if (interrupts.Take()) return 128 + SIGINT;  // while the model was read
  Chat chat{flags, interrupts, *std::move(model)};
  if (isatty(STDIN_FILENO) == 0) return ServeLines(chat);
  const absl::Status status = Talk(chat);
  return status.ok() ? 0 : ReportToStderr(status);
}

}  // namespace

void AddChat(CLI::App& program, Command& run) {
  auto flags = std::make_shared<Flags>();
  // LongLoRA's own inference: temperature 0.6, top_p 0.9, 512 tokens.
  flags->answer.generation.sampling.temperature = 0.6;
  flags->answer.generation.sampling.top_p = 0.9;
  flags->answer.generation.max_new_tokens = 512;
  CLI::App* command = program.add_subcommand(
      "chat", "Talks with a model; without a terminal, JSON lines in and out");
  AddGenerateFlags(*command, *flags);
  command
      ->add_option("--prompt-template", flags->prompt_template,
                   "How turns become text; default: the model folder's own chat template")
      ->check(CLI::IsMember({"longlora", "llama2", "vicuna", "chatml", "chat_template"}));
  command->add_option("--system", flags->system, "A system message in front of the conversation")
      ->type_name("TEXT");
  command->callback([flags, &run] { run = [flags] { return Execute(*flags); }; });
}

}  // namespace ll
