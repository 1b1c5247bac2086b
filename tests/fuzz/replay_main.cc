// Runs a fuzz target on files, without libFuzzer: replay FOLDER-OR-FILE… An input that the target
// cannot take ends the program; its name is the last line on stderr.
#include <cstdio>
#include <string>
#include <vector>

#include "base/file.h"
#include "tests/fuzz/fuzz.h"

int main(int argc, char** argv) {
  int inputs = 0;
  for (int i = 1; i < argc; ++i) {
    std::vector<std::string> files = {argv[i]};
    if (ll::IsDirectory(argv[i])) {
      files.clear();
      const std::vector<std::string> names = ll::ListDir(argv[i]).value();
      for (const std::string& name : names) {
        files.push_back(std::string(argv[i]) + "/" + name);
      }
    }
    for (const std::string& file : files) {
      std::fprintf(stderr, "%s\n", file.c_str());
      ll::FuzzOne(ll::ReadFile(file).value());
      ++inputs;
    }
  }
  std::printf("%d inputs\n", inputs);
  return inputs > 0 ? 0 : 1;  // a folder without seeds tests nothing
}
