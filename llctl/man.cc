// llctl man
#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "llctl/command_line.h"
#include "llctl/errors.h"
#include "llctl/man_page.h"
#include "llctl/session.h"

namespace ll {
namespace {

absl::Status WriteManPages(const CLI::App& command, const std::string& folder, int& written) {
  const std::string path = absl::StrCat(folder, "/", ManPageName(command), ".1");
  LL_RETURN_IF_ERROR(WriteFileAtomic(path, ManPage(command, LL_VERSION)));
  ++written;
  for (const CLI::App* sub : SubCommands(command))
    LL_RETURN_IF_ERROR(WriteManPages(*sub, folder, written));
  return absl::OkStatus();
}

}  // namespace

void AddManCommand(CLI::App& app, Action& chosen) {
  auto folder = std::make_shared<std::string>();
  CLI::App* command =
      app.add_subcommand("man", "Write the manual pages of llctl and of its commands.");
  command->add_option("--dir", *folder, "Folder for the pages; made where it is missing.")
      ->required()
      ->type_name("DIR");
  command->callback([&app, folder, &chosen] {
    chosen = [&app, folder](Session& session) -> absl::StatusOr<int> {
      int written = 0;
      LL_RETURN_IF_ERROR(AsUsageError(MakeDirs(*folder)));
      LL_RETURN_IF_ERROR(AsUsageError(WriteManPages(app, *folder, written)));
      Output& output = session.output();
      if (output.is_table() || output.format() == OutputFormat::kName) {
        output.stream() << written << " pages in " << *folder << "\n";
      } else {
        output.PrintValue({{"pages", written}, {"dir", *folder}});
      }
      return kExitSuccess;
    };
  });
}

}  // namespace ll
