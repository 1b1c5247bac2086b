// Manual pages (man(7)), made from the command line's own description. Pure functions.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace ll {

// "llctl-models-add": the page's name, and the file's before ".1".
std::string ManPageName(const CLI::App& command);

// The page of one command, in section 1.
std::string ManPage(const CLI::App& command, const std::string& version);

}  // namespace ll
