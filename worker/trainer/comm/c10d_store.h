// The c10d store behind RendezvousStore, for the transports.
#pragma once

#include <exception>
#include <new>
#include <string>
#include <utility>

#include <torch/csrc/distributed/c10d/Store.hpp>

#include "absl/strings/str_cat.h"
#include "worker/trainer/comm/comm.h"

namespace ll {

class C10dStore : public RendezvousStore {
 public:
  explicit C10dStore(c10::intrusive_ptr<c10d::Store> store) : store_(std::move(store)) {}
  const c10::intrusive_ptr<c10d::Store>& store() const { return store_; }

 private:
  c10::intrusive_ptr<c10d::Store> store_;
};

// Runs a c10d call; what it throws becomes Unavailable (a peer or the network failed) with `what`
// in front. Inline because libll_cuda.so needs it too.
template <typename Call>
absl::Status C10dTry(const std::string& what, Call&& call) {
  try {
    call();
    return absl::OkStatus();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat(what, ": out of memory"));
  } catch (const std::exception& error) {
    // The first line says it; what follows is a backtrace.
    const std::string text = error.what();
    return absl::UnavailableError(absl::StrCat(what, ": ", text.substr(0, text.find('\n'))));
  }
}

}  // namespace ll
