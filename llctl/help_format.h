// How --help looks: one line of flags and a description that wraps at 100 columns.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace ll {

class HelpFormat : public CLI::Formatter {
 public:
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
};

}  // namespace ll
