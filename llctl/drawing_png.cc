#include "llctl/drawing_png.h"

#include <ft2build.h>
#include FT_FREETYPE_H
#include FT_OUTLINE_H
#include FT_STROKER_H
#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "llctl/font.h"

namespace ll {
namespace {

constexpr double kLargestSide = 10'000;
// An outline counts its points in 16 bits, and a stroke makes several of each.
constexpr size_t kPointsAtOnce = 500;

struct Rgb {
  uint8_t r, g, b;
};

absl::StatusOr<Rgb> ColorOfText(const std::string& text) {
  uint32_t value = 0;
  if (text.size() != 7 || text[0] != '#' || !absl::SimpleHexAtoi(text.substr(1), &value))
    return MakeFieldError({"color", "#rrggbb", OneLine(text)});
  return Rgb{static_cast<uint8_t>(value >> 16), static_cast<uint8_t>(value >> 8),
             static_cast<uint8_t>(value)};
}

FT_Pos Fixed26(double pixels) { return static_cast<FT_Pos>(std::lround(pixels * 64)); }

// The next character of UTF-8; what is none becomes U+FFFD.
uint32_t NextCodePoint(absl::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(i < text.size() ? text[i] : 0); };
  const uint8_t first = byte(at);
  const int more = first < 0x80             ? 0
                   : (first & 0xE0) == 0xC0 ? 1
                   : (first & 0xF0) == 0xE0 ? 2
                   : (first & 0xF8) == 0xF0 ? 3
                                            : -1;
  if (more < 0) {
    ++at;
    return 0xFFFD;
  }
  uint32_t code = more == 0 ? first : first & (0x3F >> more);
  for (int i = 1; i <= more; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) {
      ++at;
      return 0xFFFD;
    }
    code = (code << 6) | (byte(at + i) & 0x3F);
  }
  at += 1 + more;
  return code;
}

class Canvas {
 public:
  Canvas(int width, int height)
      : width_(width), height_(height), pixels_(static_cast<size_t>(width) * height * 3, 0xFF) {}
  ~Canvas() {
    if (stroker_ != nullptr) FT_Stroker_Done(stroker_);
    if (face_ != nullptr) FT_Done_Face(face_);
    if (library_ != nullptr) FT_Done_FreeType(library_);
  }
  Canvas(const Canvas&) = delete;
  Canvas& operator=(const Canvas&) = delete;

  absl::Status Open() {
    const absl::string_view font = FontFile();
    LL_RETURN_IF_ERROR(Check(FT_Init_FreeType(&library_), "start"));
    LL_RETURN_IF_ERROR(
        Check(FT_New_Memory_Face(library_, reinterpret_cast<const FT_Byte*>(font.data()),
                                 static_cast<FT_Long>(font.size()), 0, &face_),
              "read the font"));
    return Check(FT_Stroker_New(library_, &stroker_), "make a pen");
  }

  absl::Status DrawLine(const DrawnLine& line, double scale) {
    LL_ASSIGN_OR_RETURN(const Rgb color, ColorOfText(line.color));
    // Parts overlap in one point, so that their joints are round too.
    for (size_t from = 0; from + 1 < line.points.size(); from += kPointsAtOnce) {
      const size_t to = std::min(from + kPointsAtOnce + 1, line.points.size());
      LL_RETURN_IF_ERROR(DrawStroke(line, from, to, scale, color));
    }
    return absl::OkStatus();
  }

