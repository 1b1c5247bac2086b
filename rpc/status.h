// absl::Status on both sides of a gRPC call, with the field and the hint of base/field_error.h.
//
// On the wire: status code and message as they are, and in the details a google.rpc.Status holding
// a google.rpc.BadRequest with one violation (the field) and a google.rpc.ErrorInfo whose metadata
// "hint" says what to do. A coordinator that does not lead adds an ErrorInfo with the reason
// NOT_LEADER, whose metadata "leader" says who does. Thread-safe.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace ll {

grpc::Status ToGrpcStatus(const absl::Status& status);
// Details that cannot be read are left out; code and message are kept.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace ll
