// What every request's parts are checked for before anything is looked at. Errors name `field`.
#pragma once

#include <google/protobuf/field_mask.pb.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/job.pb.h"

namespace ll {

// 1 to 64 letters, digits, '.', '_' or '-': safe in labels, paths and messages.
absl::Status CheckPlainName(absl::string_view field, const std::string& name);

// Printable characters without spaces, at most `max_bytes`; empty: none was given.
absl::Status CheckRequestId(const std::string& id, size_t max_bytes);

// Users choose 0 to 100; below everybody else's and above is for administrators. PermissionDenied.
absl::Status CheckPriority(const v1::JobSpec& spec, bool admin);

// PermissionDenied where `queues` holds names and the spec's queue is none of them.
absl::Status CheckQueue(const v1::JobSpec& spec, const std::vector<std::string>& queues);

// The field mask of a read: paths of fields of `message`; "*" and none are all. InvalidArgument
// (field "read_mask"), with the path.
absl::Status CheckReadMask(const google::protobuf::FieldMask& mask,
                           const google::protobuf::Descriptor& message);
// Leaves of `message` what a checked mask names.
void ApplyReadMask(const google::protobuf::FieldMask& mask, google::protobuf::Message& message);

absl::Status CheckSpecSize(const v1::JobSpec& spec);

// Name and labels, which travel with every answer about the job: at most 256 bytes, and 64 labels
// of at most 128 and 1024 bytes, all without control characters.
absl::Status CheckTexts(const v1::JobSpec& spec);

}  // namespace ll
