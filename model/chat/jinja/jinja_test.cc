#include <string>

#include "base/status_matchers.h"
#include "model/chat/jinja/template.h"

namespace ll::jinja {
namespace {

using testing::ElementsAre;
using testing::Pair;

Value Message(const std::string& role, const std::string& content) {
  Dict dict;
  dict.Set("role", Value::String(role));
  dict.Set("content", Value::String(content));
  return Value::Of(dict);
}

Dict Globals() {
  Dict globals;
  globals.Set("messages", Value::Of(List{Message("user", " Hi "), Message("assistant", "Yo")}));
  globals.Set("bos_token", Value::String("<s>"));
  globals.Set("n", Value::Int(7));
  return globals;
}

absl::StatusOr<std::string> Render(absl::string_view source, const Limits& limits = {}) {
  auto parsed = Template::Parse(source);
  if (!parsed.ok()) return parsed.status();
  auto rendered = (*parsed)->Render(Globals(), limits);
  if (!rendered.ok()) return rendered.status();
  return rendered->text;
}

// One line a case: the template and what jinja2 3.1 prints for it (trim_blocks, lstrip_blocks on).
TEST(Jinja, PrintsWhatJinjaPrints) {
  const std::pair<const char*, const char*> kCases[] = {
      {"a{{ bos_token }}b", "a<s>b"},
      {"{{ 'it''s' \"x\" }}", "itsx"},
      {"{{ 1 + 2 * 3 - 4 // 3 % 2 }}", "6"},
      {"{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 4 / 2 }}", "-4 2 3.5 2.0"},
      {"{{ 1 ~ 'a' ~ none ~ true }}", "1aNoneTrue"},
      {"{{ 'a' if n > 3 else 'b' }}{{ 'c' if n > 9 }}", "a"},
      {"{{ n == 7 and not (n < 3 or n != 7) }}", "True"},
      {"{{ 1 < n <= 7 }} {{ 'a' in 'cat' }} {{ 'x' not in ['y'] }}", "True True True"},
      {"{{ nothing or 'default' }}{{ nothing }}{{ nothing is defined }}", "defaultFalse"},
      {"{{ messages[0].content | trim | upper }}", "HI"},
      {"{{ messages[-1]['role'] }} {{ messages | length }}", "assistant 2"},
      {"{{ messages[1:] | length }} {{ 'héllo'[1:3] }} {{ 'abc'[::-1] }} {{ 'abc'[-1] }}",
       "1 él cba c"},
      {"{{ messages | tojson }}",
       "[{\"role\": \"user\", \"content\": \" Hi \"}, {\"role\": \"assistant\", \"content\": "
       "\"Yo\"}]"},
      {"{{ {'a': [1, 2.5, none]} }}", "{'a': [1, 2.5, None]}"},
      {"{{ {'a': \"é\\n\"} | tojson(indent=2) }}", "{\n  \"a\": \"é\\n\"\n}"},
      {"{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | first }}",
       " Hi "},
      {"{{ ['b', 'c'] | join(', ') }} {{ 'a-b'.split('-')[1] }} {{ ' a  b '.split() }}",
       "b, c b ['a', 'b']"},
      {"{{ 'xxax'.strip('x') }} {{ 'abc'.startswith('ab') }} {{ 'aXb'.replace('X', '-') }}",
       "a True a-b"},
      {"{{ 'abc' is string }} {{ n is number }} {{ n is divisibleby 7 }} {{ {} is mapping }}",
       "True True True True"},
      {"{{ 'x' * 3 }} {{ [1] + [2] }} {{ nothing | default('d') }} {{ '' | default('e', true) }}",
       "xxx [1, 2] d e"},
      {"{{ 'hELLO wörld' | title }} {{ 'hELLO' | capitalize }}", "Hello Wörld Hello"},
      {"{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %}", "a1b2"},
      {"{% for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }}{% else %}none"
       "{% endfor %}",
       "1/1"},
      {"{% for i in [] %}x{% else %}none{% endfor %}", "none"},
      {"{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i > 3 %}{% break %}"
       "{% endif %}{{ i }}{% endfor %}",
       "023"},
      {"{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{% endfor %}{{ x }}", "1"},
      {"{% set ns = namespace(x=1) %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}"
       "{{ ns.x }}",
       "4"},
      {"{% set t %}[{{ n }}]{% endset %}{{ t | length }}", "3"},
      {"{% raw %}{{ n }}{% endraw %}{# gone #}", "{{ n }}"},
      {"{% if n == 1 %}a{% elif n == 7 %}b{% else %}c{% endif %}", "b"},
      {"{{ raise_exception is defined }} {{ strftime_now is defined }}", "True False"},
      {"a\n", "a"},
      {"  {% if true %}\n  x\n  {% endif %}\ny", "  x\ny"},
      {"a  {%- if true -%}  x  {%- endif %}  b", "ax  b"},
      {"  {{- n -}}  \n b", "7b"},
      {"  {%+ if true %}x{% endif %}", "  x"},
      {"  {# c #}\nx", "x"},
  };
  for (const auto& [source, expected] : kCases) {
    const auto got = Render(source);
    ASSERT_TRUE(got.ok()) << source << ": " << got.status();
    EXPECT_EQ(*got, expected) << source;
  }
}

TEST(Jinja, ErrorsNameLineAndPart) {
  const std::pair<const char*, const char*> kCases[] = {
      {"a\n{{ x | frobnicate }}", "line 2: unknown filter \"frobnicate\""},
      {"{% macro f() %}{% endmacro %}", "line 1: unknown tag \"macro\""},
      {"{{ n is weird }}", "unknown test \"weird\""},
      {"{{ strftime_now('%d') }}", "unknown function \"strftime_now\""},
      {"{{ messages[0].content.encode() }}", "unknown function \"encode\""},
      {"{{ n ** 2 }}", "unknown operator \"**\""},
      {"{{ n ! 2 }}", "unknown syntax \"! 2"},
      {"{{ nothing.x }}", "\"nothing\" is undefined"},
      {"{{ nothing + 'a' }}", "\"nothing\" is undefined"},
      {"{{ 1 + 'a' }}", "does not work on an integer and a string"},
      {"{{ raise_exception('roles must alternate') }}", "refuses: roles must alternate"},
      {"{% if n %}", "the template ends before {% endif %}"},
      {"{% break %}", "unknown tag \"break\""},
      {"{{ 'a }}", "the string has no end"},
      {"{{ n", "the tag has no end"},
      {"{# a", "the comment has no end"},
      {"{{ (n] }}", "unexpected \"]\""},
      {"{{ n // 0 }}", "division by zero"},
      {"{{ 9223372036854775807 + 1 }}", "the integer is too large"},
      {"{% for a, b in [1] %}{% endfor %}", "cannot unpack"},
      {"{% set n.x = 1 %}", "which is no namespace"},
      {"{{ range }}", "cannot print a function"},
  };
  for (const auto& [source, expected] : kCases) {
    EXPECT_THAT(Render(source), StatusIs(absl::StatusCode::kInvalidArgument, expected)) << source;
  }
}

TEST(Jinja, HostileTemplatesEndInAnError) {
  const auto repeat = [](absl::string_view text, int count) {
    std::string out;
    for (int i = 0; i < count; ++i) out.append(text.data(), text.size());
    return out;
  };
  const std::string kCases[] = {
      "{{ " + repeat("(", 100000) + " }}",
      "{{ " + repeat("-", 100000) + "1 }}",
      "{{ " + repeat("not ", 100000) + "1 }}",
      "{{ 1" + repeat(" + 1", 100000) + " }}",
      "{{ n" + repeat(".x", 100000) + " }}",
      "{{ n" + repeat("|list", 100000) + " }}",
      repeat("{% if 1 %}", 100000),
      "{% if 0 %}" + repeat("{% elif 0 %}", 50000) + "{% endif %}",
      "{% for i in range(100000000000) %}{% endfor %}",
      "{% for i in range(9000) %}{% for j in range(9000) %}{% endfor %}{% endfor %}",
      "{{ 'abcdefgh' * 1000000000 }}",
      "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}"
      "{% endfor %}",
      "{% set ns = namespace(s=[]) %}{% for i in range(99999) %}{% set ns.s = [ns.s] %}{% endfor %}"
      "{{ ns.s }}",
      "{% set ns = namespace() %}{% set ns.s = ns %}",
      repeat("x", 2 << 20),
  };
  for (const std::string& source : kCases) {
    EXPECT_THAT(Render(source), StatusIs(absl::StatusCode::kInvalidArgument, "line 1"))
        << source.substr(0, 60);
  }
}

TEST(Jinja, OutputAndStepsAreBounded) {
  const char* source = "{% for i in range(1000) %}0123456789{% endfor %}";
  EXPECT_THAT(Render(source, {.output_bytes = 9999}),
              StatusIs(absl::StatusCode::kInvalidArgument, "longer than 9999 bytes"));
  LL_EXPECT_OK(Render(source, {.output_bytes = 10000}));
  EXPECT_THAT(Render(source, {.steps = 1000}),
              StatusIs(absl::StatusCode::kInvalidArgument, "more than 1000 steps"));
}

TEST(Jinja, GenerationBlocksGiveTheirSpans) {
  LL_ASSERT_OK_AND_ASSIGN(
      const auto parsed,
      Template::Parse("{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}"
                      "{% generation %}{{ m.content }};{% endgeneration %}{% endif %}\n"
                      "{% endfor %}"));
  EXPECT_TRUE(parsed->marks_generation());
  LL_ASSERT_OK_AND_ASSIGN(const Rendered rendered, parsed->Render(Globals()));
  EXPECT_EQ(rendered.text, "[user][assistant]Yo;");
  EXPECT_THAT(rendered.generated, ElementsAre(Pair(17, 20)));
}

TEST(Jinja, AGenerationBlockInsideAnotherIsPartOfItsSpan) {
  LL_ASSERT_OK_AND_ASSIGN(
      const auto parsed,
      Template::Parse("a{% generation %}b{% generation %}cd{% endgeneration %}e{% endgeneration %}"
                      "f{% generation %}g{% endgeneration %}"));
  LL_ASSERT_OK_AND_ASSIGN(const Rendered rendered, parsed->Render(Globals()));
  EXPECT_EQ(rendered.text, "abcdefg");
  EXPECT_THAT(rendered.generated, ElementsAre(Pair(1, 5), Pair(6, 7)));
}

}  // namespace
}  // namespace ll::jinja
