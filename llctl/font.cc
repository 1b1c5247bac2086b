#include "llctl/font.h"

// An assembler's .incbin: a string literal of this size takes a compiler a minute.
asm(R"(
  .pushsection .rodata
  .global ll_font_begin
  .global ll_font_end
  .balign 16
ll_font_begin:
  .incbin ")" LL_FONT_PATH R"("
ll_font_end:
  .byte 0
  .popsection
)");

extern "C" const char ll_font_begin[];
extern "C" const char ll_font_end[];

namespace ll {

absl::string_view FontFile() {
  return {ll_font_begin, static_cast<size_t>(ll_font_end - ll_font_begin)};
}

}  // namespace ll
