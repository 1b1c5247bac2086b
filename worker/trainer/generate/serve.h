// A job of kind generate: a rank that answers the messages it is given until it is stopped.
#pragma once

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "model/spec/job_spec.h"
#include "worker/trainer/control.h"
#include "worker/trainer/event_sink.h"

namespace ll {

// Nobody said anything for this long: the slot is given back.
inline constexpr absl::Duration kServeIdle = absl::Minutes(15);

// Loads the model, says so (phase `generate`), and answers each {"say": request} of the control
// channel (generate/chat_request.h) with `token` events and one `answer` event, which holds
// `error` where the request was refused. Returns at SIGTERM (kExitStopped) or after `idle` (0, with
// a `done` event). Errors: the model cannot be loaded.
absl::StatusOr<int> ServeChat(const JobSpec& resolved, ControlChannel& control, EventSink& events,
                              Clock& clock, absl::Duration idle = kServeIdle);

}  // namespace ll
