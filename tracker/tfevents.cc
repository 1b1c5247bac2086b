#include "tracker/tfevents.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/crc32c.h"
#include "proto/tfevents.pb.h"

namespace ll {
namespace {

// A sum of data that hold sums is no good sum: TensorFlow rotates it and adds a constant.
uint32_t MaskedCrc32c(absl::string_view bytes) {
  const uint32_t crc = Crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

std::string LittleEndian(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
  return out;
}

double UnixSeconds(absl::Time time) { return absl::ToDoubleSeconds(time - absl::UnixEpoch()); }

}  // namespace

std::string TfRecord(absl::string_view data) {
  const std::string length = LittleEndian(data.size(), 8);
  return absl::StrCat(length, LittleEndian(MaskedCrc32c(length), 4), data,
                      LittleEndian(MaskedCrc32c(data), 4));
}

std::string TfEventsHeader(absl::Time time) {
  tensorboard::Event event;
  event.set_wall_time(UnixSeconds(time));
  event.set_file_version("brain.Event:2");
  return TfRecord(event.SerializeAsString());
}

std::string TfScalars(absl::Time time, int64_t step,
                      const std::vector<std::pair<std::string, double>>& values) {
  if (values.empty()) return "";
  tensorboard::Event event;
  event.set_wall_time(UnixSeconds(time));
  event.set_step(step);
  for (const auto& [tag, value] : values) {
    tensorboard::Summary::Value& entry = *event.mutable_summary()->add_value();
    entry.set_tag(tag);
    entry.set_simple_value(static_cast<float>(value));
  }
  return TfRecord(event.SerializeAsString());
}

std::string TfEventsFileName(absl::Time time, absl::string_view suffix) {
  return absl::StrFormat("events.out.tfevents.%010d.%s", absl::ToUnixSeconds(time), suffix);
}

}  // namespace ll
