#include "llctl/result.h"

#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/progress.h"
#include "llctl/proto_json.h"
#include "model/report/eval_report.h"

namespace ll {

void PrintJobResult(const v1::Job& job, Session& session) {
  Output& output = session.output();
  nlohmann::ordered_json value = ProtoToJson(job.result());
  if (output.format() == OutputFormat::kName) {
    output.stream() << job.job_id() << "\n";
  } else if (output.is_table()) {
    EvalReport report = ReportOf(value);
    report.fields.insert(report.fields.begin(), {"job", job.job_id()});
    output.PrintFields(report.fields);
    for (const ReportTable& rows : report.tables) {
      output.stream() << "\n" << rows.title << "\n";
      Table table(rows.header);
      for (const std::vector<std::string>& row : rows.rows) table.Add(row);
      output.PrintTable(table);
    }
  } else {
    value["job_id"] = job.job_id();
    output.PrintValue(value);
  }
}

absl::StatusOr<int> AwaitResult(const std::string& job_id, const std::string& what,
                                Session& session,
                                const std::function<absl::Status(const v1::Job&)>& on_success) {
  ProgressPrinter contact_only(session, /*quiet=*/true);
  LL_ASSIGN_OR_RETURN(Followed followed, FollowJob(session, job_id, /*from_step=*/0, contact_only));
  if (followed.detached) {
    session.talk() << "llctl: detached; the " << what << " goes on (llctl get " << job_id << ")\n";
    return kExitDetached;
  }
  if (followed.job.state() != v1::SUCCEEDED) {
    session.talk() << "llctl: " << JobLine(followed.job, session.output()) << "\n";
    return ExitCodeOf(followed.job.state());
  }
  LL_RETURN_IF_ERROR(on_success(followed.job));
  return kExitSuccess;
}

}  // namespace ll
