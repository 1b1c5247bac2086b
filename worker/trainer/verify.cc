#include "worker/trainer/verify.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/weights/safetensors.h"
#include "model/weights/tensor_io.h"
#include "worker/trainer/checkpoint/format.h"
#include "worker/trainer/checkpoint/peft.h"
#include "worker/trainer/checkpoint/state.h"
#include "worker/trainer/resume.h"

namespace ll {
namespace {

using Files = std::vector<std::shared_ptr<const SafetensorsFile>>;

absl::Status Refused(absl::string_view field, absl::string_view message, absl::string_view hint) {
  return FieldStatus(absl::StatusCode::kFailedPrecondition, field, message, hint);
}

absl::Status Check(const std::string& checkpoint) {
  return Annotate(VerifyCheckpoint(checkpoint), checkpoint);
}

// Of a plan: recomputed activations have the same bits as kept ones.
bool ChangesBits(const std::string& key) { return key != "recompute"; }

// Steps of the checkpoints beside `to` and before it, rising.
absl::StatusOr<std::vector<int64_t>> StepsBefore(const std::string& root, int64_t to_step) {
  std::vector<int64_t> steps;
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(root));
  for (const std::string& name : names) {
    if (const auto step = CheckpointStep(name); step && *step < to_step) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

// What is not the same at both ends, in words.
std::string Changes(const TrainerState& from, const TrainerState& to) {
  std::vector<std::string> changes;
  for (const std::string& difference : Differences(from.spec, to.spec)) {
    if (ChangesTraining(difference.substr(0, difference.find(':')))) changes.push_back(difference);
  }
  for (const auto& [key, value] : to.plan.items()) {
    const nlohmann::json before = from.plan.value(key, nlohmann::json());
    if (ChangesBits(key) && before != value)
      changes.push_back(absl::StrCat(key, ": ", before.dump(), " -> ", value.dump()));
  }
  return absl::StrJoin(changes, ", ");
}

absl::Status ChooseStart(const std::string& root, int64_t steps, VerifyWindow& window) {
  LL_ASSIGN_OR_RETURN(const std::vector<int64_t> before, StepsBefore(root, window.to_step));
  if (steps >= window.to_step) return absl::OkStatus();  // from the beginning
  const int64_t least = steps > 0 ? window.to_step - steps : before.empty() ? 0 : before.back();
  const auto start = std::lower_bound(before.begin(), before.end(), least);
  if (start == before.end()) {
    const int64_t needed = before.empty() ? window.to_step : window.to_step - before.back();
    return Refused(
        "max_steps",
        absl::StrCat("there is no checkpoint to begin at: the newest before step ", window.to_step,
                     " is ",
                     before.empty() ? "the beginning" : absl::StrCat("of step ", before.back())),
        absl::StrCat("verify ", needed, " steps or more"));
  }
  window.from_step = *start;
  window.from = absl::StrCat(root, "/", CheckpointName(*start));
  LL_RETURN_IF_ERROR(Check(window.from));
  LL_ASSIGN_OR_RETURN(const TrainerState state, ReadTrainerState(window.from));
  window.changed = Changes(state, window.to_state);
  if (!window.changed.empty() && std::next(start) != before.end()) {
    return Refused("max_steps",
                   absl::StrCat("the training changed within the window: ", window.changed),
                   absl::StrCat("verify the ", window.to_step - before.back(), " newest steps"));
  }
  return absl::OkStatus();
}

// Where two tensors' bytes part.
absl::Status CompareTensor(const Files& files, const std::string& name, const at::Tensor& mine,
                           VerifyCounts& counts) {
  for (const auto& file : files) {
    const TensorInfo* info = file->Find(name);
    if (info == nullptr) continue;
    LL_ASSIGN_OR_RETURN(const at::Tensor theirs, TensorView(file, *info));
    const at::Tensor ours = mine.detach().cpu().contiguous();
    if (theirs.sizes() != ours.sizes() || theirs.scalar_type() != ours.scalar_type()) {
      return MakeFieldError({name, "the shape and dtype of " + file->path(), "others"},
                            absl::StatusCode::kDataLoss);
    }
    counts.tensors += 1;
    counts.bytes += static_cast<int64_t>(ours.nbytes());
    if (std::memcmp(theirs.const_data_ptr(), ours.const_data_ptr(), ours.nbytes()) == 0)
      return absl::OkStatus();
    const at::Tensor apart =
        (theirs.to(at::kDouble) - ours.to(at::kDouble)).abs().nan_to_num(INFINITY).flatten();
    const int64_t at = apart.argmax().item<int64_t>();
    return MakeFieldError(
        {name, absl::StrCat("the bits of ", file->path()),
         absl::StrCat(apart.count_nonzero().item<int64_t>(), " of ", apart.numel(),
                      " elements that differ, most at ", at, ", by ", apart[at].item<double>()),
         "the run that wrote it and this one did not compute the same: suspect the host of one of "
         "them; verify again on another"},
        absl::StatusCode::kDataLoss);
  }
  return MakeFieldError({name, "a tensor of the checkpoint", "none"}, absl::StatusCode::kDataLoss);
}

absl::StatusOr<Files> OpenFiles(const std::string& checkpoint) {
  Files files;
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(checkpoint));
  for (const std::string& name : names) {
    if (!absl::EndsWith(name, ".safetensors")) continue;
    LL_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(checkpoint + "/" + name));
    files.push_back(std::move(file));
  }
  return files;
}

}  // namespace

