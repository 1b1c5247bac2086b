// Which checkpoints stay when a newer one has been written: the spec's save_total_limit and
// save_keep_every. Torch-free.
#pragma once

#include <cstdint>
#include <vector>

namespace ll {

struct Retention {
  int64_t total_limit = 0;  // the newest so many stay; 0: all do
  int64_t keep_every = 0;   // multiples of so many steps stay whatever the limit; 0: none
};

// Whether a checkpoint stays only because its step is a multiple of keep_every.
bool KeptForEver(const Retention& retention, int64_t step);

// Of whole checkpoints' `steps`, in any order and each once, those that go. The newest never does.
std::vector<int64_t> StepsToRemove(const Retention& retention, std::vector<int64_t> steps);

}  // namespace ll
