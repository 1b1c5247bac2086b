#include "coordinator/pki_command.h"

#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <iostream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "coordinator/api/audit.h"
#include "coordinator/api/join.h"
#include "coordinator/options.h"
#include "rpc/pki.h"

namespace ll {
namespace {

constexpr double kAuthorityDays = 3650, kLeafDays = 365;
constexpr absl::Duration kDay = absl::Hours(24);

int Report(const char* program, const absl::Status& status) {
  if (status.ok()) return 0;
  std::cerr << program << ": " << status.message();
  const std::string hint = ErrorHint(status);
  if (!hint.empty() && !absl::StrContains(status.message(), hint)) std::cerr << "; " << hint;
  std::cerr << "\n";
  return absl::IsInvalidArgument(status) ? 2 : 1;
}

int ParseAndRun(CLI::App& app, int argc, char** argv, const char* program,
                std::function<absl::Status()>& chosen) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::cerr << program << ": " << error.what() << "; see " << program << " --help\n";
    return 2;
  }
  return Report(program, chosen());
}

struct PkiFlags {
  std::string dir, name = "ll", worker, user, server;
  double days = kLeafDays, authority_days = kAuthorityDays, minutes = 60;
  int uses = 1;
};

absl::StatusOr<KeyPair> ReadAuthority(const std::string& dir) {
  KeyPair out;
  const std::string key = absl::StrCat(dir, "/", kAuthorityKey);
  LL_ASSIGN_OR_RETURN(out.certificate_pem, ReadFile(absl::StrCat(dir, "/", kAuthorityCertificate)));
  LL_ASSIGN_OR_RETURN(out.key_pem, ReadFile(key));
  struct stat st;
  if (stat(key.c_str(), &st) == 0 && (st.st_mode & 077) != 0) {
    return FieldStatus(absl::StatusCode::kFailedPrecondition, "dir",
                       absl::StrCat("others may read the authority's key ", key),
                       absl::StrCat("chmod 600 ", key));
  }
  return out;
}

// The key first: a program that watches both never finds a certificate with an older key for long.
absl::Status WritePair(const std::string& dir, const std::string& name, const KeyPair& pair) {
  const std::string base = absl::StrCat(dir, "/", name);
  LL_RETURN_IF_ERROR(WriteFileAtomic(base + ".key", pair.key_pem, 0600));
  LL_RETURN_IF_ERROR(WriteFileAtomic(base + ".crt", pair.certificate_pem, 0644));
  std::cout << base << ".crt\n" << base << ".key\n";
  return absl::OkStatus();
}

absl::Status Init(const PkiFlags& flags) {
  const std::string key = absl::StrCat(flags.dir, "/", kAuthorityKey);
  if (FileExists(key)) {
    return FieldStatus(absl::StatusCode::kAlreadyExists, "dir",
                       absl::StrCat("there is an authority in ", flags.dir),
                       "give another folder; to change authorities see docs/security.md");
  }
  LL_RETURN_IF_ERROR(MakeDirs(flags.dir));
  if (chmod(flags.dir.c_str(), 0700) != 0) return ErrnoStatus(errno, "cannot close", flags.dir);
  LL_ASSIGN_OR_RETURN(const KeyPair made,
                      MakeAuthority(absl::StrCat(flags.name, " cluster CA"), RealClock().Now(),
                                    flags.authority_days * kDay));
  return WritePair(flags.dir, "ca", made);
}

absl::Status IssueOne(const PkiFlags& flags) {
  CertificateSubject subject{.worker = flags.worker, .user = flags.user};
  if (!flags.server.empty()) subject.hosts = absl::StrSplit(flags.server, ',', absl::SkipEmpty());
  LL_ASSIGN_OR_RETURN(const KeyPair authority, ReadAuthority(flags.dir));
  LL_ASSIGN_OR_RETURN(const KeyPair made,
                      Issue(authority, subject, RealClock().Now(), flags.days * kDay));
  const std::string name = !flags.worker.empty() ? absl::StrCat("worker-", flags.worker)
                           : !flags.user.empty() ? absl::StrCat("user-", flags.user)
                                                 : "server";
  return WritePair(flags.dir, name, made);
}

