#include "kernels/transpose/transpose.h"

#include "kernels/common/transpose.h"

namespace ll::LL_SIMD {
namespace {

// The columns [column, column + columns) of a group of 32 rows, or of the fewer at the end.
void Group(const TransposeParams& p, int64_t item, int64_t column, int64_t columns) {
  const int64_t row = item * kTransposeRows;
  const int64_t rows = p.rows - row < kTransposeRows ? p.rows - row : kTransposeRows;
  const BFloat16* x = p.x + row * p.ldx;
  BFloat16* y = p.y + row;
  int64_t c = column;
  const int64_t end = column + columns;
  if (rows == kTransposeRows) {
    for (; c + kTileColumns <= end; c += kTileColumns)
      TransposeTile(x + c, p.ldx, y + c * p.ldy, p.ldy);
  }
  for (; c < end; ++c) {
    for (int64_t r = 0; r < rows; ++r) y[c * p.ldy + r] = x[r * p.ldx + c];
  }
}

}  // namespace

void Transpose(const TransposeParams& p, int64_t begin, int64_t end) {
  for (int64_t first = begin; first < end; first += kTransposeGroups) {
    const int64_t last = first + kTransposeGroups < end ? first + kTransposeGroups : end;
    for (int64_t c = 0; c < p.columns; c += kTransposeColumns) {
      const int64_t columns = p.columns - c < kTransposeColumns ? p.columns - c : kTransposeColumns;
      for (int64_t item = first; item < last; ++item) Group(p, item, c, columns);
    }
  }
  FinishLines();
}

}  // namespace ll::LL_SIMD
