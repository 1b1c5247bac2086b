// llctl token: the coordinator's tokens file, edited on the coordinator's host.
#include <CLI/CLI.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/session.h"
#include "rpc/token_file.h"

namespace ll {
namespace {

struct TokenOptions {
  std::string file, user, tenant, scopes = "read,submit,cancel", expires, id;
};

// "90d", "12h", "30m"; empty: never.
absl::StatusOr<absl::Time> ExpiryFrom(const std::string& text, absl::Time now) {
  if (text.empty()) return absl::InfiniteFuture();
  double count = 0;
  const char unit = text.back();
  const absl::Duration one = unit == 'd'   ? absl::Hours(24)
                             : unit == 'h' ? absl::Hours(1)
                             : unit == 'm' ? absl::Minutes(1)
                                           : absl::ZeroDuration();
  if (one == absl::ZeroDuration() || !absl::SimpleAtod(text.substr(0, text.size() - 1), &count) ||
      !(count > 0 && count < 1e6))
    return MakeFieldError({"expires", "a time such as 90d, 12h or 30m", OneLine(text)});
  return absl::FromUnixSeconds(absl::ToUnixSeconds(now + count * one));
}

std::string ShownExpiry(const TokenEntry& entry) {
  if (entry.expires == absl::InfiniteFuture()) return "never";
  return absl::FormatTime("%Y-%m-%d%ET%H:%M:%SZ", entry.expires, absl::UTCTimeZone());
}

nlohmann::ordered_json JsonOf(const TokenEntry& entry) {
  nlohmann::ordered_json json = {{"id", entry.sha256.substr(0, kTokenIdDigits)},
                                 {"user", entry.user},
                                 {"tenant", entry.tenant},
                                 {"scopes", entry.scopes}};
  if (entry.expires != absl::InfiniteFuture()) json["expires"] = ShownExpiry(entry);
  return json;
}

absl::StatusOr<int> RunTokenCreate(const TokenOptions& options, Session& session) {
  TokenEntry entry{.user = options.user, .tenant = options.tenant};
  for (absl::string_view scope : absl::StrSplit(options.scopes, ',', absl::SkipWhitespace()))
    entry.scopes.insert(std::string(absl::StripAsciiWhitespace(scope)));
  LL_ASSIGN_OR_RETURN(entry.expires, ExpiryFrom(options.expires, session.now()));
  const std::string token = NewToken(session.environment().random);
  entry.sha256 = Sha256Hex(token);
  LL_RETURN_IF_ERROR(AddToken(options.file, entry));
  Output& output = session.output();
  if (output.is_table() || output.format() == OutputFormat::kName) {
    output.stream() << token << "\n";
    session.talk() << "llctl: this token is shown once; " << options.file
                   << " holds its hash, the coordinator knows it within a second\n";
  } else {
    nlohmann::ordered_json json = JsonOf(entry);
    json["token"] = token;
    output.PrintValue(json);
  }
  return kExitSuccess;
}

absl::StatusOr<int> RunTokenList(const TokenOptions& options, Session& session) {
  LL_ASSIGN_OR_RETURN(const std::vector<TokenEntry> entries, ReadTokens(options.file));
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    for (const TokenEntry& entry : entries)
      output.stream() << entry.sha256.substr(0, kTokenIdDigits) << "\n";
  } else if (output.is_table()) {
    Table table({"ID", "USER", "TENANT", "SCOPES", "EXPIRES"});
    for (const TokenEntry& entry : entries) {
      table.Add({entry.sha256.substr(0, kTokenIdDigits), entry.user, entry.tenant,
                 absl::StrJoin(entry.scopes, ","),
                 session.now() >= entry.expires ? "expired" : ShownExpiry(entry)});
    }
    output.PrintTable(table);
  } else {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const TokenEntry& entry : entries) list.push_back(JsonOf(entry));
    output.PrintValue(list);
  }
  return kExitSuccess;
}

absl::StatusOr<int> RunTokenRevoke(const TokenOptions& options, Session& session) {
  LL_ASSIGN_OR_RETURN(const TokenEntry gone, RemoveToken(options.file, options.id));
  session.talk() << "llctl: the token of " << gone.user << " is void within a second\n";
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    output.stream() << gone.sha256.substr(0, kTokenIdDigits) << "\n";
  } else if (!output.is_table()) {
    output.PrintValue(JsonOf(gone));
  }
  return kExitSuccess;
}

}  // namespace

void AddTokenCommand(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<TokenOptions>();
  CLI::App* token = app.add_subcommand(
      "token", "Tokens of users and workers, in the coordinator's tokens file on its host.");
  token->require_subcommand(1);
  const auto add_file = [&options](CLI::App* command) {
    command->add_option("--tokens", options->file, "The file that ll-coordinator --tokens names.")
        ->required()
        ->type_name("FILE");
  };
  CLI::App* create = token->add_subcommand("create", "Make a token; it is printed once.");
  add_file(create);
  create->add_option("--user", options->user, "Whose it is.")->required();
  create->add_option("--tenant", options->tenant, "Of which tenant. Default: none.");
  create->add_option("--scopes", options->scopes,
                     "Out of read, submit, cancel, admin, worker. Default: read,submit,cancel.");
  create->add_option("--expires", options->expires, "After 90d, 12h, 30m. Default: never.");
  create->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunTokenCreate(*options, session); };
  });
  CLI::App* list = token->add_subcommand("list", "List them, by the first digits of their hashes.");
  add_file(list);
  list->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunTokenList(*options, session); };
  });
  CLI::App* revoke = token->add_subcommand("revoke", "Remove one.");
  add_file(revoke);
  revoke->add_option("ID", options->id, "First digits of its hash, as list shows them.")
      ->required();
  revoke->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunTokenRevoke(*options, session); };
  });
}

}  // namespace ll
