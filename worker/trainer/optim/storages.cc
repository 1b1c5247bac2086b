#include "worker/trainer/optim/storages.h"

#include <map>

namespace ll {

Storages::Storages(const std::vector<at::Tensor>& tensors) {
  std::map<const c10::StorageImpl*, size_t> seen;
  for (const at::Tensor& tensor : tensors) {
    const auto [entry, added] =
        seen.emplace(tensor.storage().unsafeGetStorageImpl(), storages_.size());
    if (added) {
      storages_.push_back(tensor.storage());
      bytes_.push_back(tensor.storage().nbytes());
    }
    index_of_.push_back(entry->second);
  }
}

void Storages::Allocate(size_t index) {
  at::Storage& storage = storages_[index];
  if (storage.nbytes() == bytes_[index]) return;
  storage.set_data_ptr_noswap(storage.allocator()->allocate(bytes_[index]));
  storage.set_nbytes(bytes_[index]);
  at::empty({0}, at::TensorOptions(storage.device()).dtype(at::kByte))
      .set_(storage, 0, {static_cast<int64_t>(bytes_[index])}, {1})
      .zero_();
}

void Storages::Free(size_t index) {
  at::Storage& storage = storages_[index];
  if (storage.nbytes() == 0) return;
  storage.set_data_ptr_noswap(storage.allocator()->allocate(0));
  storage.set_nbytes(0);
}

}  // namespace ll
