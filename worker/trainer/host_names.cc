#include "worker/trainer/host_names.h"

#include <unistd.h>

#include "base/status_macros.h"

namespace ll {

absl::StatusOr<std::vector<std::string>> HostNames(Comm& comm) {
  constexpr int64_t kLength = 64;
  char name[kLength] = "";
  gethostname(name, kLength - 1);
  // Characters as numbers: a sum is what the ranks can do together.
  const at::Tensor all = at::zeros({comm.world_size(), kLength}, at::kFloat);
  float* mine = all.mutable_data_ptr<float>() + comm.rank() * kLength;
  for (int64_t i = 0; i < kLength; ++i) mine[i] = static_cast<unsigned char>(name[i]);
  LL_RETURN_IF_ERROR(comm.AllReduceSum({all}));
  std::vector<std::string> names;
  for (int rank = 0; rank < comm.world_size(); ++rank) {
    const float* letters = all.const_data_ptr<float>() + rank * kLength;
    std::string text;
    for (int64_t i = 0; i < kLength && letters[i] > 0; ++i)
      text.push_back(static_cast<char>(static_cast<unsigned char>(letters[i])));
    names.push_back(text);
  }
  return names;
}

}  // namespace ll
