#include "base/background.h"

#include <sys/resource.h>
#include <unistd.h>

namespace ll {

void StayInBackground() {
  constexpr int kLowest = 19;
  setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kLowest);
}

}  // namespace ll
