// Quantises a matrix to NF4 for check_nf4.py.
//
//   nf4_driver fp32|bf16 ROWS COLUMNS OFFSET|mean IN OUT
//
// IN: fp32 values. OUT: codes, absmax codes, nested absmax (fp32), offset (fp32), dequantised
// values (fp32), the nested map (fp32), one after the other.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>

#include "kernels/ops.h"

int main(int argc, char** argv) {
  if (argc != 7) {
    std::cerr << "usage: nf4_driver fp32|bf16 ROWS COLUMNS OFFSET|mean IN OUT\n";
    return 2;
  }
  const std::string dtype = argv[1], offset = argv[4];
  const int64_t rows = std::atoll(argv[2]), columns = std::atoll(argv[3]);
  at::Tensor w = at::empty({rows, columns}, at::kFloat);
  std::ifstream in(argv[5], std::ios::binary);
  in.read(static_cast<char*>(w.data_ptr()), w.nbytes());
  if (!in) {
    std::cerr << "nf4_driver: " << argv[5] << " is too short\n";
    return 1;
  }
  if (dtype == "bf16") w = w.to(at::kBFloat16);
  const ll::Nf4Tensor q = offset == "mean"
                              ? ll::QuantizeNf4(w)
                              : ll::QuantizeNf4(w, std::strtof(offset.c_str(), nullptr));
  at::Tensor back = at::empty_like(w);
  ll::DequantizeNf4(q, back);
  std::ofstream out(argv[6], std::ios::binary);
  for (const at::Tensor& t : {q.codes, q.absmax, q.nested_absmax, at::tensor(q.offset, at::kFloat),
                              back.to(at::kFloat), ll::Nf4NestedQuantMap()}) {
    out.write(static_cast<const char*>(t.const_data_ptr()),
              static_cast<std::streamsize>(t.nbytes()));
  }
  return out.flush() ? 0 : 1;
}
