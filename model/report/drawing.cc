#include "model/report/drawing.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace ll {
namespace {

const char* AnchorName(TextAnchor anchor) {
  switch (anchor) {
    case TextAnchor::kStart:
      return "start";
    case TextAnchor::kMiddle:
      return "middle";
    case TextAnchor::kEnd:
      return "end";
  }
  return "start";
}

// XML knows no control characters but these three.
std::string Escaped(const std::string& text) {
  std::string plain;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 || c == '\t' || c == '\n' || c == '\r') plain.push_back(c);
  }
  return absl::StrReplaceAll(plain,
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

}  // namespace

std::string DrawingSvg(const Drawing& drawing) {
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
      "font-family=\"sans-serif\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
      drawing.width, drawing.height, drawing.width, drawing.height);
  for (const DrawnLine& line : drawing.lines) {
    absl::StrAppendFormat(&svg,
                          "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"%g\" "
                          "stroke-linejoin=\"round\" points=\"",
                          line.color, line.width);
    for (const auto& [x, y] : line.points) absl::StrAppendFormat(&svg, "%.2f,%.2f ", x, y);
    svg.back() = '"';
    svg += "/>\n";
  }
  for (const DrawnText& text : drawing.texts) {
    absl::StrAppendFormat(
        &svg,
        "<text x=\"%.2f\" y=\"%.2f\" font-size=\"%g\" fill=\"%s\" text-anchor=\"%s\">%s</text>\n",
        text.x, text.y, text.size, text.color, AnchorName(text.anchor), Escaped(text.text));
  }
  return absl::StrCat(svg, "</svg>\n");
}

}  // namespace ll
