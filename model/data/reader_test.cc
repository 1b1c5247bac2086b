#include <limits>
#include <optional>

#include "model/data/input_files.h"
#include "model/data/raw_reader.h"
#include "model/data/record_parser.h"
#include "model/data/testing.h"

namespace ll {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// A record as one line: kind, line, texts.
std::string Show(const Record& r) {
  std::string out = absl::StrCat(KindName(r.kind), "@", r.line, ":", r.text, r.instruction, "|",
                                 r.input, "|", r.output);
  for (const ChatMessage& m : r.messages) absl::StrAppend(&out, " ", m.role, "=", m.content);
  return out;
}

class ReaderTest : public DataTest {
 protected:
  struct Result {
    std::vector<std::string> records;
    absl::Status status;
  };
  Result Read(const std::vector<std::string>& inputs, ReadOptions options = {},
              InvalidUtf8 policy = InvalidUtf8::kRefuse) {
    Result out;
    auto files = FindInputFiles(inputs);
    if (!files.ok()) return {{}, files.status()};
    RawReader reader(*files, options);
    RawRecord raw;
    while (true) {
      const auto more = reader.Next(raw);
      if (!more.ok()) return {out.records, more.status()};
      if (!*more) return out;
      bool replaced = false;
      const size_t file = raw.file;
      auto record = ParseRecord(std::move(raw), (*files)[file].path, policy, replaced);
      if (!record.ok()) return {out.records, record.status()};
      out.records.push_back(Show(*record));
    }
  }
  // The error of a .jsonl file with one line.
  absl::Status ErrorOf(const std::string& line) { return Read({Write("e.jsonl", line)}).status; }
};

TEST_F(ReaderTest, EveryKindOfRecord) {
  const Result r = Read({Write("a.jsonl", R"({"text": "plain", "id": 7}
{"instruction": "do", "input": "this", "output": "done"}

{"instruction": "do", "input": null, "output": "done", "text": "the prompt again"}
{"input": "q", "output": "a"}
{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}
{"conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}], "id": 1}
{"text": "t", "input": "an input without an output is no pair"})")});
  LL_ASSERT_OK(r.status);
  EXPECT_THAT(r.records, ElementsAre("text@1:plain||", "instruction/output@2:do|this|done",
                                     "instruction/output@4:do||done", "input/output@5:|q|a",
                                     "messages@6:|| system=s user=u",
                                     "messages@7:|| user=h assistant=g", "text@8:t||"));
}

TEST_F(ReaderTest, AJsonFileIsAListOrObjects) {
  const std::string list = R"( [ {"text": "a]}\"["} ,
 {"text": "b", "x": [[{}]]},{"text":"c"}
 ] )";
  LL_ASSERT_OK(Read({Write("list.json", list)}).status);
  const auto expected = ElementsAre("text@1:a]}\"[||", "text@2:b||", "text@3:c||");
  EXPECT_THAT(Read({Path("list.json")}).records, expected);
  EXPECT_THAT(Read({Write("list.json.gz", list)}).records, expected);
  EXPECT_THAT(Read({Write("list.json.zst", list)}).records, expected);
  EXPECT_THAT(Read({Write("bom.json", "\xEF\xBB\xBF" + list)}).records, expected);
  EXPECT_THAT(Read({Write("objects.json", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n")}).records,
              ElementsAre("text@1:a||", "text@2:b||"));
  EXPECT_THAT(Read({Write("empty.json", "[]")}).records, IsEmpty());
}

TEST_F(ReaderTest, BrokenJsonLists) {
  const auto error = [&](const std::string& text) { return Read({Write("l.json", text)}).status; };
  EXPECT_THAT(error(R"([{"text": "a"} {"text": "b"}])"),
              StatusIs(kInvalid, "l.json:2: expected a comma"));
  EXPECT_THAT(error(R"([{"text": "a"},])"),
              StatusIs(kInvalid, "l.json:2: expected an object after"));
  EXPECT_THAT(error(R"([{"text": "a"}] x)"), StatusIs(kInvalid, "nothing after the list"));
  EXPECT_THAT(error(R"([{"text": "a"})"), StatusIs(kInvalid, "l.json:2"));
  EXPECT_THAT(error(R"([{"text": "a)"),
              StatusIs(kInvalid, "l.json:1: expected a whole JSON object"));
  EXPECT_THAT(error(R"(["a"])"), StatusIs(kInvalid, "l.json:1: expected a JSON object"));
  EXPECT_THAT(error(R"([{"text": "a", b}])"),
              StatusIs(kInvalid, "l.json:1: expected a JSON object"));
}

TEST_F(ReaderTest, BadRecordsNameFileAndLine) {
  EXPECT_THAT(ErrorOf("\n{\"text\": 1}"),
              StatusIs(kInvalid, "e.jsonl:2 text: expected a text, found number"));
  EXPECT_THAT(ErrorOf("{\"text\": \"a\""), StatusIs(kInvalid, "e.jsonl:1: expected a JSON object"));
  // Where in the line, not another line.
  EXPECT_THAT(
      ErrorOf("{\"text\": \"a\"}\n{\"text\": \"a\"\r\n{\"text\": \"a\"}"),
      StatusIs(kInvalid, "e.jsonl:2: expected a JSON object, found a syntax error at column 13"));
  EXPECT_THAT(ErrorOf("[1]"), StatusIs(kInvalid, "found a list"));
  EXPECT_THAT(ErrorOf("{\"t\": \"a\"}"), StatusIs(kInvalid, "found none of them"));
  EXPECT_THAT(ErrorOf("{\"text\": \" \\n\"}"),
              StatusIs(kInvalid, "expected some text, found none"));
  EXPECT_THAT(ErrorOf(R"({"instruction": "a"})"),
              StatusIs(kInvalid, "output: expected a text, found no such member"));
  EXPECT_THAT(ErrorOf(R"({"input": "a", "output": null})"),
              StatusIs(kInvalid, "output: expected a text, found null"));
  EXPECT_THAT(ErrorOf(R"({"messages": []})"), StatusIs(kInvalid, "at least one message"));
  EXPECT_THAT(ErrorOf(R"({"messages": {}})"), StatusIs(kInvalid, "a list of messages"));
  EXPECT_THAT(
      ErrorOf(R"({"messages": [{"role": "wizard", "content": "x"}]})"),
      StatusIs(kInvalid,
               "messages[0] role: expected system, user (human) or assistant (gpt), found wizard"));
  EXPECT_THAT(ErrorOf(R"({"conversations": [{"from": "human"}]})"),
              StatusIs(kInvalid, "value: expected a text"));
  EXPECT_THAT(ErrorOf("{\"text\": \"\\ud800\"}"), StatusIs(kInvalid, "e.jsonl:1"))
      << "half a surrogate pair";
  for (const absl::Status& s :
       {ErrorOf("{\"text\": \"a\nb\"}"), ErrorOf("{\"text\": \"" + std::string(100000, 'x'))}) {
    EXPECT_THAT(std::string(s.message()), testing::Not(HasSubstr("\n")));
    EXPECT_LT(s.message().size(), 500u);
  }
}

TEST_F(ReaderTest, DepthIsBounded) {
  const std::string deep = "{\"text\": " + std::string(100000, '[');
  EXPECT_THAT(ErrorOf(deep), StatusIs(kInvalid, "e.jsonl:1: expected at most 64 levels of JSON"));
  EXPECT_THAT(Read({Write("e.json", "[" + deep)}).status,
              StatusIs(kInvalid, "e.json:1: expected at most 64 levels of JSON"));
  LL_EXPECT_OK(
      ErrorOf("{\"text\": \"[[[\", \"x\": " + std::string(60, '[') + std::string(60, ']') + "}"));
}

TEST_F(ReaderTest, InvalidUtf8IsRefusedOrReplaced) {
  for (const char* name : {"a.txt", "a.jsonl"}) {
    const std::string path = Write(name, std::string(name) == "a.txt" ? "a\xff"
                                                                        "b"
                                                                      : "{\"text\": \"a\xff"
                                                                        "b\"}");
    EXPECT_THAT(Read({path}).status, StatusIs(kInvalid, ":1: expected UTF-8"));
    EXPECT_THAT(Read({path}, {}, InvalidUtf8::kReplace).records, ElementsAre("text@1:a\xEF\xBF\xBD"
                                                                             "b||"));
  }
}

TEST_F(ReaderTest, TextFiles) {
  const std::string text = "\n\n a\nb\n \n\nc";
  EXPECT_THAT(Read({Write("t.txt", text)}).records, ElementsAre("text@1:" + text + "||"));
  ReadOptions options;
  options.split = DocumentSplit::kBlankLine;
  EXPECT_THAT(Read({Path("t.txt")}, options).records,
              ElementsAre("text@3: a\nb\n||", "text@7:c\n||"));
  EXPECT_THAT(Read({Write("crlf.txt", "a\r\n\r\nb\r\n")}, options).records,
              ElementsAre("text@1:a\r\n||", "text@3:b\r\n||"));
  options.split = DocumentSplit::kJsonLines;
  EXPECT_THAT(Read({Write("j.txt", "{\"text\": \"a\"}")}, options).records,
              ElementsAre("text@1:a||"));
  EXPECT_THAT(Read({Write("none.txt", "")}).status,
              StatusIs(kInvalid, "none.txt:1: expected some text"));
}

TEST_F(ReaderTest, LongTextsComeInPartsThatJoinToTheWhole) {
  std::string text;
  for (int i = 0; text.size() < 900000; ++i) {
    absl::StrAppend(&text, i % 3 == 0 ? "Line" : " line", " ", i, i % 5 == 0 ? ".\n\n" : ".\n");
  }
  ReadOptions options;
  options.part_bytes = 10000;
  LL_ASSERT_OK_AND_ASSIGN(auto files,
                          FindInputFiles({Write("t.txt.gz", text), Write("u.txt", "short")}));
  RawReader reader(files, options);
  std::string joined;
  std::vector<ReadPosition> positions;
  std::vector<size_t> sizes;
  RawRecord raw;
  int64_t line = 1;
  bool first = true;
  while (true) {
    LL_ASSERT_OK_AND_ASSIGN(const bool more, reader.Next(raw));
    ASSERT_TRUE(more);
    if (raw.file == 1) break;
    EXPECT_EQ(raw.first, first);
    EXPECT_EQ(raw.line, line);
    first = false;
    line += std::count(raw.bytes.begin(), raw.bytes.end(), '\n');
    joined += raw.bytes;
    positions.push_back(reader.position());
    sizes.push_back(joined.size());
    if (raw.last) break;
    EXPECT_EQ(raw.bytes.back(), '\n');
  }
  EXPECT_EQ(joined, text);
  EXPECT_GT(positions.size(), 3u);
  // Another reader goes on from any of the positions.
  for (size_t i = 0; i < positions.size(); ++i) {
    RawReader later(files, options, positions[i]);
    std::string rest = text.substr(0, sizes[i]);
    while (true) {
      LL_ASSERT_OK_AND_ASSIGN(const bool more, later.Next(raw));
      ASSERT_TRUE(more);
      if (raw.file == 1) break;
      EXPECT_FALSE(raw.first);
      rest += raw.bytes;
    }
    EXPECT_EQ(rest, text) << i;
    EXPECT_TRUE(raw.first && raw.last);
    EXPECT_EQ(raw.bytes, "short");
  }
}

TEST_F(ReaderTest, ReadingGoesOnBehindAnyRecord) {
  std::string lines, list = "[";
  for (int i = 0; i < 50; ++i) {
    absl::StrAppend(&lines, "{\"text\": \"", i, "\"}\n", i % 7 == 0 ? "\n" : "");
    absl::StrAppend(&list, i == 0 ? "" : ", ", "{\"text\": \"", i, "\"}");
  }
  LL_ASSERT_OK_AND_ASSIGN(const auto files, FindInputFiles({Write("a.jsonl.zst", lines),
                                                            Write("b.json.gz", list + "]")}));
  RawReader reader(files, {});
  std::vector<ReadPosition> positions;
  std::vector<std::string> all;
  RawRecord raw;
  for (auto more = reader.Next(raw); more.ok() && *more; more = reader.Next(raw)) {
    all.push_back(absl::StrCat(raw.line, raw.bytes));
    positions.push_back(reader.position());
  }
  ASSERT_THAT(all, SizeIs(100));
  for (size_t i = 0; i < positions.size(); ++i) {
    RawReader later(files, {}, positions[i]);
    for (size_t j = i + 1; j < all.size(); ++j) {
      LL_ASSERT_OK_AND_ASSIGN(const bool more, later.Next(raw));
      ASSERT_TRUE(more);
      ASSERT_EQ(absl::StrCat(raw.line, raw.bytes), all[j]) << i;
    }
    LL_ASSERT_OK_AND_ASSIGN(const bool more, later.Next(raw));
    EXPECT_FALSE(more);
  }
}

TEST_F(ReaderTest, RecordsAreBoundedInSize) {
  ReadOptions options;
  options.max_record_bytes = 1000;
  const std::string big = std::string(400000, 'x');
  EXPECT_THAT(Read({Write("a.jsonl.gz", big)}, options).status,
              StatusIs(kInvalid, "a.jsonl.gz:1: expected a line of at most"));
  EXPECT_THAT(Read({Write("a.json.gz", "[{\"text\": \"" + big)}, options).status,
              StatusIs(kInvalid, "an object of at most"));
  EXPECT_THAT(Read({Write("a.txt.gz", big)}, options).status,
              StatusIs(kInvalid, "a document of at most"));
  options.part_bytes = 100;
  EXPECT_THAT(Read({Path("a.txt.gz")}, options).status, StatusIs(kInvalid, "without a line break"));
  options.split = DocumentSplit::kBlankLine;
  EXPECT_THAT(Read({Path("a.txt.gz")}, options).status, StatusIs(kInvalid, "of at most"));
}

TEST_F(ReaderTest, DamagedCompression) {
  std::string text;
  for (int i = 0; i < 20000; ++i) absl::StrAppend(&text, "{\"text\": \"", i * 7919, "\"}\n");
  for (const char* name : {"a.jsonl.gz", "a.jsonl.zst"}) {
    const std::string path = Write(name, text);
    LL_ASSERT_OK_AND_ASSIGN(std::string bytes, ReadFile(path));
    LL_ASSERT_OK(WriteFileAtomic(path, bytes.substr(0, bytes.size() / 2)));
    EXPECT_THAT(Read({path}).status, StatusIs(kInvalid, "found a file that ends too early"))
        << name;
    LL_ASSERT_OK(WriteFileAtomic(path, text));
    EXPECT_THAT(Read({path}).status, StatusIs(kInvalid, "expected whole")) << name;
    // Two members, or frames, one after the other are one stream.
    LL_ASSERT_OK(WriteFileAtomic(path, bytes + bytes));
    EXPECT_THAT(Read({path}).records, SizeIs(40000)) << name;
  }
}

TEST_F(ReaderTest, FoldersAndPatterns) {
  Write("d/b.txt", "b");
  Write("d/a.jsonl", "{\"text\": \"a\"}");
  Write("d/sub/c.json.gz", "[{\"text\": \"c\"}]");
  Write("d/.hidden.txt", "no");
  Write("d/.git/x.txt", "no");
  Write("d/readme.md", "no");
  EXPECT_THAT(Read({Path("d")}).records, ElementsAre("text@1:a||", "text@1:b||", "text@1:c||"));
  EXPECT_THAT(Read({Path("d/*.*")}).records, SizeIs(3)) << "a pattern may name any file";
  EXPECT_THAT(Read({Path("d/[ab].*")}).records, ElementsAre("text@1:a||", "text@1:b||"));
  EXPECT_THAT(Read({Path("d/*.csv")}).status, StatusIs(kInvalid, "a pattern that matches a file"));
  EXPECT_THAT(Read({Path("none.txt")}).status, StatusIs(absl::StatusCode::kNotFound, "none.txt"));
  LL_ASSERT_OK(MakeDirs(Path("empty")));
  EXPECT_THAT(Read({Path("empty")}).status, StatusIs(kInvalid, "a folder with .txt"));
  EXPECT_THAT(Read({"/dev/null"}).status, StatusIs(kInvalid, "neither"));
  Write("odd[1].txt", "kept");
  EXPECT_THAT(Read({Path("odd[1].txt")}).records, ElementsAre("text@1:kept||"))
      << "a name before a pattern";
}

}  // namespace
}  // namespace ll
