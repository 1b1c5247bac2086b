#include "worker/trainer/checkpoint/contents.h"

#include <string>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "worker/trainer/checkpoint/format.h"
#include "worker/trainer/checkpoint/peft.h"

namespace ll {
namespace {

bool IsFull(const Training& training) { return *training.spec.method == "full"; }

NamedTensors ComputeWeights(Llama& model, SnapshotBuffers* buffers) {
  NamedTensors weights;
  for (const Parameter& parameter : model.parameters()) {
    const at::Tensor& weight = parameter.compute;
    weights.emplace_back(parameter.name, buffers != nullptr ? buffers->Copy(weight)
                                         : weight.is_cuda() ? weight.cpu()
                                                            : weight);
  }
  return weights;
}

// All but masters and moments, and the adapter that is made of the masters.
CheckpointContents Describe(const Training& training, Llama& model, const TrainerState& state,
                            SnapshotBuffers* buffers) {
  CheckpointContents contents;
  contents.step = state.step;
  contents.hurry = buffers == nullptr;
  if (IsFull(training)) {
    contents.copied_files = training.tokenizer_files;
    contents.tensor_files.emplace_back("model.safetensors", ComputeWeights(model, buffers));
  } else {
    contents.text_files.emplace_back(
        kAdapterConfigFile,
        PeftConfig(training.options.lora, training.options.train_embedding,
                   training.options.train_norm, training.config.tie_word_embeddings,
                   training.spec.model.value_or(""))
            .dump(1));
  }
  contents.text_files.emplace_back("config.json", LlamaConfigToJson(training.config).dump(1));
  contents.text_files.emplace_back(kTrainerStateFile, TrainerStateToText(state));
  return contents;
}

}  // namespace

CheckpointContents WholeContents(const Training& training, Llama& model, AdamWOptimizer& optimizer,
                                 const TrainerState& state, SnapshotBuffers* buffers) {
  CheckpointContents contents = Describe(training, model, state, buffers);
  NamedTensors tensors = OptimizerTensors(model.parameters(), optimizer, buffers);
  if (!IsFull(training)) {
    NamedTensors masters;
    for (size_t i = 0; i < model.parameters().size(); ++i)
      masters.emplace_back(model.parameters()[i].name, tensors[3 * i].second);
    contents.tensor_files.emplace_back(kAdapterFile,
                                       PeftTensors(masters, training.config.tie_word_embeddings));
  }
  contents.tensor_files.emplace_back(OptimizerFileName(0, 1), std::move(tensors));
  return contents;
}

CheckpointContents ContentsBesidesParts(const Training& training, Llama& model,
                                        const TrainerState& state, SnapshotBuffers* buffers) {
  CheckpointContents contents = Describe(training, model, state, buffers);
  contents.has_parts = true;
  if (IsFull(training)) return contents;
  std::vector<std::pair<std::string, std::vector<int64_t>>> shapes;
  for (const Parameter& parameter : model.parameters())
    shapes.emplace_back(parameter.name, parameter.compute.sizes().vec());
  contents.derived_files.emplace_back(
      kAdapterFile,
      [shapes, tied = training.config.tie_word_embeddings](
          const std::string& folder) -> absl::StatusOr<NamedTensors> {
        LL_ASSIGN_OR_RETURN(const NamedTensors masters, ReadMasters(folder, shapes));
        return PeftTensors(masters, tied);
      });
  return contents;
}

}  // namespace ll
