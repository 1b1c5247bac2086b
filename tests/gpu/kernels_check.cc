#include "tests/gpu/kernels_check.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "kernels/ops.h"
#include "tests/gpu/judge.h"

namespace ll::gpu {
namespace {

using Tensors = std::vector<at::Tensor>;

struct Shape {
  int64_t rows, width;
};

// An operation with its inputs on a device, ready to be run; returns all that it wrote.
using Prepared = std::function<Tensors()>;
struct Operation {
  std::string name;
  std::function<Prepared(at::ScalarType, Shape, at::Device)> prepare;
  // Bytes that must move for an element of rows x width whose type has `element` bytes: each input
  // read once, each output written once.
  std::function<double(double element)> bytes_an_element;
  Shape large;
  bool fp32_only = false;
};

// The same values on every device.
at::Tensor Random(at::IntArrayRef shape, at::ScalarType dtype, at::Device device, uint64_t seed) {
  at::manual_seed(seed);
  return at::randn(shape, at::kFloat).to(dtype).to(device);
}
at::Tensor Poison(at::IntArrayRef shape, at::ScalarType dtype, at::Device device) {
  return at::full(shape, NAN, at::TensorOptions().dtype(dtype).device(device));
}

Prepared NormForward(at::ScalarType t, Shape s, at::Device d) {
  const at::Tensor x = Random({s.rows, s.width}, t, d, 1), w = Random({s.width}, at::kFloat, d, 2);
  at::Tensor y = Poison({s.rows, s.width}, t, d), rstd = Poison({s.rows}, at::kFloat, d);
  return [=]() mutable -> Tensors {
    RmsNormForward(x, w, 1e-5, y, rstd);
    return {y, rstd};
  };
}

Prepared NormBackward(at::ScalarType t, Shape s, at::Device d) {
  const at::Tensor x = Random({s.rows, s.width}, t, d, 1), w = Random({s.width}, at::kFloat, d, 2);
  const at::Tensor dy = Random({s.rows, s.width}, t, d, 3);
  const at::Tensor rstd = at::rsqrt(x.to(at::kFloat).pow(2).mean(1) + 1e-5);
  at::Tensor dx = Random({s.rows, s.width}, t, d, 4), dw = at::zeros_like(w);
  return [=]() mutable -> Tensors {
    RmsNormBackward(dy, x, w, rstd, dx, dw);
    return {dx, dw};
  };
}

// Heads of 128 (or of the whole width, where that is less) in the middle of wider rows.
Prepared HeadNorm(at::ScalarType t, Shape s, at::Device d) {
  const int64_t head = s.width % 128 == 0 ? 128 : s.width;
  const at::Tensor rows = Random({s.rows, s.width + 2 * head}, t, d, 1);
  const at::Tensor w = Random({head}, at::kFloat, d, 2);
  at::Tensor x = rows.narrow(1, head, s.width), dy = Random({s.rows, s.width}, t, d, 3);
  at::Tensor y = Poison({s.rows, s.width}, t, d);
  at::Tensor rstd = Poison({s.rows * (s.width / head)}, at::kFloat, d), dw = at::zeros_like(w);
  return [=]() mutable -> Tensors {
    HeadRmsNormForward(x, w, 1e-5, y, rstd);
    HeadRmsNormBackward(dy, x, w, rstd, dw);
    return {y, rstd, dy, dw};
  };
}

Prepared Rope(at::ScalarType t, Shape s, at::Device d) {
  const int64_t head = s.width % 128 == 0 ? 128 : s.width / 2 * 2;
  at::Tensor x = Random({s.rows, s.width}, t, d, 1);
  const at::Tensor angle = Random({s.rows, head / 2}, at::kFloat, d, 2);
  const at::Tensor cos = at::cos(angle), sin = at::sin(angle);
  return [=]() mutable -> Tensors {
    RopeInPlace(x, x.size(1) / head, cos, sin, false);
    return {x};
  };
}

Prepared SwigluForwardOf(at::ScalarType t, Shape s, at::Device d) {
  const at::Tensor gate_up = Random({s.rows, 2 * s.width}, t, d, 1);
  at::Tensor out = Poison({s.rows, s.width}, t, d);
  return [=]() mutable -> Tensors {
    SwigluForward(gate_up, out);
    return {out};
  };
}

Prepared SwigluBackwardOf(at::ScalarType t, Shape s, at::Device d) {
  at::Tensor gate_up = Random({s.rows, 2 * s.width}, t, d, 1);
  const at::Tensor dout = Random({s.rows, s.width}, t, d, 2);
  return [=]() mutable -> Tensors {
    SwigluBackward(gate_up, dout);
    return {gate_up};
  };
}

Prepared CrossEntropy(at::ScalarType t, Shape s, at::Device d) {
  at::Tensor logits = Random({s.rows, s.width}, t, d, 1), nll = Poison({s.rows}, at::kFloat, d);
  at::Tensor labels = at::arange(s.rows, at::kLong).remainder(s.width).to(d);
  labels[0] = -100;
  return [=]() mutable -> Tensors {
    CrossEntropyInPlace(logits, labels, 0.5, true, nll);
    return {logits, nll};
  };
}

// A tenth of the positions share one token, as padding or a frequent word does.
Prepared Embedding(at::ScalarType t, Shape s, at::Device d) {
  const at::Tensor dy = Random({s.rows, s.width}, t, d, 1);
  at::Tensor tokens = at::arange(s.rows, at::kLong).mul(7919).remainder(s.rows + 1);
  tokens.narrow(0, 0, s.rows / 10).fill_(1);
  tokens = tokens.to(d);
  at::Tensor grad = at::zeros({s.rows + 1, s.width}, dy.options().dtype(at::kFloat));
  return [=]() mutable -> Tensors {
    EmbeddingBackward(dy, tokens, grad);
    return {grad};
  };
}

Prepared DropoutOf(at::ScalarType t, Shape s, at::Device d) {
  const at::Tensor x = Random({s.rows, s.width}, t, d, 1);
  at::Tensor y = Poison({s.rows, s.width}, t, d);
  return [=]() mutable -> Tensors {
    Dropout(x, 0.25, 1234, 3, y);
    return {y};
  };
}

Prepared Accumulate(at::ScalarType t, Shape s, at::Device d) {
  const at::Tensor x = Random({s.rows, s.width}, t, d, 1);
  at::Tensor sum = Random({s.rows, s.width}, at::kFloat, d, 2);
  return [=]() mutable -> Tensors {
    AccumulateInto(sum, x, 0.5);
    return {sum};
  };
}

// Heads of 128, or of the whole width where that is less.
Prepared MergeAttentionOf(at::ScalarType, Shape s, at::Device d) {
  const int64_t dim = s.width % 128 == 0 ? 128 : s.width, heads = s.width / dim;
  const at::Tensor part = Random({s.rows, heads, dim}, at::kFloat, d, 1),
                   part_lse = Random({heads, s.rows}, at::kFloat, d, 2);
  at::Tensor out = Random({s.rows, heads, dim}, at::kFloat, d, 3),
             lse = Random({heads, s.rows}, at::kFloat, d, 4);
  return [=]() mutable -> Tensors {
    MergeAttention(out, lse, part, part_lse);
    return {out, lse};
  };
}

Prepared AdamW(at::ScalarType, Shape s, at::Device d) {
  at::Tensor master = Random({s.rows, s.width}, at::kFloat, d, 1);
  at::Tensor m = at::zeros_like(master), v = at::zeros_like(master);
  at::Tensor compute = Poison({s.rows, s.width}, at::kBFloat16, d);
  const at::Tensor grad = Random({s.rows, s.width}, at::kFloat, d, 2);
  AdamWSettings settings;
  settings.lr = 1e-3;
  return [=]() mutable -> Tensors {
    AdamWStep(settings, master, m, v, grad, compute);
    return {master, m, v, compute};
  };
}

Prepared SumSquaresOf(at::ScalarType, Shape s, at::Device d) {
  const at::Tensor x = Random({s.rows, s.width}, at::kFloat, d, 1);
  return [=]() -> Tensors { return {at::tensor(SumSquares(x), at::kDouble)}; };
}

// The codes as numbers, which compare by their bytes; their scales; the values; the transposed
// codes.
Prepared Fp8(at::ScalarType, Shape s, at::Device d) {
  const at::Tensor x = Random({s.rows, s.width}, at::kBFloat16, d, 1);
  const at::Tensor factors = at::exp2(Random({s.width}, at::kFloat, at::kCPU, 2).round()).to(d);
  Fp8Rows q{at::empty({s.rows, s.width}, x.options().dtype(at::kFloat8_e4m3fn)),
            Poison({s.rows}, at::kFloat, d)};
  at::Tensor values = Poison({s.rows, s.width}, at::kBFloat16, d);
  at::Tensor transposed = at::empty({s.width, s.rows}, q.codes.options());
  return [=]() mutable -> Tensors {
    QuantizeFp8(x, factors, q);
    DequantizeFp8(q, factors, values);
    TransposeFp8(q.codes, transposed);
    return {q.codes.view(at::kByte), q.scales, values, transposed.view(at::kByte)};
  };
}

// NF4's own host and device bytes are nf4_cuda_check's.
const std::vector<Operation>& Operations() {
  static const std::vector<Operation> all = {
      {"rms_norm_forward", NormForward, [](double e) { return 2 * e; }, {32768, 4096}},
      {"rms_norm_backward", NormBackward, [](double e) { return 4 * e; }, {32768, 4096}},
      {"head_rms_norm", HeadNorm, [](double e) { return 5 * e; }, {32768, 4096}},
      {"rope", Rope, [](double e) { return 2 * e; }, {32768, 4096}},
      {"swiglu_forward", SwigluForwardOf, [](double e) { return 3 * e; }, {32768, 11008}},
      {"swiglu_backward", SwigluBackwardOf, [](double e) { return 5 * e; }, {32768, 11008}},
      {"cross_entropy", CrossEntropy, [](double e) { return 2 * e; }, {4096, 32000}},
      {"embedding_backward", Embedding, [](double e) { return e + 8; }, {32768, 4096}},
      {"dropout", DropoutOf, [](double e) { return 2 * e; }, {32768, 4096}},
      {"accumulate", Accumulate, [](double e) { return e + 8; }, {32000, 4096}},
      {"merge_attention", MergeAttentionOf, [](double) { return 12.0; }, {32768, 4096}, true},
      {"fp8", Fp8, [](double) { return 3.0 + 3.0 + 2.0; }, {32768, 4096}, true},
      {"adamw", AdamW, [](double) { return 30.0; }, {32000, 4096}, true},
      {"sum_squares", SumSquaresOf, [](double) { return 4.0; }, {32000, 4096}, true}};
  return all;
}

double WorstError(const at::Tensor& got, const at::Tensor& expected) {
  const at::Tensor g = got.cpu().to(at::kDouble), e = expected.to(at::kDouble);
  const double scale = std::max(e.abs().max().item<double>(), 1e-30);
  const double error = (g - e).abs().max().item<double>() / scale;
  return std::isnan(error) ? INFINITY : error;
}

const char* TypeName(at::ScalarType t) { return t == at::kFloat ? "fp32" : "bf16"; }

template <typename Call>
double MedianSeconds(Call call) {
  std::vector<double> seconds;
  for (int i = -3; i < 20; ++i) {
    Synchronize(at::kCUDA);
    const auto start = std::chrono::steady_clock::now();
    call();
    Synchronize(at::kCUDA);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (i >= 0) seconds.push_back(took.count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

// What a copy of so many bytes, half of them read, reaches.
double CopyBytesPerSecond(double bytes) {
  const at::Tensor from = at::randn({static_cast<int64_t>(bytes / 8)}, at::Device(at::kCUDA));
  at::Tensor to = at::empty_like(from);
  return bytes / MedianSeconds([&] { to.copy_(from); });
}

}  // namespace

bool CheckKernels(const std::function<void(const nlohmann::ordered_json&)>& write) {
  bool all_ok = true;
  for (const Operation& operation : Operations()) {
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      if (operation.fp32_only && type != at::kFloat) continue;
      for (const Shape shape :
           {Shape{1, 2}, {3, 18}, {33, 64}, {130, 1026}, {257, 4096}, {5, 16384}}) {
        const Tensors expected = operation.prepare(type, shape, at::kCPU)();
        const Tensors got = operation.prepare(type, shape, at::kCUDA)();
        double error = 0;
        for (size_t i = 0; i < got.size(); ++i)
          error = std::max(error, WorstError(got[i], expected[i]));
        // One step of the type's mantissa: both round the same fp32 sums, in another order.
        const bool ok = error <= (type == at::kFloat ? 2e-5 : 1.0 / 128);
        all_ok = all_ok && ok;
        write({{"kernel", operation.name},
               {"type", TypeName(type)},
               {"rows", shape.rows},
               {"width", shape.width},
               {"error", std::isfinite(error) ? nlohmann::ordered_json(error)
                                              : nlohmann::ordered_json("not finite")},
               {"status", ok ? "ok" : "wrong"}});
      }
    }
  }
  return all_ok;
}

void TimeKernels(const std::function<void(const nlohmann::ordered_json&)>& write) {
  for (const Operation& operation : Operations()) {
    const Shape shape = operation.large;
    const double elements = static_cast<double>(shape.rows * shape.width);
    const double bytes = elements * operation.bytes_an_element(2);
    const Prepared run = operation.prepare(at::kBFloat16, shape, at::kCUDA);
    const double seconds = MedianSeconds([&] { run(); });
    const double copy = CopyBytesPerSecond(bytes);
    write({{"kernel", operation.name},
           {"type", operation.fp32_only ? "fp32" : "bf16"},
           {"rows", shape.rows},
           {"width", shape.width},
           {"seconds", seconds},
           {"bytes", bytes},
           {"bytes_per_second", bytes / seconds},
           {"copy_bytes_per_second", copy},
           {"share_of_copy", bytes / seconds / copy}});
  }
}

}  // namespace ll::gpu
