// tokenizer_driver TOKENIZER: for every line of standard input, a JSON string, prints {"ids": […],
// "text": "…"}: the ids of the string and what they decode to.
#include <iostream>

#include "model/text/tokenizer.h"
#include "nlohmann/json.hpp"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  auto tokenizer = ll::OpenTokenizer(argv[1]);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }
  std::ios::sync_with_stdio(false);
  for (std::string line; std::getline(std::cin, line);) {
    auto ids = (*tokenizer)->Encode(nlohmann::json::parse(line).get<std::string>());
    if (!ids.ok()) {
      std::cerr << ids.status() << "\n";
      return 1;
    }
    std::cout << nlohmann::json{{"ids", *ids}, {"text", (*tokenizer)->Decode(*ids)}}.dump() << "\n";
  }
}
