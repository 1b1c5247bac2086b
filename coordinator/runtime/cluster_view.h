// What admission needs to know about the cluster, as an immutable snapshot: so that requests are
// checked on their own threads and the driver only decides.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/core/types.h"

namespace ll {

struct ClusterView {
  std::vector<Worker> workers;  // seen within the last seven days; without uses
  std::map<std::string, ModelRecord> models;
  std::map<std::string, DataRecord> data;
};
using ClusterViewPtr = std::shared_ptr<const ClusterView>;

}  // namespace ll
