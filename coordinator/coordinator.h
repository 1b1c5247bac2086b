// The whole coordinator in one object: store, driver, services, HTTP. main() makes one; tests make
// several.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "coordinator/options.h"
#include "coordinator/store/store.h"

namespace ll {

class Coordinator {
 public:
  // Recovers and serves. Errors are one line and name the flag: options that do not go together, a
  // port in use, a data folder that is locked or damaged, unreadable PEM or tokens files.
  // `wrap_store`: tests put a failing store around the real one; null otherwise.
  using WrapStore = std::function<std::unique_ptr<Store>(std::unique_ptr<Store>)>;
  static absl::StatusOr<std::unique_ptr<Coordinator>> Start(const CoordinatorOptions& options,
                                                            Clock& clock,
                                                            WrapStore wrap_store = nullptr);
  // Stops within about two seconds; running jobs go on without contact.
  virtual ~Coordinator() = default;

  // "HOST:PORT" with the real ports.
  virtual std::string grpc_address() const = 0;
  virtual std::string http_address() const = 0;

  // Calls back soon, once, from the thread that decides: a loop that hangs does not.
  virtual void Probe(std::function<void()> answer) = 0;
};

}  // namespace ll