  absl::Status DrawText(const DrawnText& text, double scale) {
    LL_ASSIGN_OR_RETURN(const Rgb color, ColorOfText(text.color));
    LL_RETURN_IF_ERROR(
        Check(FT_Set_Char_Size(face_, 0, Fixed26(text.size * scale), 72, 72), "set a size"));
    const double width = WidthOf(text.text);
    double x = text.x * scale - (text.anchor == TextAnchor::kMiddle ? width / 2
                                 : text.anchor == TextAnchor::kEnd  ? width
                                                                    : 0);
    for (size_t at = 0; at < text.text.size();) {
      const uint32_t code = NextCodePoint(text.text, at);
      if (FT_Load_Char(face_, code, FT_LOAD_NO_HINTING) != 0) continue;
      FT_Outline& outline = face_->glyph->outline;
      FT_Outline_Translate(&outline, Fixed26(x), Fixed26(height_ - text.y * scale));
      LL_RETURN_IF_ERROR(Fill(outline, color));
      x += face_->glyph->linearHoriAdvance / 65536.0;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Png() const {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    image.width = width_;
    image.height = height_;
    image.format = PNG_FORMAT_RGB;
    png_alloc_size_t bytes = PNG_IMAGE_PNG_SIZE_MAX(image);
    std::string out(bytes, '\0');
    if (!png_image_write_to_memory(&image, out.data(), &bytes, 0, pixels_.data(), 0, nullptr))
      return absl::InternalError(absl::StrCat("libpng: ", image.message));
    out.resize(bytes);
    return out;
  }

 private:
  static absl::Status Check(FT_Error error, absl::string_view what) {
    if (error == 0) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("FreeType cannot ", what, ": error ", error));
  }

  double WidthOf(absl::string_view text) {
    double width = 0;
    for (size_t at = 0; at < text.size();) {
      const uint32_t code = NextCodePoint(text, at);
      if (FT_Load_Char(face_, code, FT_LOAD_NO_HINTING) == 0)
        width += face_->glyph->linearHoriAdvance / 65536.0;
    }
    return width;
  }

  // FreeType's y rises, a picture's falls.
  FT_Vector At(const std::pair<double, double>& point, double scale) const {
    return {Fixed26(point.first * scale), Fixed26(height_ - point.second * scale)};
  }

  absl::Status DrawStroke(const DrawnLine& line, size_t from, size_t to, double scale, Rgb color) {
    FT_Stroker_Set(stroker_, Fixed26(line.width * scale / 2), FT_STROKER_LINECAP_ROUND,
                   FT_STROKER_LINEJOIN_ROUND, 0);
    FT_Vector at = At(line.points[from], scale);
    FT_Error error = FT_Stroker_BeginSubPath(stroker_, &at, /*open=*/true);
    for (size_t i = from + 1; error == 0 && i < to; ++i) {
      at = At(line.points[i], scale);
      error = FT_Stroker_LineTo(stroker_, &at);
    }
    if (error == 0) error = FT_Stroker_EndSubPath(stroker_);
    FT_UInt points = 0, contours = 0;
    if (error == 0) error = FT_Stroker_GetCounts(stroker_, &points, &contours);
    LL_RETURN_IF_ERROR(Check(error, "follow a line"));
    FT_Outline outline;
    LL_RETURN_IF_ERROR(
        Check(FT_Outline_New(library_, points, static_cast<FT_Int>(contours), &outline),
              "make an outline"));
    outline.n_points = 0;
    outline.n_contours = 0;
    FT_Stroker_Export(stroker_, &outline);
    const absl::Status status = Fill(outline, color);
    outline.n_points = static_cast<short>(points);
    outline.n_contours = static_cast<short>(contours);
    FT_Outline_Done(library_, &outline);
    return status;
  }

  // Spans of coverage that the rasterizer hands out are blended at once.
  absl::Status Fill(FT_Outline& outline, Rgb color) {
    struct Target {
      Canvas* canvas;
      Rgb color;
    } target{this, color};
    FT_Raster_Params params{};
    params.flags = FT_RASTER_FLAG_AA | FT_RASTER_FLAG_DIRECT | FT_RASTER_FLAG_CLIP;
    params.clip_box = {0, 0, width_, height_};
    params.user = &target;
    params.gray_spans = [](int y, int count, const FT_Span* spans, void* user) {
      auto& to = *static_cast<Target*>(user);
      for (int i = 0; i < count; ++i)
        to.canvas->Blend(spans[i].x, y, spans[i].len, spans[i].coverage, to.color);
    };
    return Check(FT_Outline_Render(library_, &outline, &params), "fill an outline");
  }

  void Blend(int x, int y, int length, int coverage, Rgb color) {
    if (y < 0 || y >= height_) return;
    uint8_t* pixel = &pixels_[(static_cast<size_t>(height_ - 1 - y) * width_ + x) * 3];
    const auto mix = [coverage](uint8_t under, uint8_t over) {
      return static_cast<uint8_t>((under * (255 - coverage) + over * coverage + 127) / 255);
    };
    for (int i = 0; i < length && x + i < width_; ++i, pixel += 3) {
      pixel[0] = mix(pixel[0], color.r);
      pixel[1] = mix(pixel[1], color.g);
      pixel[2] = mix(pixel[2], color.b);
    }
  }

  const int width_, height_;
  std::vector<uint8_t> pixels_;  // RGB, rows from above
  FT_Library library_ = nullptr;
  FT_Face face_ = nullptr;
  FT_Stroker stroker_ = nullptr;
};

}  // namespace

absl::StatusOr<std::string> DrawingPng(const Drawing& drawing, double scale) {
  const double width = drawing.width * scale, height = drawing.height * scale;
  if (!(width >= 1 && width <= kLargestSide && height >= 1 && height <= kLargestSide)) {
    return MakeFieldError(
        {"size", "1 to 10,000 pixels a side", absl::StrCat(width, " x ", height)});
  }
  Canvas canvas(static_cast<int>(width), static_cast<int>(height));
  LL_RETURN_IF_ERROR(canvas.Open());
  for (const DrawnLine& line : drawing.lines) LL_RETURN_IF_ERROR(canvas.DrawLine(line, scale));
  for (const DrawnText& text : drawing.texts) LL_RETURN_IF_ERROR(canvas.DrawText(text, scale));
  return canvas.Png();
}

}  // namespace ll
