// What the tests of this folder share: a folder of files in every compression, a small tokenizer.
#pragma once

#include <zlib.h>
#include <zstd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "model/text/json_tokenizer.h"
#include "model/text/pre_tokenizer.h"
#include "nlohmann/json.hpp"

namespace ll {

class DataTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) const {
    return absl::StrCat(folder_.path(), "/", name);
  }
  // Writes the text, compressed as the name's ending says.
  std::string Write(const std::string& name, absl::string_view text) const {
    const auto ends = [&](absl::string_view e) {
      return name.size() > e.size() && absl::string_view(name).substr(name.size() - e.size()) == e;
    };
    const std::string bytes = ends(".gz")    ? Gzip(text)
                              : ends(".zst") ? Zstd(text)
                                             : std::string(text);
    EXPECT_TRUE(MakeDirs(Path(name).substr(0, Path(name).rfind('/'))).ok());
    EXPECT_TRUE(WriteFileAtomic(Path(name), bytes).ok());
    return Path(name);
  }

  static std::string Gzip(absl::string_view text) {
    z_stream stream{};
    LL_CHECK(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    std::string out(deflateBound(&stream, text.size()), '\0');
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
    stream.avail_in = static_cast<uInt>(text.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    LL_CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END);
    out.resize(stream.total_out);
    deflateEnd(&stream);
    return out;
  }
  static std::string Zstd(absl::string_view text) {
    std::string out(ZSTD_compressBound(text.size()), '\0');
    const size_t n = ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3);
    LL_CHECK(!ZSTD_isError(n));
    out.resize(n);
    return out;
  }

  // Bytes as tokens, cut into words as GPT-2 does: 0 <s>, 1 </s>, byte b is 2 + b.
  static std::unique_ptr<JsonTokenizer> ByteTokenizer() {
    nlohmann::json vocab = {{"<s>", 0}, {"</s>", 1}};
    for (int b = 0; b < 256; ++b) vocab[ByteLevelAlphabet()[static_cast<size_t>(b)]] = 2 + b;
    const auto special = [](int id, const char* text) {
      return nlohmann::json{{"id", id}, {"content", text}, {"special", true}};
    };
    const nlohmann::json root = {
        {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}},
        {"added_tokens", {special(0, "<s>"), special(1, "</s>")}},
        {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
        {"decoder", {{"type", "ByteLevel"}}}};
    auto tokenizer = JsonTokenizer::Parse(root.dump());
    LL_CHECK(tokenizer.ok());
    (*tokenizer)->bos_id = 0;
    (*tokenizer)->eos_id = 1;
    return *std::move(tokenizer);
  }

  const TempDir folder_;
};

}  // namespace ll
