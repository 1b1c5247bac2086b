// A drawing as a PNG file: FreeType fills lines and letters (of DejaVu Sans, which is part of the
// program, so that a picture needs no font of its host and is the same everywhere), libpng writes.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/report/drawing.h"

namespace ll {

// `scale` pixels a unit of the drawing, which may be at most 10,000 pixels wide and high. Errors:
// InvalidArgument (size, colour), Internal (a library). Thread-safe.
absl::StatusOr<std::string> DrawingPng(const Drawing& drawing, double scale);

}  // namespace ll
