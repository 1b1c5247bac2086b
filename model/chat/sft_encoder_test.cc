#include "model/chat/sft_encoder.h"

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "model/chat/chat_encoder.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// A folder whose tokenizer has a token for each ASCII character, and a few special ones.
class SftEncoderTest : public testing::Test {
 protected:
  void SetUp() override {
    json vocab, added = json::array();
    int id = 0;
    for (const char* special : {"<s>", "</s>", "<|im_start|>", "<|im_end|>"}) {
      added.push_back({{"id", id}, {"content", special}, {"special", true}, {"normalized", false}});
      vocab[special] = id++;
    }
    for (char c = '!'; c <= '~'; ++c) vocab[std::string(1, c)] = id++;
    vocab["Ġ"] = id++;  // the byte-level alphabet's space and newline
    vocab["Ċ"] = id++;
    const json level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
    const json file = {{"added_tokens", added},
                       {"pre_tokenizer", level},
                       {"decoder", level},
                       {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}}}};
    Write("tokenizer.json", file.dump());
    Configure({{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"add_bos_token", true}});
  }

  void Write(const std::string& name, const std::string& text) {
    LL_ASSERT_OK(WriteFileAtomic(folder_.path() + "/" + name, text));
  }
  void Configure(const json& config) { Write("tokenizer_config.json", config.dump()); }

  absl::StatusOr<std::unique_ptr<SftEncoder>> Make(const SftOptions& options) {
    auto opened = OpenTokenizer(folder_.path());
    if (!opened.ok()) return opened.status();
    tokenizer_ = *std::move(opened);
    return SftEncoder::Create(options, tokenizer_, folder_.path());
  }
  absl::StatusOr<SftSample> Encode(const SftOptions& options, const Record& record) {
    auto encoder = Make(options);
    if (!encoder.ok()) return encoder.status();
    return (*encoder)->Encode(record);
  }
  // The text of ids [begin, end), special tokens spelt out.
  std::string Text(const SftSample& sample, int64_t begin, int64_t end) const {
    static const char* const kSpecial[] = {"<s>", "</s>", "<|im_start|>", "<|im_end|>"};
    std::string out;
    for (int64_t i = begin; i < end; ++i) {
      const int32_t id = sample.ids[i];
      out += id < 4 ? kSpecial[id] : tokenizer_->Decode({id});
    }
    return out;
  }
  std::string Text(const SftSample& sample) const {
    return Text(sample, 0, static_cast<int64_t>(sample.ids.size()));
  }
  std::vector<std::string> Trained(const SftSample& sample) const {
    std::vector<std::string> out;
    for (const auto& [start, end] : sample.loss_spans) out.push_back(Text(sample, start, end));
    return out;
  }

  const TempDir folder_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

Record Instruction(const std::string& instruction, const std::string& output,
                   const std::string& input = "") {
  Record record;
  record.kind = Record::Kind::kInstruction;
  record.instruction = instruction;
  record.input = input;
  record.output = output;
  record.file = "data.jsonl";
  record.line = 7;
  return record;
}

Record Conversation(const std::vector<ChatMessage>& messages) {
  Record record = Instruction("", "");
  record.kind = Record::Kind::kMessages;
  record.messages = messages;
  return record;
}

const std::vector<ChatMessage>& TwoTurns() {
  static const auto& messages = *new std::vector<ChatMessage>{
      {"system", "be"}, {"user", "q1"}, {"assistant", "a1"}, {"user", "q2"}, {"assistant", "a2"}};
  return messages;
}

TEST_F(SftEncoderTest, LongLoraTrainsTheAnswerAndEos) {
  LL_ASSERT_OK_AND_ASSIGN(const SftSample sample,
                          Encode({.prompt_template = "longlora"}, Instruction("hi", "yo")));
  EXPECT_EQ(Text(sample), "<s>[INST]hi[/INST]yo</s>");
  EXPECT_THAT(Trained(sample), ElementsAre("yo</s>"));
}

TEST_F(SftEncoderTest, LongLoraWithAnInputHasLlama2sSystemPrompt) {
  LL_ASSERT_OK_AND_ASSIGN(const SftSample sample,
                          Encode({.prompt_template = "longlora"}, Instruction("hi", "yo", "in")));
  EXPECT_THAT(Text(sample), testing::StartsWith("<s>[INST] <<SYS>>\nYou are a helpful"));
  EXPECT_THAT(Text(sample), testing::EndsWith("<</SYS>> \n\n hi \nin [/INST]yo</s>"));
}

