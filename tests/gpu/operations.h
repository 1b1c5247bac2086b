// The kernels that a GPU has (kernels/ops.h), each with inputs and the same arithmetic in plain
// torch: what kernels_check judges and times.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <ATen/ATen.h>

namespace ll::gpu {

using Tensors = std::vector<at::Tensor>;

struct Shape {
  int64_t rows, width;
};

struct Operation {
  std::string name;
  // Drawn on `device` from fixed seeds; what the model has in its compute type is in `type`.
  std::function<Tensors(at::ScalarType type, Shape shape, at::Device device)> inputs;
  // The results by torch's own operations, as transformers and torch.optim write them: rounded
  // where they round. Of inputs in fp64 everything is in fp64.
  std::function<Tensors(const Tensors& inputs)> plain;
  // This project's kernel, ready to run: inputs that it overwrites are its own copies, outputs that
  // it must write are full of NaN. Each call returns all that was written, in `plain`'s order.
  std::function<std::function<Tensors()>(const Tensors& inputs)> prepare;
  // Bytes that must move for an element of rows x width whose type has `element` bytes: each input
  // read once, each output written once.
  std::function<double(double element)> bytes_an_element;
  Shape large;  // fills a GPU
  bool fp32_only = false;
  bool product = false;  // a matrix product: not judged by a copy's speed
};

// NF4's are not among them: its bytes are compared one by one (kernels/nf4/nf4_cuda_check).
const std::vector<Operation>& Operations();

// Full of NaN, in the middle of more of it: UntouchedAround tells whether that still stands.
at::Tensor Poison(at::IntArrayRef shape, const at::TensorOptions& options);
bool UntouchedAround(const at::Tensor& poison);

}  // namespace ll::gpu
