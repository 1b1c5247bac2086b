#include "llctl/result.h"

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

}  // namespace ll
