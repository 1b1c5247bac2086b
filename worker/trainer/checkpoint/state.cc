#include "worker/trainer/checkpoint/state.h"

#include <algorithm>
#include <map>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/torch_edge.h"
#include "model/weights/tensor_io.h"
#include "worker/trainer/checkpoint/format.h"

namespace ll {
namespace {

// The tensors of all ranks' files of a checkpoint, in whatever pieces they were written.
class SavedTensors {
 public:
  static absl::StatusOr<SavedTensors> Open(const std::string& folder);

  // That the pieces of `name` make up a tensor of that shape.
  absl::Status Check(const std::string& name, at::IntArrayRef shape) const;
  // Copies elements [begin, begin + to.numel()) of a checked tensor to `to`, flat, of any dtype.
  absl::Status Read(const std::string& name, int64_t begin, at::Tensor to) const;

 private:
  struct Saved {
    int64_t begin = 0;
    bool whole = false;
    std::shared_ptr<const SafetensorsFile> file;
    const TensorInfo* info = nullptr;
  };
  static int64_t Elements(const Saved& piece) {
    int64_t elements = 1;
    for (int64_t size : piece.info->shape) elements *= size;
    return elements;
  }

  std::string folder_;
  std::map<std::string, std::vector<Saved>> pieces_;
};

absl::StatusOr<SavedTensors> SavedTensors::Open(const std::string& folder) {
  SavedTensors saved;
  saved.folder_ = folder;
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(folder));
  for (const std::string& name : names) {
    if (!IsOptimizerFileName(name)) continue;
    LL_ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(folder + "/" + name));
    for (const TensorInfo& info : file->tensors()) {
      const std::vector<std::string> parts = absl::StrSplit(info.name, absl::MaxSplits('@', 1));
      Saved piece{0, parts.size() == 1, file, &info};
      if (!piece.whole && !absl::SimpleAtoi(parts[1], &piece.begin))
        return MakeFieldError({file->path(), "tensors named NAME or NAME@BEGIN", info.name});
      saved.pieces_[parts[0]].push_back(std::move(piece));
    }
  }
  for (auto& [name, pieces] : saved.pieces_) {
    std::sort(pieces.begin(), pieces.end(),
              [](const Saved& a, const Saved& b) { return a.begin < b.begin; });
  }
  return saved;
}

absl::Status SavedTensors::Check(const std::string& name, at::IntArrayRef shape) const {
  const auto found = pieces_.find(name);
  if (found == pieces_.end()) return MakeFieldError({folder_, "tensor " + name, "none"});
  int64_t end = 0;
  bool fits = true;
  for (const Saved& piece : found->second) {
    fits = fits && piece.begin == end && piece.info->dtype == Dtype::kF32 &&
           (!piece.whole || at::IntArrayRef(piece.info->shape) == shape);
    end += Elements(piece);
  }
  if (fits && end == c10::multiply_integers(shape)) return absl::OkStatus();
  return MakeFieldError({folder_, absl::StrCat(name, " as this job's spec makes it"),
                         "another shape or dtype, or a part of it"});
}

absl::Status SavedTensors::Read(const std::string& name, int64_t begin, at::Tensor to) const {
  const int64_t end = begin + to.numel();
  for (const Saved& piece : pieces_.at(name)) {
    const int64_t first = std::max(begin, piece.begin),
                  last = std::min(end, piece.begin + Elements(piece));
    if (first >= last) continue;
    LL_ASSIGN_OR_RETURN(const at::Tensor view, TensorView(piece.file, *piece.info));
    to.narrow(0, first - begin, last - first)
        .copy_(view.view({-1}).narrow(0, first - piece.begin, last - first));
  }
  return absl::OkStatus();
}

}  // namespace

at::Tensor SnapshotBuffers::Copy(const at::Tensor& tensor) {
  if (next_ == buffers_.size()) buffers_.emplace_back();
  at::Tensor& buffer = buffers_[next_++];
  // Held by nobody else, neither itself nor a view of it.
  const bool usable = buffer.defined() && buffer.use_count() == 1 &&
                      buffer.storage().use_count() == 1 && buffer.sizes() == tensor.sizes() &&
                      buffer.dtype() == tensor.dtype();
  if (!usable) buffer = at::empty(tensor.sizes(), tensor.options().device(at::kCPU));
  buffer.copy_(tensor);
  return buffer;
}

NamedTensors OptimizerTensors(const std::vector<Parameter>& parameters, AdamWOptimizer& optimizer,
                              SnapshotBuffers* buffers) {
  NamedTensors tensors;
  for (size_t i = 0; i < optimizer.slices().size(); ++i) {
    const Slice& slice = optimizer.slices()[i];
    const at::Tensor& compute = parameters[slice.parameter].compute;
    const bool whole = slice.begin == 0 && slice.end == compute.numel();
    const std::string name = whole
                                 ? parameters[slice.parameter].name
                                 : absl::StrCat(parameters[slice.parameter].name, "@", slice.begin);
    const auto add = [&](const char* kind, const at::Tensor& flat) {
      const at::Tensor t = whole ? flat.view(compute.sizes()) : flat;
      // The writer reads host memory.
      tensors.emplace_back(absl::StrCat(kind, name), buffers != nullptr ? buffers->Copy(t)
                                                     : t.is_cuda()      ? t.cpu()
                                                                        : t);
    };
    add("master.", slice.master);
    add("exp_avg.", optimizer.exp_avg()[i]);
    add("exp_avg_sq.", optimizer.exp_avg_sq()[i]);
  }
  return tensors;
}

absl::Status RestoreTensors(const std::string& checkpoint, Llama& model,
                            AdamWOptimizer& optimizer) {
  LL_ASSIGN_OR_RETURN(const SavedTensors saved, SavedTensors::Open(checkpoint));
  return TorchTry([&]() -> absl::Status {
    const std::vector<Parameter>& parameters = model.parameters();
    for (const Parameter& parameter : parameters) {
      for (const char* kind : {"master.", "exp_avg.", "exp_avg_sq."})
        LL_RETURN_IF_ERROR(saved.Check(kind + parameter.name, parameter.compute.sizes()));
      LL_RETURN_IF_ERROR(saved.Read("master." + parameter.name, 0, parameter.compute.view({-1})));
    }
    for (size_t i = 0; i < optimizer.slices().size(); ++i) {
      const Slice& slice = optimizer.slices()[i];
      const std::string& name = parameters[slice.parameter].name;
      LL_RETURN_IF_ERROR(saved.Read("master." + name, slice.begin, slice.master));
      LL_RETURN_IF_ERROR(saved.Read("exp_avg." + name, slice.begin, optimizer.exp_avg()[i]));
      LL_RETURN_IF_ERROR(saved.Read("exp_avg_sq." + name, slice.begin, optimizer.exp_avg_sq()[i]));
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<NamedTensors> ReadMasters(
    const std::string& folder,
    const std::vector<std::pair<std::string, std::vector<int64_t>>>& parameters) {
  LL_ASSIGN_OR_RETURN(const SavedTensors saved, SavedTensors::Open(folder));
  NamedTensors masters;
  const absl::Status read = TorchTry([&]() -> absl::Status {
    for (const auto& [name, shape] : parameters) {
      LL_RETURN_IF_ERROR(saved.Check("master." + name, shape));
      const at::Tensor master = at::empty(shape, at::kFloat);
      LL_RETURN_IF_ERROR(saved.Read("master." + name, 0, master.view({-1})));
      masters.emplace_back(name, master);
    }
    return absl::OkStatus();
  });
  LL_RETURN_IF_ERROR(read);
  return masters;
}

}  // namespace ll
