// The job spec as the trainer reads it. Thread-safe functions.
#pragma once

#include <string>

#include "proto/job.pb.h"

namespace ll {

// The given keys under their own names, as one JSON object. Unlike Protobuf's own mapping, 64-bit
// integers are written as numbers: the file is read by people and by parsers that know no Protobuf.
std::string SpecToJson(const v1::JobSpec& spec);

}  // namespace ll
