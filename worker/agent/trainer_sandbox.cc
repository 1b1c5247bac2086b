#include "worker/agent/trainer_sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/store_uri.h"
#include "base/subprocess.h"

extern char** environ;

namespace ll {
namespace {

constexpr absl::Duration kLoaderDeadline = absl::Seconds(10);
constexpr size_t kMaxLoaderBytes = 1 << 20;

// /run: sockets of the devices' daemons. /opt: where releases are installed.
constexpr const char* kSystemFolders[] = {"/usr",  "/lib", "/lib64", "/bin",
                                          "/sbin", "/etc", "/opt",   "/proc",
                                          "/sys",  "/dev", "/run",   "/var/lib/ll"};
constexpr const char* kDevices[] = {"/dev"};

constexpr const char* kNames[] = {"PATH",           "HOME",
                                  "USER",           "LANG",
                                  "LANGUAGE",       "TZ",
                                  "TMPDIR",         "SHELL",
                                  "LOGNAME",        "LD_LIBRARY_PATH",
                                  "SSL_CERT_FILE",  "SSL_CERT_DIR",
                                  "CURL_CA_BUNDLE", "KMP_AFFINITY",
                                  "KMP_BLOCKTIME",  "http_proxy",
                                  "https_proxy",    "no_proxy",
                                  "HTTP_PROXY",     "HTTPS_PROXY",
                                  "NO_PROXY"};
constexpr const char* kPrefixes[] = {
    "LC_",   "CUDA_",     "NVIDIA_", "NCCL_",   "GLOO_",   "OMP_",         "GOMP_",
    "MKL_",  "OPENBLAS_", "DNNL_",   "ONEDNN_", "TORCH_",  "PYTORCH_",     "AWS_",
    "UCX_",  "FI_",       "IBV_",    "MLX5_",   "MALLOC_", "GLIBC_",       "ASAN_",
    "LSAN_", "TSAN_",     "UBSAN_",  "LL_CPU_", "LL_S3_",  "LL_ATTENTION_"};

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

// Everything that comes out of the pipe until its end.
std::string Drain(int fd) {
  std::string out;
  char buffer[4096];
  const absl::Duration until = RealClock().Steady() + kLoaderDeadline;
  while (out.size() < kMaxLoaderBytes && RealClock().Steady() < until) {
    pollfd wait{fd, POLLIN, 0};
    if (poll(&wait, 1, 100) <= 0) continue;
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n <= 0) break;
    out.append(buffer, static_cast<size_t>(n));
  }
  return out;
}

}  // namespace

bool IsTrainerVariable(const std::string& name) {
  const auto begins = [&name](const char* prefix) { return absl::StartsWith(name, prefix); };
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames) ||
         std::any_of(std::begin(kPrefixes), std::end(kPrefixes), begins);
}

std::map<std::string, std::string> TrainerEnvironment() {
  std::map<std::string, std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const size_t equals = text.find('=');
    if (equals == std::string::npos) continue;
    const std::string name = text.substr(0, equals);
    if (IsTrainerVariable(name)) out[name] = text.substr(equals + 1);
  }
  return out;
}

std::vector<std::string> LibraryFolders(const std::string& program) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return {};
  SubprocessOptions options;
  options.argv = {program};
  options.environment = {{"LD_TRACE_LOADED_OBJECTS", "1"}};  // the loader lists and does not run it
  options.inherited_fds = {{1, fds[1]}};
  auto process = Subprocess::Start(options);
  close(fds[1]);
  std::string text;
  if (process.ok()) {
    text = Drain(fds[0]);
    process->Wait(kLoaderDeadline);
  }
  close(fds[0]);
  std::set<std::string> folders;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const size_t arrow = line.find("=> /");
    if (arrow == absl::string_view::npos) continue;
    const absl::string_view path = line.substr(arrow + 3);
    const std::string library(path.substr(0, path.find(' ')));
    folders.insert(FolderOf(library));
    std::string real = library;
    if (char* resolved = realpath(library.c_str(), nullptr); resolved != nullptr) {
      real = resolved;
      free(resolved);
    }
    folders.insert(FolderOf(real));
  }
  return {folders.begin(), folders.end()};
}

