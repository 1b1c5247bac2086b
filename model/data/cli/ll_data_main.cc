// ll-data: what `llctl data pack` and `llctl data doctor` run (docs/decisions/006-data-program.md).
//
// Prints one JSON object: {"result": …, "text": …} (`text` for people), or {"error": {"code",
// "field", "message", "hint"}} with the number of an absl::StatusCode. Progress and warnings go to
// stderr.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <sstream>

#include "base/counted.h"
#include "base/field_error.h"
#include "base/format.h"
#include "model/data/cli/data_commands.h"

namespace {

using nlohmann::ordered_json;

ordered_json ErrorJson(const absl::Status& status) {
  return {{"error",
           {{"code", static_cast<int>(status.code())},
            {"field", ll::ErrorField(status)},
            {"message", std::string(status.message())},
            {"hint", ll::ErrorHint(status)}}}};
}

ordered_json Pack(const ll::PackFlags& flags) {
  const auto result = ll::RunPack(flags, {std::cerr, isatty(STDERR_FILENO) != 0});
  if (!result.ok()) return ErrorJson(result.status());
  if (result->is_null()) return {{"result", nullptr}, {"text", flags.train_tokenizer + "\n"}};
  return {{"result", *result},
          {"text", flags.output + ": " + ll::Counted((*result)["tokens"], "token") + " in " +
                       ll::Counted((*result)["documents"], "document") + "\n"}};
}

ordered_json Doctor(const ll::DoctorFlags& flags, bool color) {
  const auto report = ll::RunDoctor(flags);
  if (!report.ok()) return ErrorJson(report.status());
  std::ostringstream text;
  ll::PrintDoctorReport(*report, color, text);
  return {{"result", ll::DoctorJson(*report)}, {"text", text.str()}};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Makes and examines training data; llctl data is the way to run this.");
  app.require_subcommand(1);
  bool color = false;
  app.add_flag("--color", color, "Colours in the text");
  ll::PackFlags pack;
  ll::DoctorFlags doctor;
  CLI::App* pack_command = app.add_subcommand("pack", "Turns text into a token file");
  ll::AddPackFlags(*pack_command, pack);
  ll::AddDoctorFlags(*app.add_subcommand("doctor", "Says what training data hold"), doctor);
  CLI11_PARSE(app, argc, argv);
  const ordered_json out = pack_command->parsed() ? Pack(pack) : Doctor(doctor, color);
  std::printf("%s\n", out.dump(-1, ' ', false, ordered_json::error_handler_t::replace).c_str());
  return 0;
}