TEST_F(SftEncoderTest, EveryAnswerOfAConversationIsTrained) {
  const Record record = Conversation(TwoTurns());
  LL_ASSERT_OK_AND_ASSIGN(const SftSample llama2, Encode({.prompt_template = "llama2"}, record));
  EXPECT_EQ(Text(llama2),
            "<s>[INST] <<SYS>>\nbe\n<</SYS>>\n\nq1 [/INST] a1 </s><s>[INST] q2 [/INST] a2 </s>");
  EXPECT_THAT(Trained(llama2), ElementsAre(" a1 </s>", " a2 </s>"));
  LL_ASSERT_OK_AND_ASSIGN(const SftSample vicuna, Encode({.prompt_template = "vicuna"}, record));
  EXPECT_EQ(Text(vicuna), "be\nUSER: q1\nASSISTANT: a1</s>\nUSER: q2\nASSISTANT: a2</s>");
  EXPECT_THAT(Trained(vicuna), ElementsAre("a1</s>", "a2</s>"));
  LL_ASSERT_OK_AND_ASSIGN(const SftSample chatml, Encode({.prompt_template = "chatml"}, record));
  EXPECT_THAT(Trained(chatml), ElementsAre("a1<|im_end|>", "a2<|im_end|>"));
  EXPECT_THAT(Encode({.prompt_template = "longlora"}, record),
              StatusIs(absl::StatusCode::kInvalidArgument, "data.jsonl:7: prompt_template"));
}

TEST_F(SftEncoderTest, TheFoldersTemplate) {
  const SftOptions options{.prompt_template = "chat_template"};
  const Record record = Conversation(TwoTurns());
  EXPECT_THAT(Encode(options, record),
              StatusIs(absl::StatusCode::kInvalidArgument, "a chat template"));
  // Found by rendering prefixes; the newline behind the mark is not the model's to say.
  Write("chat_template.jinja",
        "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>\n\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}");
  LL_ASSERT_OK_AND_ASSIGN(const SftSample prefixes, Encode(options, record));
  EXPECT_THAT(Trained(prefixes), ElementsAre("a1</s>", "a2</s>"));
  // A template that closes nothing gets the EOS at the end.
  Write("chat_template.jinja", "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}");
  LL_ASSERT_OK_AND_ASSIGN(const SftSample open, Encode(options, record));
  EXPECT_THAT(Trained(open), ElementsAre("[assistant]a1", "[assistant]a2</s>"));
  // Marked by the template itself.
  Write("chat_template.jinja",
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }};"
        "{% endgeneration %}{% endif %}{% endfor %}");
  LL_ASSERT_OK_AND_ASSIGN(const SftSample marked, Encode(options, record));
  EXPECT_EQ(Text(marked), "a1;a2;");
  EXPECT_THAT(Trained(marked), ElementsAre("1;a2;"));  // nothing predicts the very first token
  // The system message moves to the last question: no prefix stays what it was.
  Write("chat_template.jinja",
        "{% for m in messages %}{% if loop.revindex == 2 or loop.last and m.role == 'user' %}"
        "{{ messages[0].content }}{% endif %}{{ m.content }};{% endfor %}");
  EXPECT_THAT(Encode(options, record),
              StatusIs(absl::StatusCode::kInvalidArgument, "prints earlier turns otherwise"));
  Write("chat_template.jinja", "{{ raise_exception('no system messages') }}");
  EXPECT_THAT(Encode(options, record),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "data.jsonl:7: chat template: line 1: the template refuses: no system"));
  Write("chat_template.jinja", "{% macro x() %}{% endmacro %}");
  EXPECT_THAT(Make(options), StatusIs(absl::StatusCode::kInvalidArgument, "unknown tag \"macro\""));
}

TEST_F(SftEncoderTest, TheTemplateOfTheTokenizerConfig) {
  Configure({{"bos_token", "<s>"},
             {"eos_token", {{"content", "</s>"}}},
             {"chat_template",
              {{{"name", "tool_use"}, {"template", "no"}},
               {{"name", "default"},
                {"template",
                 "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}"
                 "{% endfor %}"}}}}});
  LL_ASSERT_OK_AND_ASSIGN(const SftSample sample,
                          Encode({.prompt_template = "chat_template"}, Instruction("q", "a")));
  EXPECT_EQ(Text(sample), "<s>q</s>a</s>");
}

TEST_F(SftEncoderTest, Truncation) {
  const Record record = Instruction("0123456789", "abc");  // 1 + 6 + 10 + 7 + 3 + 1 = 28 tokens
  const auto encode = [&](int64_t limit, const std::string& how) {
    return Encode({"longlora", limit, how}, record);
  };
  LL_ASSERT_OK_AND_ASSIGN(const SftSample whole, encode(28, "error"));
  EXPECT_EQ(whole.ids.size(), 28);
  EXPECT_EQ(whole.truncated_targets, 0);
  LL_ASSERT_OK_AND_ASSIGN(const SftSample right, encode(26, "right"));
  EXPECT_THAT(Trained(right), ElementsAre("ab"));
  EXPECT_EQ(right.truncated_targets, 2);
  EXPECT_THAT(encode(24, "right"),
              StatusIs(absl::StatusCode::kInvalidArgument, "no token of the answer is left"));
  LL_ASSERT_OK_AND_ASSIGN(const SftSample left, encode(20, "left"));
  EXPECT_EQ(Text(left), "<s>23456789[/INST]abc</s>");
  EXPECT_THAT(Trained(left), ElementsAre("abc</s>"));
  EXPECT_EQ(left.truncated_targets, 0);
  LL_ASSERT_OK_AND_ASSIGN(const SftSample both, encode(3, "left"));
  EXPECT_EQ(Text(both), "<s>ab");
  EXPECT_EQ(both.truncated_targets, 2);
  LL_ASSERT_OK_AND_ASSIGN(const SftSample dropped, encode(27, "drop"));
  EXPECT_THAT(dropped.ids, IsEmpty());
  EXPECT_THAT(dropped.loss_spans, IsEmpty());
  EXPECT_THAT(encode(27, "error"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "data.jsonl:7: expected at most 27 tokens (max_seq_length), found 28"));
  EXPECT_THAT(encode(27, "middle"), StatusIs(absl::StatusCode::kInvalidArgument, "truncation"));
}

