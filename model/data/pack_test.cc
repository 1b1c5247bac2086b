#include "model/data/pack.h"

#include <sys/wait.h>

#include <csignal>
#include <random>

#include "model/data/testing.h"
#include "model/text/token_file.h"
#include "model/text/token_file_writer.h"

namespace ll {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::SizeIs;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class PackTest : public DataTest {
 protected:
  PackOptions Options(const std::vector<std::string>& inputs, const std::string& out = "f.bin") {
    PackOptions options;
    options.inputs = inputs;
    options.output = Path(out);
    options.threads = 2;
    options.warn = [this](const std::string& text) { said_.push_back(text); };
    return options;
  }
  // The ids as text: bytes as they are, < and > for BOS and EOS.
  std::string Ids(const std::string& name = "f.bin") {
    auto file = TokenFile::Open(Path(name), 258);
    EXPECT_TRUE(file.ok()) << file.status();
    if (!file.ok()) return "";
    std::vector<int32_t> ids(static_cast<size_t>((*file)->size()));
    (*file)->Read(0, absl::MakeSpan(ids));
    std::string out;
    for (int32_t id : ids) out.push_back(id < 2 ? "<>"[id] : static_cast<char>(id - 2));
    return out;
  }
  std::vector<std::string> Names() {
    auto names = ListDir(folder_.path());
    return names.ok() ? *names : std::vector<std::string>();
  }
  std::string Bytes(const std::string& name) {
    auto ids = ReadFile(Path(name)), sidecar = ReadFile(Path(name + ".json"));
    EXPECT_TRUE(ids.ok() && sidecar.ok());
    return ids.ok() && sidecar.ok() ? absl::StrCat(*ids, *sidecar) : "";
  }
  // Answers are what is behind "A:"; no template is needed to see spans move.
  static absl::StatusOr<EncodedSample> EncodeSample(const Record& r) {
    EncodedSample sample;
    const std::string text = absl::StrCat("Q:", r.input, "A:", r.output);
    for (char c : text) sample.ids.push_back(2 + static_cast<unsigned char>(c));
    const auto end = static_cast<int64_t>(sample.ids.size());
    if (r.output.empty())
      return absl::InvalidArgumentError(absl::StrCat(r.file, ":", r.line, ": an empty answer"));
    if (r.output == "drop") return EncodedSample();
    sample.loss_spans = {{end - static_cast<int64_t>(r.output.size()), end}};
    return sample;
  }