absl::Status PrintJoinToken(const PkiFlags& flags) {
  LL_RETURN_IF_ERROR(ReadAuthority(flags.dir).status());
  LL_ASSIGN_OR_RETURN(
      const std::string token,
      MakeJoinToken(flags.dir, flags.worker, flags.uses,
                    RealClock().Now() + absl::Minutes(flags.minutes), SystemRandom()));
  std::cout << token << "\n";
  return absl::OkStatus();
}

}  // namespace

int RunPkiCommand(int argc, char** argv) {
  constexpr char kProgram[] = "ll-coordinator pki";
  CLI::App app{"Certificates of this cluster: an authority, and what it signs"};
  app.name(kProgram);
  app.require_subcommand(1);
  PkiFlags flags;
  std::function<absl::Status()> chosen;
  const auto add_dir = [&flags](CLI::App* command) {
    command->add_option("--dir", flags.dir, "Folder of the authority")->required();
  };
  CLI::App* init = app.add_subcommand("init", "Make an authority: ca.crt and ca.key (0600)");
  add_dir(init);
  init->add_option("--name", flags.name, "Of the cluster, for people")->capture_default_str();
  init->add_option("--days", flags.authority_days, "How long it is good")
      ->check(CLI::Range(1.0, 36500.0))
      ->capture_default_str();
  init->callback([&] { chosen = [&flags] { return Init(flags); }; });

  CLI::App* issue = app.add_subcommand(
      "issue",
      "Make a key and a certificate: worker-NAME, user-NAME or server, .crt and .key (0600)");
  add_dir(issue);
  auto* who = issue->add_option_group("who", "Exactly one");
  who->add_option("--worker", flags.worker, "Name of a worker: ll://worker/NAME");
  who->add_option("--user", flags.user, "Name of a user: ll://user/NAME");
  who->add_option("--server", flags.server,
                  "HOST[,HOST...]: DNS names and addresses at which the coordinator is reached");
  who->require_option(1);
  issue->add_option("--days", flags.days, "How long it is good, at most as long as the authority")
      ->check(CLI::Range(0.001, 36500.0))
      ->capture_default_str();
  issue->callback([&] { chosen = [&flags] { return IssueOne(flags); }; });

  CLI::App* join = app.add_subcommand(
      "join-token", "Print a token with which ll-worker join gets a certificate (--pki-dir)");
  add_dir(join);
  join->add_option("--worker", flags.worker,
                   "The only name that it is good for; without: any name that no worker has yet");
  join->add_option("--uses", flags.uses, "How many workers may join with it")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  join->add_option("--minutes", flags.minutes, "How long it is good")
      ->check(CLI::Range(0.01, 100'000.0))
      ->capture_default_str();
  join->callback([&] { chosen = [&flags] { return PrintJoinToken(flags); }; });
  return ParseAndRun(app, argc, argv, kProgram, chosen);
}

int RunAuditCommand(int argc, char** argv) {
  constexpr char kProgram[] = "ll-coordinator audit";
  CLI::App app{"The audit log: who asked for which change, and who was refused"};
  app.name(kProgram);
  app.require_subcommand(1);
  std::string dir = DefaultCoordinatorDataDir();
  std::vector<std::string> files;
  std::function<absl::Status()> chosen;
  CLI::App* verify =
      app.add_subcommand("verify", "Check that each line follows from the one before it");
  verify->add_option("--data-dir", dir, "The coordinator's")->capture_default_str();
  verify->add_option("FILE", files, "In order; default: all of --data-dir");
  verify->callback([&] {
    chosen = [&]() -> absl::Status {
      if (files.empty()) {
        LL_ASSIGN_OR_RETURN(files, AuditFiles(dir));
      }
      LL_ASSIGN_OR_RETURN(const AuditSummary summary, VerifyAudit(files));
      std::cout << summary.lines << " lines, " << summary.first << " to " << summary.last
                << ", all follow; the last one's SHA-256: " << summary.last_sha256 << "\n";
      return absl::OkStatus();
    };
  });
  return ParseAndRun(app, argc, argv, kProgram, chosen);
}

}  // namespace ll