TEST_F(SftEncoderTest, BadRecordsAreRefusedWithTheirPlace) {
  const auto refuse = [&](const Record& record, const char* message) {
    EXPECT_THAT(
        Encode({.prompt_template = "llama2"}, record),
        StatusIs(absl::StatusCode::kInvalidArgument, absl::StrCat("data.jsonl:7: ", message)));
  };
  refuse(Instruction("q", " \n"), "an answer is empty");
  refuse(Conversation({}), "expected an answer");
  refuse(Conversation({{"user", "q"}}), "expected an answer");
  refuse(Conversation({{"assistant", "a"}}), "expected message 1 to be of the user");
  refuse(Conversation({{"user", "q"}, {"user", "q"}}), "expected message 2 to be of the assistant");
  refuse(Conversation({{"user", "q"}, {"assistant", "a"}, {"tool", "t"}}),
         "expected message 3 to be of the user, found \"tool\"");
  Record text = Instruction("", "");
  text.kind = Record::Kind::kText;
  refuse(text, "expected an instruction or a conversation, found plain text");
}

TEST_F(SftEncoderTest, TokenizersThatLackWhatATemplateNeeds) {
  EXPECT_THAT(Make({.prompt_template = "alpaca"}),
              StatusIs(absl::StatusCode::kInvalidArgument, "prompt_template"));
  Configure({{"bos_token", "<s>"}});
  EXPECT_THAT(Make({}), StatusIs(absl::StatusCode::kInvalidArgument, "an EOS token"));
}

// What chat asks with is what training had in front of the answer.
TEST_F(SftEncoderTest, TextsThatNestWithoutEndAreRefused) {
  const std::string deep =
      absl::StrCat(R"({"eos_token": )", std::string(100'000, '['), std::string(100'000, ']'), "}");
  for (const char* file : {"tokenizer_config.json", "special_tokens_map.json"}) {
    Write(file, deep);
    EXPECT_THAT(Make({}).status(), StatusIs(absl::StatusCode::kInvalidArgument, file));
    Write(file, "{}");
  }
}

TEST_F(SftEncoderTest, ChatPromptIsTheTrainedSamplesPrompt) {
  Write("chat_template.jinja",
        "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}: {{ m['content'] "
        "}}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}");
  const std::vector<ChatMessage> one = {{"user", "Who?"}, {"assistant", "Me."}};
  const std::vector<ChatMessage> two = {
      {"system", "Be"}, {"user", "Who?"}, {"assistant", "Me."}, {"user", "Oh"}, {"assistant", "Y"}};
  for (const std::string name : {"longlora", "llama2", "vicuna", "chatml", "chat_template"}) {
    SCOPED_TRACE(name);
    const std::vector<ChatMessage>& conversation = name == "longlora" ? one : two;
    Record record;
    record.kind = Record::Kind::kMessages;
    record.messages = conversation;
    const auto sample = Encode({.prompt_template = name}, record);
    LL_ASSERT_OK(sample.status());
    const auto encoder =
        ChatEncoder::Create(name == "chat_template" ? "" : name, tokenizer_, folder_.path());
    LL_ASSERT_OK(encoder.status());
    std::vector<ChatMessage> question(conversation.begin(), conversation.end() - 1);
    const auto ids = (*encoder)->Encode(question);
    LL_ASSERT_OK(ids.status());
    const auto answer = sample->ids.begin() + sample->loss_spans.back().first;
    EXPECT_EQ(*ids, std::vector<int32_t>(sample->ids.begin(), answer));
    EXPECT_THAT((*encoder)->stop_ids(), ElementsAre(name.starts_with("chat") ? 3 : 1));
    EXPECT_THAT((*encoder)->stop_strings(), IsEmpty());
  }
}

TEST_F(SftEncoderTest, ChatNamesWhatIsWrong) {
  ASSERT_TRUE(Make({}).ok());
  EXPECT_THAT(std::string(ChatEncoder::Create("", tokenizer_, folder_.path()).status().message()),
              HasSubstr("chat template"));
  const auto encoder = ChatEncoder::Create("llama2", tokenizer_, folder_.path());
  LL_ASSERT_OK(encoder.status());
  EXPECT_THAT(std::string((*encoder)->Encode({{"assistant", "Me."}}).status().message()),
              HasSubstr("user"));
  EXPECT_FALSE((*encoder)->Encode({{"user", "a"}, {"assistant", "b"}}).ok());
}

}  // namespace
}  // namespace ll
