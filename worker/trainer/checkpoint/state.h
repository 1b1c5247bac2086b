// Between a checkpoint's files and the running training: model parameters and optimizer moments.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/llama.h"
#include "worker/trainer/checkpoint/writer.h"
#include "worker/trainer/optim/adamw.h"

namespace ll {

// Where snapshots are copied to: host memory that is kept from one checkpoint to the next, because
// the kernel takes several times longer to hand out fresh pages than a copy into known ones takes.
// Not thread-safe; the copies may be read on other threads.
class SnapshotBuffers {
 public:
  // The next snapshot begins: buffers that nobody holds any more are used again, in the same order.
  void Begin() { next_ = 0; }
  // A deep copy in host memory.
  at::Tensor Copy(const at::Tensor& tensor);

 private:
  std::vector<at::Tensor> buffers_;
  size_t next_ = 0;
};

// What this rank updates, as its file of a checkpoint holds it: masters and moments under
// "master.NAME", "exp_avg.NAME", "exp_avg_sq.NAME" in the parameters' shapes; of a parameter that
// ranks divide, flat under "master.NAME@BEGIN" …, elements from BEGIN on. Deep copies in
// `buffers`, or without any the tensors themselves, for a training that has ended.
NamedTensors OptimizerTensors(const std::vector<Parameter>& parameters, AdamWOptimizer& optimizer,
                              SnapshotBuffers* buffers);

// Copies a checkpoint's masters and moments into the model's compute copies and this rank's slices,
// whichever ranks wrote them. The checkpoint must have been verified. Errors name the tensor that
// is missing or does not fit.
absl::Status RestoreTensors(const std::string& checkpoint, Llama& model, AdamWOptimizer& optimizer);

// The fp32 masters of parameters (name, shape) from the ranks' files in `folder`, in that order.
absl::StatusOr<NamedTensors> ReadMasters(
    const std::string& folder,
    const std::vector<std::pair<std::string, std::vector<int64_t>>>& parameters);

}  // namespace ll