absl::StatusOr<VerifyWindow> FindVerifyWindow(const std::string& to, int64_t steps) {
  VerifyWindow window;
  std::filesystem::path path = std::filesystem::path(to).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  window.to = path.string();
  const auto step = CheckpointStep(path.filename().string());
  if (!step)
    return MakeFieldError({"adapter", "a checkpoint's folder, …/checkpoints/step-NNNNNN", to});
  window.to_step = *step;
  LL_RETURN_IF_ERROR(Check(window.to));
  LL_ASSIGN_OR_RETURN(window.to_state, ReadTrainerState(window.to));
  if (window.to_state.step != window.to_step) {
    return MakeFieldError({window.to, absl::StrCat("the state of step ", window.to_step),
                           absl::StrCat("that of step ", window.to_state.step)},
                          absl::StatusCode::kFailedPrecondition);
  }
  LL_RETURN_IF_ERROR(ChooseStart(path.parent_path().string(), steps, window));
  return window;
}

JobSpec SpecToVerify(const VerifyWindow& window) {
  JobSpec spec = window.to_state.spec;
  spec.checkpoint_uri.reset();
  spec.save_steps = 0;
  spec.eval_steps = 0;  // evaluation changes no bit of a training
  spec.passkey_lengths.clear();
  spec.early_stopping_patience = 0;
  return spec;
}

absl::Status CheckSamePlan(const VerifyWindow& window, const nlohmann::json& plan) {
  for (const auto& [key, value] : window.to_state.plan.items()) {
    const nlohmann::json now = plan.value(key, nlohmann::json());
    if (!ChangesBits(key) || now == value) continue;
    return Refused("plan",
                   absl::StrCat(key, " was ", value.dump(), " and is ", now.dump(),
                                ": another plan gives other bits, which would prove nothing"),
                   "verify where the training ran, with as many ranks and threads");
  }
  return absl::OkStatus();
}

absl::StatusOr<VerifyCounts> CompareWithCheckpoint(const std::string& checkpoint, bool tied_head,
                                                   bool full, Llama& model,
                                                   AdamWOptimizer& optimizer) {
  VerifyCounts counts;
  LL_ASSIGN_OR_RETURN(const Files files, OpenFiles(checkpoint));
  NamedTensors mine = OptimizerTensors(model.parameters(), optimizer, /*buffers=*/nullptr);
  if (full) {
    for (const Parameter& parameter : model.parameters())
      mine.emplace_back(parameter.name, parameter.compute);
  } else {
    // The adapter against the checkpoint's own masters, of which this rank compares its part.
    std::vector<std::pair<std::string, std::vector<int64_t>>> shapes;
    for (const Parameter& parameter : model.parameters())
      shapes.emplace_back(parameter.name, parameter.compute.sizes().vec());
    LL_ASSIGN_OR_RETURN(const NamedTensors masters, ReadMasters(checkpoint, shapes));
    for (auto& [name, tensor] : PeftTensors(masters, tied_head)) mine.emplace_back(name, tensor);
  }
  for (const auto& [name, tensor] : mine)
    LL_RETURN_IF_ERROR(CompareTensor(files, name, tensor, counts));
  return counts;
}

}  // namespace ll
