#include "base/counted.h"

#include "absl/strings/str_cat.h"
#include "base/format.h"

namespace ll {

std::string Counted(int64_t count, absl::string_view noun) {
  return absl::StrCat(HumanCount(count), " ", noun, count == 1 ? "" : "s");
}

}  // namespace ll
