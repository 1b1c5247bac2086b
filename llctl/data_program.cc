#include "llctl/data_program.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/subprocess.h"

namespace ll {
namespace {

absl::StatusOr<std::string> ReadAll(int fd) {
  std::string out;
  char buffer[1 << 16];
  while (true) {
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "cannot read from", "ll-data");
    if (n == 0) return out;
    out.append(buffer, static_cast<size_t>(n));
  }
}

absl::StatusOr<std::string> RunAndRead(const SubprocessOptions& given) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "cannot make a pipe to", "ll-data");
  absl::Cleanup close_read = [&] { close(ends[0]); };
  SubprocessOptions options = given;
  options.inherited_fds[STDOUT_FILENO] = ends[1];
  auto child = Subprocess::Start(options);
  close(ends[1]);
  if (!child.ok()) return child.status();
  LL_ASSIGN_OR_RETURN(std::string out, ReadAll(ends[0]));
  const auto ended = child->Wait(absl::InfiniteDuration());
  if (ended && ended->signal == 0 && ended->exit_code == 0) return out;
  return FieldStatus(absl::StatusCode::kInternal, "ll-data",
                     ended && ended->signal != 0
                         ? absl::StrCat("was ended by signal ", ended->signal)
                         : absl::StrCat("failed with exit code ", ended ? ended->exit_code : -1));
}

}  // namespace

absl::StatusOr<DataProgramResult> RunDataProgram(const std::vector<std::string>& arguments) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  SubprocessOptions options;
  options.argv = {(self.parent_path() / "ll-data").string()};
  options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
  options.new_process_group = false;  // Ctrl-C is for both
  LL_ASSIGN_OR_RETURN(const std::string text, RunAndRead(options));
  const auto root = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  try {
    if (!root.contains("error")) return DataProgramResult{root.at("result"), root.at("text")};
    const auto& e = root["error"];
    return FieldStatus(static_cast<absl::StatusCode>(e.at("code").get<int>()),
                       e.at("field").get<std::string>(), e.at("message").get<std::string>(),
                       e.at("hint").get<std::string>());
  } catch (const nlohmann::json::exception& e) {
    return absl::InternalError(absl::StrCat("ll-data: ", e.what()));
  }
}

}  // namespace ll
