// The flags of `submit` and `plan`: one for every key of the job spec, made from the table in
// model/spec.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/spec/job_spec.h"
#include "proto/job.pb.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace ll {

class SpecFlags {
 public:
  // Adds the keys' flags, -f and --set. `this` must outlive the parse.
  void AddTo(CLI::App& app);

  // The file's keys, over them the flags', over them --set's; checked as far as this side can.
  // Names of files that exist here become absolute paths. `notes` gets a sentence for every key of
  // the file that was left out.
  absl::StatusOr<JobSpec> Build(std::vector<std::string>* notes) const;

 private:
  std::string file_;
  std::vector<std::string> sets_;                              // key=value
  std::vector<std::pair<std::string, CLI::Option*>> options_;  // by key; owned by the app
};

// A flag of another command that sets `key` of the spec: what it is given is put into `keys`, which
// must outlive the parse.
CLI::Option* AddKeyFlag(CLI::App& command, std::map<std::string, std::string>& keys,
                        const char* flag, const char* key, const char* type, const char* help);

// Relative paths of the spec that exist on this machine become absolute: the coordinator and the
// workers have other working folders. A value with neither a slash nor a dot is a registered name
// and stays.
void MakePathsAbsolute(JobSpec& spec);

// The same keys and values as a message. The spec is one that Validate accepts.
absl::StatusOr<v1::JobSpec> SpecToProto(const JobSpec& spec);

}  // namespace ll
