#include "llctl/man_page.h"

#include <CLI/CLI.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "llctl/command_line.h"
#include "llctl/examples.h"
#include "llctl/help_format.h"

namespace ll {
namespace {

// The character that begins at text[at], of several bytes of UTF-8, as troff's escape; moves `at`
// behind it.
std::string TroffCharacter(absl::string_view text, size_t& at) {
  const auto first = static_cast<unsigned char>(text[at++]);
  uint32_t code = first >= 0xF0 ? first & 0x07 : first >= 0xE0 ? first & 0x0F : first & 0x1F;
  while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80)
    code = (code << 6) | (static_cast<unsigned char>(text[at++]) & 0x3F);
  return absl::StrFormat("\\[u%04X]", code);
}

// Text that troff is to print as it is: no escapes, ASCII, and no line that begins with a request.
std::string Troff(absl::string_view text) {
  std::string out = absl::StrReplaceAll(text, {{"\\", "\\e"},
                                               {"-", "\\-"},
                                               {"~", "\\(ti"},
                                               {"^", "\\(ha"},
                                               {"`", "\\(ga"},
                                               {"'", "\\(aq"},
                                               {"\"", "\\(dq"}});
  std::string safe;
  for (const absl::string_view line : absl::StrSplit(out, '\n')) {
    if (!safe.empty()) safe += "\n";
    if (!line.empty() && line[0] == '.') safe += "\\&";
    for (size_t at = 0; at < line.size();) {
      if (static_cast<unsigned char>(line[at]) >= 0x80) {
        safe += TroffCharacter(line, at);
      } else {
        safe.push_back(line[at++]);
      }
    }
  }
  return safe;
}

std::string FullName(const CLI::App& command) {
  const std::string path = CommandPath(command);
  return path.empty() ? "llctl" : absl::StrCat("llctl ", path);
}

std::string Synopsis(const CLI::App& command) {
  std::string out = absl::StrCat(".B ", Troff(FullName(command)), "\n[\\fIOPTIONS\\fR]");
  for (const CLI::Option* option : command.get_options()) {
    if (!option->get_positional()) continue;
    const std::string name = absl::StrCat("\\fI", Troff(option->get_name(true)), "\\fR",
                                          option->get_items_expected_max() > 1 ? "..." : "");
    absl::StrAppend(&out, " ", option->get_required() ? name : absl::StrCat("[", name, "]"));
  }
  if (!SubCommands(command).empty()) out += " \\fICOMMAND\\fR";
  return out + "\n";
}

void AddOptions(const CLI::App& command, std::string& out) {
  const HelpFormat format;
  for (const std::string& group : command.get_groups()) {
    const auto options = command.get_options(
        [&group](const CLI::Option* option) { return option->get_group() == group; });
    if (group.empty() || options.empty()) continue;
    absl::StrAppend(&out, ".SH ", absl::AsciiStrToUpper(Troff(group)), "\n");
    for (const CLI::Option* option : options) {
      const bool positional = !option->nonpositional();
      absl::StrAppend(&out, ".TP\n\\fB",
                      Troff(absl::StrReplaceAll(format.make_option_name(option, positional),
                                                {{"{false}", ""}})),
                      "\\fR", Troff(format.make_option_opts(option)), "\n",
                      Troff(option->get_description()), "\n");
    }
  }
}

void AddSeeAlso(const CLI::App& command, std::string& out) {
  std::vector<std::string> pages;
  if (command.get_parent() != nullptr) pages.push_back(ManPageName(*command.get_parent()));
  for (const CLI::App* sub : SubCommands(command)) pages.push_back(ManPageName(*sub));
  if (pages.empty()) return;
  out += ".SH SEE ALSO\n";
  for (size_t i = 0; i < pages.size(); ++i)
    absl::StrAppend(&out, ".BR ", Troff(pages[i]), " (1)", i + 1 < pages.size() ? "," : "", "\n");
}

}  // namespace

std::string ManPageName(const CLI::App& command) {
  return absl::StrReplaceAll(FullName(command), {{" ", "-"}});
}

std::string ManPage(const CLI::App& command, const std::string& version) {
  const std::string name = ManPageName(command);
  std::string out =
      absl::StrCat(".TH ", Troff(absl::AsciiStrToUpper(name)), " 1 \"\" \"ll ", Troff(version),
                   "\" \"User Commands\"\n.ad l\n.nh\n.SH NAME\n", Troff(name), " \\- ",
                   Troff(command.get_description()), "\n.SH SYNOPSIS\n", Synopsis(command));
  if (!SubCommands(command).empty()) {
    out += ".SH COMMANDS\n";
    for (const CLI::App* sub : SubCommands(command))
      absl::StrAppend(&out, ".TP\n\\fB", Troff(sub->get_name()), "\\fR\n",
                      Troff(sub->get_description()), "\n");
  }
  AddOptions(command, out);
  if (command.get_parent() != nullptr)
    out += ".PP\nOptions of\n.BR llctl (1)\nmay stand behind the command too.\n";
  out += ".SH EXAMPLES\n.nf\n";
  for (const std::string& line : ExamplesOf(CommandPath(command)))
    absl::StrAppend(&out, Troff(line), "\n");
  out += ".fi\n";
  // What the footer says besides the examples, which stand in front of it.
  const std::string footer = command.get_footer();
  const size_t notes = footer.find("\n\n");
  if (notes != std::string::npos)
    absl::StrAppend(&out, ".SH NOTES\n.nf\n",
                    Troff(absl::StripAsciiWhitespace(footer.substr(notes))), "\n.fi\n");
  AddSeeAlso(command, out);
  return out;
}

}  // namespace ll
