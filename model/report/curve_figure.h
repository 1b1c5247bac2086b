// Curves of trainings on one page: a panel a quantity, a colour a training. Pure, torch-free.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/report/drawing.h"

namespace ll {

struct Curve {
  std::string name;                               // of the training
  std::vector<std::pair<double, double>> points;  // x rises; NaN leaves a gap
};

struct CurvePanel {
  std::string title;  // "Throughput"
  std::string unit;   // "tokens/s"; may be empty
  std::vector<Curve> curves;
};

struct CurveFigure {
  std::string title;
  std::string x_label = "step";
  std::vector<CurvePanel> panels;
};

// Two panels a row, each with axes, grid, numbers and title; a legend where a panel has several
// curves. Curves of the same place in their panels have the same colour; the eight colours can be
// told apart by the colour-blind, and repeat. Of a long curve every peak is kept (axis.h).
Drawing LayOut(const CurveFigure& figure);

}  // namespace ll
