// The table of a job's keys as JSON, for docs/reference/spec.md (generate.py).
#include <cstdio>
#include <nlohmann/json.hpp>

#include "model/spec/spec_fields.h"

int main() {
  nlohmann::json out = nlohmann::json::array();
  for (const ll::SpecField& field : ll::SpecFields()) {
    out.push_back({{"name", field.name},
                   {"takes", ll::DescribeType(field)},
                   {"default", field.default_value},
                   {"help", field.help},
                   {"aliases", field.aliases}});
  }
  std::puts(out.dump().c_str());
}
