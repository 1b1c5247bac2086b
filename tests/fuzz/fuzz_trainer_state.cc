// A checkpoint's trainer_state.json.
#include "base/check.h"
#include "tests/fuzz/fuzz.h"
#include "worker/trainer/checkpoint/trainer_state.h"

namespace ll {

void FuzzOne(absl::string_view input) {
  const auto state = ParseTrainerState(std::string(input));
  if (!state.ok()) return CheckRefusal(state.status());
  LL_CHECK(state->step >= 0 && state->rows_consumed >= 0 && state->tokens_consumed >= 0);
  LL_CHECK(state->spec.global_batch_size.has_value());
  TrainerStateToText(*state);
}

}  // namespace ll