absl::StatusOr<std::shared_ptr<const TrainerSandbox>> TrainerSandbox::Make(
    const TrainerSandboxOptions& options, const Roots& roots, const std::string& job_store) {
  auto out = std::make_shared<TrainerSandbox>();
  if (!options.user.empty()) {
    LL_ASSIGN_OR_RETURN(out->user_, FindUser(options.user));
    if (geteuid() != 0) {
      return FieldStatus(absl::StatusCode::kFailedPrecondition, "trainer-user",
                         absl::StrCat("only root may run trainers as ", options.user),
                         "start ll-worker as root, or as that account without --trainer-user");
    }
  }
  const int version = options.mode == SandboxMode::kOff ? 0 : LandlockVersion();
  if (version == 0) {
    if (options.mode == SandboxMode::kRequired) {
      return FieldStatus(absl::StatusCode::kFailedPrecondition, "trainer-sandbox",
                         "this kernel has no Landlock",
                         "boot with lsm=landlock,…, or give --trainer-sandbox auto");
    }
    out->description_ = options.mode == SandboxMode::kOff
                            ? "trainers are not confined (--trainer-sandbox off)"
                            : "trainers are not confined: this kernel has no Landlock";
    return out;
  }
  out->on_ = true;
  if (roots.empty()) {
    out->read_ = {"/"};
    out->description_ = absl::StrCat(
        "trainers are confined (Landlock ", version,
        "): they write their attempt's folder; they read everything, for there is no --root");
    return out;
  }
  out->read_.assign(std::begin(kSystemFolders), std::end(kSystemFolders));
  for (const auto& [name, folder] : roots) out->read_.push_back(folder);
  out->read_.push_back(job_store);
  out->read_.push_back(FolderOf(options.trainer));
  // What its release brings for it (worker/trainer/device.cc).
  out->read_.push_back(FolderOf(options.trainer) + "/../share/ll");
  for (const std::string& folder : LibraryFolders(options.trainer)) out->read_.push_back(folder);
  for (const std::string& folder : options.extra_read) out->read_.push_back(folder);
  // Where object stores' credentials may lie (base/store_uri.h, storage/s3_config.h), and a table
  // of attention's own.
  for (const char* name :
       {"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_CA_BUNDLE", "LL_ATTENTION_TABLE"}) {
    if (const char* file = getenv(name); file != nullptr) out->read_.push_back(file);
  }
  if (const char* home = getenv("HOME"); home != nullptr)
    out->read_.push_back(absl::StrCat(home, "/.aws"));
  out->description_ =
      absl::StrCat("trainers are confined (Landlock ", version,
                   "): they write their attempt's folder and read the roots and the job store");
  return out;
}

absl::StatusOr<std::shared_ptr<const SandboxRules>> TrainerSandbox::RulesFor(
    const v1::JobSpec& spec, const std::string& out) const {
  if (!on_) return nullptr;
  Sandbox sandbox{.read = read_, .write = {out}};
  sandbox.write.insert(sandbox.write.end(), std::begin(kDevices), std::end(kDevices));
  if (absl::StartsWith(spec.merge_out(), "/")) sandbox.write.push_back(FolderOf(spec.merge_out()));
  if (spec.has_checkpoint_uri()) {
    const auto uri = ParseStoreUri("checkpoint_uri", spec.checkpoint_uri());
    if (uri.ok() && !uri->folder.empty()) {
      // Made now, so that only it is opened and not the folder above.
      LL_RETURN_IF_ERROR(MakeDirs(uri->folder));
      sandbox.write.push_back(uri->folder);
    }
  }
  LL_ASSIGN_OR_RETURN(SandboxRules rules, SandboxRules::Make(sandbox));
  return std::make_shared<const SandboxRules>(std::move(rules));
}

}  // namespace ll
