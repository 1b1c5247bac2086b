#include "coordinator/web/html.h"

#include "coordinator/web/page.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

TEST(HtmlTest, TextIsEscapedAndMarkupIsNot) {
  Html out;
  out.Raw("<p title=\"").Text("\"><script>'&").Raw("\">").Number(-7).Raw("</p>");
  EXPECT_EQ(out.str(), "<p title=\"&quot;&gt;&lt;script&gt;&#39;&amp;\">-7</p>");
}

TEST(HtmlTest, BytesThatAreNoTextAreReplaced) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(Html().Text("ä€😀\n\t").str(), "ä€😀\n\t");
  EXPECT_EQ(Html().Text(absl::string_view("a\0b", 3)).str(), "a" + r + "b");
  EXPECT_EQ(Html().Text("\x1b[31m").str(), r + "[31m");
  EXPECT_EQ(Html().Text("\xC0\xBC").str(), r + r);          // '<' in two bytes
  EXPECT_EQ(Html().Text("\xED\xA0\x80").str(), r + r + r);  // a surrogate
  EXPECT_EQ(Html().Text("\xE2\x82").str(), r + r);          // cut
  EXPECT_EQ(Html().Text("\xF4\x90\x80\x80").str(), r + r + r + r);
}

TEST(HtmlTest, AddressesAreEncodedAndDecoded) {
  const std::string text = "a b/?&=%\"<ä";
  EXPECT_EQ(Html().UrlPart(text).str(), "a%20b%2F%3F%26%3D%25%22%3C%C3%A4");
  EXPECT_EQ(UrlDecode(Html().UrlPart(text).str()), text);
  EXPECT_EQ(UrlDecode("a+b%2"), "a b%2");
  EXPECT_EQ(UrlDecode("%zz%41"), "%zzA");
  EXPECT_EQ(ParseQuery("a=1&b=x%26y&a=2&c&=d"),
            (Query{{"a", "1"}, {"b", "x&y"}, {"c", ""}, {"", "d"}}));
}

}  // namespace
}  // namespace ll