  const std::unique_ptr<JsonTokenizer> tokenizer_ = ByteTokenizer();
  std::vector<std::string> said_;
};

TEST_F(PackTest, Documents) {
  PackOptions options = Options(
      {Write("a.txt", "ab\n\nb"), Write("b.jsonl", "{\"text\": \"cd\"}\n{\"text\": \"e\"}")});
  options.add_bos = true;
  LL_ASSERT_OK_AND_ASSIGN(PackResult result, PackText(options, *tokenizer_));
  EXPECT_EQ(Ids(), "<ab\n\nb><cd><e>");
  EXPECT_EQ(result.documents, 3);
  EXPECT_EQ(result.tokens, 14);
  LL_ASSERT_OK_AND_ASSIGN(auto file, TokenFile::Open(Path("f.bin"), 0));
  EXPECT_THAT(file->documents(), ElementsAre(Pair(0, 7), Pair(7, 11), Pair(11, 14)));
  EXPECT_FALSE(file->loss_spans().has_value());
  EXPECT_EQ(file->tokenizer_hash(), tokenizer_->hash());

  options = Options({Write("c.txt", "\n\nab\na\n \n\nb")});
  options.split = DocumentSplit::kBlankLine;
  options.add_eos = false;
  LL_ASSERT_OK(PackText(options, *tokenizer_));
  EXPECT_EQ(Ids(), "ab\na\nb\n");
  EXPECT_THAT(Names(), ElementsAre("a.txt", "b.jsonl", "c.txt", "f.bin", "f.bin.json"));
}

TEST_F(PackTest, ErrorsLeaveNothing) {
  const auto error = [&](const std::string& name, absl::string_view text) {
    return PackText(Options({Write(name, text)}), *tokenizer_).status();
  };
  EXPECT_THAT(error("a.txt", "\n \n"), StatusIs(kInvalid, "a.txt:1: expected some text"));
  EXPECT_THAT(error("a.txt", ""), StatusIs(kInvalid, "a.txt:1: expected some text"));
  EXPECT_THAT(error("a.jsonl", "{\"text\": \"a\"}\n{\"t\": 1}"), StatusIs(kInvalid, "a.jsonl:2"));
  EXPECT_THAT(error("a.jsonl", "\n"), StatusIs(kInvalid, "expected some text, found none"));
  EXPECT_THAT(error("a.jsonl", "{\"input\": \"a\", \"output\": \"b\"}"),
              StatusIs(kInvalid, "--prompt-template"));
  EXPECT_THAT(PackText(Options({Path("none")}), *tokenizer_),
              StatusIs(absl::StatusCode::kNotFound, "none"));
  tokenizer_->eos_id.reset();
  EXPECT_THAT(error("a.txt", "a"), StatusIs(kInvalid, "eos: expected"));
  EXPECT_THAT(Names(), ElementsAre("a.jsonl", "a.txt"));
}

TEST_F(PackTest, TheFirstBadRecordIsTold) {
  std::string lines;
  for (int i = 0; i < 30000; ++i)
    absl::StrAppend(&lines,
                    i == 20000 || i == 29999 ? "{}\n" : "{\"text\": \"some words here\"}\n");
  for (int threads : {1, 4}) {
    PackOptions options = Options({Write("a.jsonl", lines)});
    options.threads = threads;
    EXPECT_THAT(PackText(options, *tokenizer_), StatusIs(kInvalid, "a.jsonl:20001: expected"));
    options.skip_bad_records = true;
    said_.clear();
    LL_ASSERT_OK_AND_ASSIGN(PackResult result, PackText(options, *tokenizer_));
    EXPECT_EQ(result.skipped, 2);
    EXPECT_EQ(result.documents, 29998);
    EXPECT_THAT(said_, ElementsAre(HasSubstr("skipped: "), HasSubstr("a.jsonl:30000")));
  }
}

TEST_F(PackTest, NoInputIsReplaced) {
  const std::string text = Write("book.txt", "abc"),
                    list = Write("list.json", R"([{"text": "x"}])");
  EXPECT_THAT(PackText(Options({text}, "book.txt"), *tokenizer_),
              StatusIs(kInvalid, "out: expected a file that is none of the inputs"));
  // The description is written beside: list.json.
  EXPECT_THAT(PackText(Options({list}, "list"), *tokenizer_), StatusIs(kInvalid, "replace"));
  // By another name too; and what lies in the folder after a first run.
  ASSERT_EQ(symlink(text.c_str(), Path("link").c_str()), 0);
  EXPECT_THAT(PackText(Options({text}, "link"), *tokenizer_), StatusIs(kInvalid, "replace"));
  EXPECT_EQ(*ReadFile(text), "abc");
  EXPECT_EQ(*ReadFile(list), R"([{"text": "x"}])");
  EXPECT_THAT(PackText(Options({text}, "."), *tokenizer_),
              StatusIs(kInvalid, "out: expected a file"));
  EXPECT_THAT(PackText(Options({""}), *tokenizer_), StatusIs(kInvalid, "input: expected a file"));
}

TEST_F(PackTest, MixedKindsInAFileAreRefused) {
  const std::string path =
      Write("a.jsonl",
            "{\"input\": \"a\", \"output\": \"b\"}\n{\"instruction\": \"a\", \"output\": \"b\"}\n");
  PackOptions options = Options({path});
  options.encode_sample = EncodeSample;
  EXPECT_THAT(PackText(options, *tokenizer_),
              StatusIs(kInvalid, "a.jsonl:2: expected a record with input/output as those before"));
  options.inputs = {Write("b.jsonl", "{\"input\": \"a\", \"output\": \"b\"}"),
                    Write("c.jsonl", "{\"instruction\": \"a\", \"output\": \"b\"}")};
  LL_EXPECT_OK(PackText(options, *tokenizer_)) << "two files may differ";
}

TEST_F(PackTest, SupervisedSamplesMarkTheirTargets) {
  PackOptions options = Options(
      {Write("a.json", R"([{"input": "x", "output": "yes"}, {"input": "x", "output": "drop"},
      {"input": "", "output": "no"}, {"input": "y", "output": ""}])")});
  options.encode_sample = EncodeSample;
  EXPECT_THAT(PackText(options, *tokenizer_), StatusIs(kInvalid, "a.json:4: an empty answer"));
  options.skip_bad_records = true;
  LL_ASSERT_OK_AND_ASSIGN(PackResult result, PackText(options, *tokenizer_));
  EXPECT_EQ(Ids(), "Q:xA:yesQ:A:no");
  LL_ASSERT_OK_AND_ASSIGN(auto file, TokenFile::Open(Path("f.bin"), 0));
  EXPECT_THAT(file->documents(), ElementsAre(Pair(0, 8), Pair(8, 14)));
  ASSERT_TRUE(file->loss_spans().has_value());
  EXPECT_THAT(*file->loss_spans(), ElementsAre(Pair(5, 8), Pair(12, 14)));
  EXPECT_EQ(result.target_tokens, 5);
  EXPECT_EQ(result.dropped, 1);
  EXPECT_EQ(result.skipped, 1);
}

TEST_F(PackTest, InvalidUtf8) {
  PackOptions options = Options({Write("a.txt", "a\xff")});
  EXPECT_THAT(PackText(options, *tokenizer_), StatusIs(kInvalid, "a.txt:1: expected UTF-8"));
  options.invalid_utf8 = InvalidUtf8::kReplace;
  LL_ASSERT_OK_AND_ASSIGN(PackResult result, PackText(options, *tokenizer_));
  EXPECT_EQ(result.replaced, 1);
  EXPECT_EQ(Ids(), "a\xEF\xBF\xBD>");
}

// Several megabytes in each format, so that there are several batches.
class LongPackTest : public PackTest {
 protected:
  void SetUp() override {
    PackTest::SetUp();
    const uint32_t seed = std::random_device{}();
    trace_.emplace(__FILE__, __LINE__, testing::Message() << "seed " << seed);
    random_.seed(seed);
    std::string text, lines, list = "[";
    for (int i = 0; text.size() < 4000000; ++i) {
      std::string words;
      for (uint32_t n = 5 + random_() % 60; n > 0; --n)
        absl::StrAppend(&words, " w", random_() % 500);
      absl::StrAppend(&text, "Line ", i, words, random_() % 20 == 0 ? ".\n\n" : ".\n");
      const std::string object =
          absl::StrCat("{\"input\": \"", i, "\", \"output\": \"", words, "\"}");
      absl::StrAppend(&lines, object, "\n");
      absl::StrAppend(&list, i == 0 ? "" : ",\n", object);
    }
    Write("text.txt", text);
    Write("lines.jsonl.gz", lines);
    Write("list.json.zst", list + "]");
    text_ = std::move(text);
  }
  PackOptions Long(const std::string& name, const std::string& out) {
    PackOptions options = Options({Path(name)}, out);
    if (name != "text.txt") options.encode_sample = EncodeSample;
    options.commit_bytes = 1;  // after every batch
    return options;
  }
  // Packs in another process, which kills itself after `batches` batches.
  void PackAndDie(PackOptions options, int batches) {
    const pid_t child = fork();
    if (child == 0) {
      options.progress = [&batches](const PackProgress&) {
        if (--batches == 0) kill(getpid(), SIGKILL);
      };
      const auto result = PackText(options, *tokenizer_);
      _exit(result.ok() ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  }
  std::mt19937 random_;
  std::optional<testing::ScopedTrace> trace_;
  std::string text_;
};

TEST_F(LongPackTest, BytesDoNotDependOnThreads) {
  for (const char* name : {"text.txt", "lines.jsonl.gz", "list.json.zst"}) {
    std::string one;
    for (int threads : {1, 2, 4, 9}) {
      PackOptions options = Long(name, "f.bin");
      options.threads = threads;
      LL_ASSERT_OK(PackText(options, *tokenizer_));
      if (threads == 1) one = Bytes("f.bin");
      EXPECT_EQ(Bytes("f.bin"), one) << name << " " << threads;
    }
  }
  LL_ASSERT_OK(PackText(Long("text.txt", "f.bin"), *tokenizer_));
  EXPECT_EQ(Ids(), text_ + ">");
}

TEST_F(LongPackTest, KilledRunsGoOn) {
  for (const char* name : {"text.txt", "lines.jsonl.gz", "list.json.zst"}) {
    LL_ASSERT_OK(PackText(Long(name, "whole.bin"), *tokenizer_));
    const std::string whole = Bytes("whole.bin");
    for (int round = 0; round < 2; ++round) {
      PackAndDie(Long(name, "f.bin"), 1 + static_cast<int>(random_() % 2));
      EXPECT_FALSE(FileExists(Path("f.bin")));
      PackAndDie(Long(name, "f.bin"), 1);  // and once more
      if (round == 1) {  // a power failure cut the last line of the journal and left more ids
        LL_ASSERT_OK(AppendFile(Path("f.bin.partial.journal"), "{\"tokens\": 99", false));
        LL_ASSERT_OK(AppendFile(Path("f.bin.partial"), "xyz", false));
      }
      said_.clear();
      LL_ASSERT_OK_AND_ASSIGN(PackResult result, PackText(Long(name, "f.bin"), *tokenizer_));
      EXPECT_GT(result.resumed_tokens, 0);
      EXPECT_LT(result.resumed_tokens, result.tokens);
      EXPECT_THAT(said_, ElementsAre(HasSubstr("going on after")));
      EXPECT_EQ(Bytes("f.bin"), whole) << name;
      EXPECT_FALSE(FileExists(Path("f.bin.partial")) || FileExists(Path("f.bin.partial.journal")));
      LL_ASSERT_OK(RemoveTree(Path("f.bin")));
      LL_ASSERT_OK(RemoveTree(Path("f.bin.json")));
    }
  }
}

TEST_F(LongPackTest, AChangeStartsAnew) {
  PackAndDie(Long("text.txt", "f.bin"), 2);
  Write("text.txt", text_ + "One more line\n");
  LL_ASSERT_OK_AND_ASSIGN(PackResult result, PackText(Long("text.txt", "f.bin"), *tokenizer_));
  EXPECT_EQ(result.resumed_tokens, 0);
  EXPECT_THAT(said_, ElementsAre(HasSubstr("starting anew")));
  EXPECT_EQ(Ids(), text_ + "One more line\n>");

  PackAndDie(Long("text.txt", "f.bin"), 2);
  PackOptions options = Long("text.txt", "f.bin");
  options.add_bos = true;
  LL_ASSERT_OK_AND_ASSIGN(result, PackText(options, *tokenizer_));
  EXPECT_EQ(result.resumed_tokens, 0) << "other settings";

  PackAndDie(Long("text.txt", "f.bin"), 2);
  LL_ASSERT_OK(WriteFileAtomic(Path("f.bin.partial"), "short"));
  LL_ASSERT_OK_AND_ASSIGN(result, PackText(Long("text.txt", "f.bin"), *tokenizer_));
  EXPECT_EQ(result.resumed_tokens, 0) << "somebody shortened it";
}

TEST_F(LongPackTest, TwoWritersOfOneFileAreRefused) {
  LL_ASSERT_OK_AND_ASSIGN(auto writer, TokenFileWriter::Create(Path("f.bin"), 258, ""));
  EXPECT_THAT(PackText(Long("text.txt", "f.bin"), *tokenizer_),
              StatusIs(absl::StatusCode::kFailedPrecondition, "another process is writing"));
}

}  // namespace
}  // namespace ll
