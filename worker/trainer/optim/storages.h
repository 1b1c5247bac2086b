// Memory that comes and goes under tensors that stay: views of a storage remain valid names for
// whatever memory it has when they are used next.
#pragma once

#include <vector>

#include <ATen/ATen.h>

namespace ll {

// The distinct storages under some tensors (parts of a stacked weight share one). Not thread-safe.
class Storages {
 public:
  Storages() = default;
  // Every tensor's storage has its memory.
  explicit Storages(const std::vector<at::Tensor>& tensors);

  size_t size() const { return storages_.size(); }
  // Of the i-th tensor.
  size_t IndexOf(size_t tensor) const { return index_of_[tensor]; }
  // Gives a storage its memory back, all zero; nothing where it has it.
  void Allocate(size_t index);
  // A tensor in it must not be read or written until Allocate.
  void Free(size_t index);

 private:
  std::vector<at::Storage> storages_;
  std::vector<size_t> bytes_;
  std::vector<size_t> index_of_;
};

}  // namespace ll
