#include "worker/agent/join.h"

#include <grpcpp/client_context.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <iostream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/quiet_terminal.h"
#include "base/status_macros.h"
#include "proto/workers.grpc.pb.h"
#include "rpc/channel.h"
#include "rpc/config_file.h"
#include "rpc/pki.h"
#include "rpc/secret_file.h"
#include "rpc/status.h"

namespace ll {
namespace {

constexpr std::chrono::seconds kDeadline{20};

struct JoinFlags {
  std::string coordinator = "127.0.0.1:7070", ca, token_file = "-", name, out;
};

std::string OwnHostName() {
  char buffer[256] = {};
  return gethostname(buffer, sizeof buffer - 1) == 0 ? buffer : "localhost";
}

// Neither argv nor the environment shows it to others.
absl::StatusOr<std::string> ReadJoinToken(const std::string& file) {
  std::string text;
  if (file != "-") {
    LL_ASSIGN_OR_RETURN(text, ReadFile(file));
  } else if (isatty(STDIN_FILENO) != 0) {
    std::cerr << "Join token: " << std::flush;
    const QuietTerminal quiet;
    std::getline(std::cin, text);
    std::cerr << "\n";
  } else {
    std::getline(std::cin, text, '\0');
  }
  absl::StripAsciiWhitespace(&text);
  if (CheckBearerToken(text).ok()) return text;
  return MakeFieldError({"join-token-file", "a token of ll-coordinator pki join-token",
                         text.empty() ? "none" : "something else"});
}

absl::Status Join(const JoinFlags& flags) {
  const std::string name = flags.name.empty() ? OwnHostName() : flags.name;
  ChannelConfig config{.ca_file = flags.ca};
  LL_ASSIGN_OR_RETURN(config.addresses, ParseAddresses(flags.coordinator));
  if (flags.ca.empty()) {
    return MakeFieldError({"tls-ca", "the authority of the coordinator's certificate", "none",
                           "copy ca.crt of ll-coordinator pki init here: whom to trust cannot be "
                           "asked over the network"});
  }
  LL_ASSIGN_OR_RETURN(const auto channel, MakeChannel(config));
  // A token is good once: what can be seen to fail afterwards is looked at before.
  LL_RETURN_IF_ERROR(MakeDirs(flags.out));
  if (access(flags.out.c_str(), W_OK) != 0)
    return ErrnoStatus(errno, "cannot write into", flags.out);
  LL_ASSIGN_OR_RETURN(const std::string token, ReadJoinToken(flags.token_file));
  LL_ASSIGN_OR_RETURN(const KeyPair made, MakeCsr(name));
  v1::JoinRequest request;
  request.set_token(token);
  request.set_worker(name);
  request.set_csr_pem(made.certificate_pem);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kDeadline);
  v1::JoinResponse response;
  const grpc::Status status = v1::Workers::NewStub(channel)->Join(&context, request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  const std::string base = absl::StrCat(flags.out, "/worker");
  LL_RETURN_IF_ERROR(WriteFileAtomic(base + ".key", made.key_pem, 0600));
  LL_RETURN_IF_ERROR(WriteFileAtomic(base + ".crt", response.certificate_pem()));
  LL_RETURN_IF_ERROR(WriteFileAtomic(absl::StrCat(flags.out, "/ca.crt"), response.ca_pem()));
  LL_RETURN_IF_ERROR(CheckCertificateFiles(base + ".crt", base + ".key"));
  std::cout << "joined as " << name << ": start ll-worker with --name " << name << " --tls-ca "
            << flags.out << "/ca.crt --tls-cert " << base << ".crt --tls-key " << base << ".key\n";
  return absl::OkStatus();
}

}  // namespace

int RunJoinCommand(int argc, char** argv) {
  CLI::App app("ll-worker join: gets a certificate for this host's agent, by a join token",
               "ll-worker join");
  JoinFlags flags;
  app.add_option("--coordinator", flags.coordinator, "HOST:PORT[,HOST:PORT...]")
      ->capture_default_str();
  app.add_option("--tls-ca", flags.ca, "PEM file of the CA of the coordinator's certificate");
  app.add_option("--join-token-file", flags.token_file,
                 "File with the token of ll-coordinator pki join-token; -: standard input")
      ->capture_default_str();
  app.add_option("--name", flags.name, "Name of this worker; default: the host's name");
  app.add_option("--out", flags.out, "Folder for worker.key (0600), worker.crt and ca.crt")
      ->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::cerr << UsageLine(app, error) << "\n";
    return 2;
  }
  const absl::Status status = Join(flags);
  if (status.ok()) return 0;
  const std::string hint = ErrorHint(status);
  std::cerr << "ll-worker: " << status.message();
  if (!hint.empty() && status.message().find(hint) == absl::string_view::npos)
    std::cerr << "; " << hint;
  std::cerr << "\n";
  if (absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status)) return 6;
  return absl::IsInvalidArgument(status) ? 2 : 1;
}

}  // namespace ll
