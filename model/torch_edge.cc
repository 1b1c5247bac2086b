#include "model/torch_edge.h"

#include <new>
#include <string>

#include <c10/util/Exception.h>

#include "absl/strings/str_cat.h"

namespace ll {

absl::Status TorchTry(const std::function<absl::Status()>& work) {
  try {
    return work();
  } catch (const c10::OutOfMemoryError& e) {
    return absl::ResourceExhaustedError(
        absl::StrCat("out of memory: ", e.what_without_backtrace()));
  } catch (const c10::Error& e) {
    const std::string what = e.what_without_backtrace();
    const std::string first_line = what.substr(0, what.find('\n'));
    if (SaysOutOfMemory(what))
      return absl::ResourceExhaustedError(absl::StrCat("out of memory: ", first_line));
    return absl::InternalError(absl::StrCat("torch: ", first_line));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("torch: ", e.what()));
  }
}

}  // namespace ll
