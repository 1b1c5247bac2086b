// A small model's step on one device against the same step elsewhere.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/llama.h"
#include "nlohmann/json.hpp"

namespace ll::gpu {

struct ModelCase {
  std::string name;
  LlamaConfig config;
  ModelOptions options;
  AttentionSpec attention;
  int64_t tokens = 0;
  std::vector<std::pair<int64_t, int64_t>> documents;
};

// Every method, kind of attention and memory policy, tied and untied heads, grouped heads, packed
// and ragged rows, norms of heads, biases.
const std::vector<ModelCase>& ModelCases();

struct ModelStep {
  double loss = 0;
  std::vector<std::pair<std::string, at::Tensor>> gradients;  // fp32, on the CPU
};

// One forward and backward pass with random weights, the same on every device. Errors: the
// model's.
absl::StatusOr<ModelStep> RunModelStep(const ModelCase& c, at::Device device);

// Loss and gradients of `got` beside those of `expected`: {"loss_error", "gradient_error",
// "worst": its parameter, "status": ok or wrong}. Errors are relative, a gradient's by norm.
nlohmann::ordered_json CompareSteps(const ModelCase& c, const ModelStep& got,
                                    const ModelStep& expected);

// Every case on the GPU against the CPU; whether all are ok.
bool CheckModels(const std::function<void(const nlohmann::ordered_json&)>& write);

}  // namespace ll::gpu
