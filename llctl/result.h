// The result of a finished job that was waited for: eval and merge.
#pragma once

#include "llctl/session.h"
#include "proto/job.pb.h"

namespace ll {

// On stdout in the session's format: the job's id and its result (model/report/eval_report.h).
void PrintJobResult(const v1::Job& job, Session& session);

}  // namespace ll
