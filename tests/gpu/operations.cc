#include "tests/gpu/operations.h"

#include <cmath>

#include "kernels/fp8/fp8.h"
#include "kernels/global_norm/global_norm.h"
#include "kernels/ops.h"

namespace ll::gpu {
namespace {

using Prepared = std::function<Tensors()>;

constexpr double kEps = 1e-5;
constexpr int64_t kGuard = 256;  // elements of NaN on each side of a poisoned tensor

at::Tensor Random(at::IntArrayRef shape, at::ScalarType dtype, at::Device device, uint64_t seed) {
  at::manual_seed(seed);
  return at::randn(shape, at::device(device)).to(dtype);
}

// Statistics and sums are fp32 where their inputs are narrower.
at::Tensor Wide(const at::Tensor& t) {
  return t.to(at::promote_types(t.scalar_type(), at::kFloat));
}

// Heads of 128, or of the whole width where it is no multiple, with an even number of elements.
int64_t HeadDim(int64_t width) { return width % 128 == 0 ? 128 : width / 2 * 2; }

// ---- RMSNorm: x, w[, dy, dx before]

at::Tensor Rstd(const at::Tensor& x) {
  return at::rsqrt(Wide(x).square().mean(-1, /*keepdim=*/true) + kEps);
}

Tensors PlainNormForward(const Tensors& in) {
  const at::Tensor &x = in[0], rstd = Rstd(x);
  return {((Wide(x) * rstd).to(x.dtype()) * in[1]).to(x.dtype()), rstd.squeeze(-1)};
}

Prepared NormForward(const Tensors& in) {
  const at::Tensor x = in[0], w = in[1];
  at::Tensor y = Poison(x.sizes(), x.options()), rstd = Poison({x.size(0)}, w.options());
  return [=]() mutable -> Tensors {
    RmsNormForward(x, w, kEps, y, rstd);
    return {y, rstd};
  };
}

// {gradient of x in x's type, gradient of w}, rows of w's width.
Tensors PlainNormGradient(const at::Tensor& x, const at::Tensor& w, const at::Tensor& dy) {
  const at::Tensor rstd = Rstd(x), normal = Wide(x) * rstd, g = Wide(dy) * w;
  const at::Tensor dx = rstd * (g - normal * (g * normal).mean(-1, /*keepdim=*/true));
  return {dx.to(x.dtype()), (Wide(dy) * Wide(normal.to(x.dtype()))).flatten(0, -2).sum(0)};
}

Tensors PlainNormBackward(const Tensors& in) {
  const Tensors gradient = PlainNormGradient(in[0], in[1], in[2]);
  return {in[3] + gradient[0], gradient[1]};
}

Prepared NormBackward(const Tensors& in) {
  const at::Tensor x = in[0], w = in[1], dy = in[2], rstd = Rstd(x).squeeze(-1);
  at::Tensor dx = in[3].clone(), dw = at::zeros_like(w);
  return [=]() mutable -> Tensors {
    RmsNormBackward(dy, x, w, rstd, dx, dw);
    return {dx, dw};
  };
}

// Heads in the middle of wider rows, as q and k lie beside v: rows, w, dy.
at::Tensor Heads(const at::Tensor& rows, const at::Tensor& w, int64_t width) {
  return rows.narrow(1, w.numel(), width).unflatten(1, {-1, w.numel()});
}

Tensors PlainHeadNorm(const Tensors& in) {
  const int64_t width = in[2].size(1);
  const at::Tensor x = Heads(in[0], in[1], width);
  const Tensors y = PlainNormForward({x, in[1]});
  const Tensors gradient = PlainNormGradient(x, in[1], in[2].view(x.sizes()));
  return {y[0].flatten(1), y[1].flatten(), gradient[0].flatten(1), gradient[1]};
}

Prepared HeadNorm(const Tensors& in) {
  const at::Tensor w = in[1], x = in[0].narrow(1, w.numel(), in[2].size(1));
  at::Tensor dy = in[2].clone(), dw = at::zeros_like(w);
  at::Tensor y = Poison(x.sizes(), x.options());
  at::Tensor rstd = Poison({x.numel() / w.numel()}, w.options());
  return [=]() mutable -> Tensors {
    HeadRmsNormForward(x, w, kEps, y, rstd);
    HeadRmsNormBackward(dy, x, w, rstd, dw);
    return {y, rstd, dy, dw};
  };
}

// ---- RoPE: rows wider than the heads that are rotated, cos, sin

Tensors PlainRope(const Tensors& in) {
  at::Tensor rows = in[0].clone();
  const int64_t half = in[1].size(1), heads = std::max<int64_t>(1, rows.size(1) / (2 * half) - 2);
  at::Tensor x = rows.narrow(1, 0, 2 * half * heads).unflatten(1, {heads, 2 * half});
  const at::Tensor cos = at::cat({in[1], in[1]}, 1).unsqueeze(1).to(x.dtype());
  const at::Tensor sin = at::cat({in[2], in[2]}, 1).unsqueeze(1).to(x.dtype());
  const at::Tensor turned = at::cat({-x.narrow(2, half, half), x.narrow(2, 0, half)}, 2);
  x.copy_(x * cos + turned * sin);
  return {rows};
}

Prepared Rope(const Tensors& in) {
  at::Tensor rows = in[0].clone();
  const at::Tensor cos = in[1], sin = in[2];
  const int64_t head = 2 * cos.size(1), heads = std::max<int64_t>(1, rows.size(1) / head - 2);
  return [=]() mutable -> Tensors {
    RopeInPlace(rows, heads, cos, sin, /*backward=*/false);
    return {rows};
  };
}

// ---- SwiGLU: gate_up[, dout]

Tensors PlainSwigluForward(const Tensors& in) {
  const int64_t width = in[0].size(1) / 2;
  return {at::silu(in[0].narrow(1, 0, width)) * in[0].narrow(1, width, width)};
}

Prepared SwigluForwardOf(const Tensors& in) {
  const at::Tensor gate_up = in[0];
  at::Tensor out = Poison({gate_up.size(0), gate_up.size(1) / 2}, gate_up.options());
  return [=]() mutable -> Tensors {
    SwigluForward(gate_up, out);
    return {out};
  };
}

Tensors PlainSwigluBackward(const Tensors& in) {
  const int64_t width = in[1].size(1);
  const at::Tensor gate = in[0].narrow(1, 0, width), up = in[0].narrow(1, width, width);
  return {at::cat({at::silu_backward(in[1] * up, gate), in[1] * at::silu(gate)}, 1)};
}

Prepared SwigluBackwardOf(const Tensors& in) {
  at::Tensor gate_up = in[0].clone();
  const at::Tensor dout = in[1];
  return [=]() mutable -> Tensors {
    SwigluBackward(gate_up, dout);
    return {gate_up};
  };
}

// ---- cross-entropy: logits, labels

constexpr double kLossScale = 0.5;

Tensors PlainCrossEntropy(const Tensors& in) {
  const at::Tensor log_p = at::log_softmax(Wide(in[0]), -1);
  const at::Tensor counts = in[1].ne(-100), label = in[1].clamp_min(0).unsqueeze(1);
  const at::Tensor one = at::zeros_like(log_p).scatter_(1, label, 1.0);
  const at::Tensor gradient = (log_p.exp() - one) * counts.unsqueeze(1) * kLossScale;
  return {gradient.to(in[0].dtype()), -log_p.gather(1, label).squeeze(1) * counts};
}

Prepared CrossEntropy(const Tensors& in) {
  at::Tensor logits = in[0].clone();
  const at::Tensor labels = in[1];
  at::Tensor nll = Poison({logits.size(0)}, logits.options().dtype(at::kFloat));
  return [=]() mutable -> Tensors {
    CrossEntropyInPlace(logits, labels, kLossScale, true, nll);
    return {logits, nll};
  };
}

// ---- embedding's gradient: dy, tokens. A tenth of the positions share one, as padding does.

Tensors EmbeddingInputs(at::ScalarType t, Shape s, at::Device d) {
  at::Tensor tokens = at::arange(s.rows, at::kLong).mul(7919).remainder(s.rows + 1);
  tokens.narrow(0, 0, s.rows / 10).fill_(1);
  return {Random({s.rows, s.width}, t, d, 1), tokens.to(d)};
}

Tensors PlainEmbedding(const Tensors& in) {
  const at::Tensor dy = Wide(in[0]);
  return {at::zeros({dy.size(0) + 1, dy.size(1)}, dy.options()).index_add_(0, in[1], dy)};
}

Prepared Embedding(const Tensors& in) {
  const at::Tensor dy = in[0], tokens = in[1];
  at::Tensor grad = at::zeros({dy.size(0) + 1, dy.size(1)}, dy.options().dtype(at::kFloat));
  return [=]() mutable -> Tensors {
    EmbeddingBackward(dy, tokens, grad);
    return {grad};
  };
}

// ---- dropout: x, what the CPU keeps

constexpr double kDropped = 0.25;
constexpr uint64_t kKey = 1234;
constexpr uint32_t kStream = 3;

Tensors DropoutInputs(at::ScalarType t, Shape s, at::Device d) {
  at::Tensor kept = at::ones({s.rows, s.width}, at::kFloat);
  Dropout(kept, kDropped, kKey, kStream, kept);
  return {Random({s.rows, s.width}, t, d, 1), kept.to(at::kBool).to(d)};
}

Prepared DropoutOf(const Tensors& in) {
  const at::Tensor x = in[0];
  at::Tensor y = Poison(x.sizes(), x.options());
  return [=]() mutable -> Tensors {
    Dropout(x, kDropped, kKey, kStream, y);
    return {y};
  };
}

Prepared Accumulate(const Tensors& in) {
  const at::Tensor x = in[0];
  at::Tensor sum = in[1].clone();
  return [=]() mutable -> Tensors {
    AccumulateInto(sum, x, 0.5);
    return {sum};
  };
}

// ---- the gradient of a LoRA matrix B: dy, what A made of the input, the sum so far

constexpr int64_t kRank = 8;

Tensors OuterInputs(at::ScalarType t, Shape s, at::Device d) {
  return {Random({s.rows, s.width}, t, d, 1), Random({s.rows, kRank}, t, d, 2),
          Random({s.width, kRank}, at::promote_types(t, at::kFloat), d, 3)};
}

Tensors PlainOuter(const Tensors& in) { return {in[2] + 0.5 * Wide(at::mm(in[0].t(), in[1]))}; }

Prepared Outer(const Tensors& in) {
  const at::Tensor dy = in[0], down = in[1];
  at::Tensor sum = in[2].clone();
  return [=]() mutable -> Tensors {
    AddOuterProduct(sum, dy, down, /*scale=*/0.5);
    return {sum};
  };
}

// ---- merged attention: part, its log-sum-exps, out, its log-sum-exps in longer rows

Tensors MergeInputs(at::ScalarType, Shape s, at::Device d) {
  const int64_t dim = s.width % 128 == 0 ? 128 : s.width, heads = s.width / dim;
  return {Random({s.rows, heads, dim}, at::kFloat, d, 1), Random({heads, s.rows}, at::kFloat, d, 2),
          Random({s.rows, heads, dim}, at::kFloat, d, 3),
          Random({heads, s.rows + 3}, at::kFloat, d, 4)};
}

Tensors PlainMerge(const Tensors& in) {
  at::Tensor rows = in[3].clone(), lse = rows.narrow(1, 0, in[0].size(0));
  const at::Tensor sum = at::logaddexp(lse, in[1]);
  const auto weight = [&](const at::Tensor& of) { return at::exp(of - sum).t().unsqueeze(2); };
  const at::Tensor out = in[2] * weight(lse) + in[0] * weight(in[1]);
  lse.copy_(sum);
  return {out, rows};
}

Prepared MergeAttentionOf(const Tensors& in) {
  const at::Tensor part = in[0], part_lse = in[1];
  at::Tensor out = in[2].clone(), rows = in[3].clone(), lse = rows.narrow(1, 0, part.size(0));
  return [=]() mutable -> Tensors {
    MergeAttention(out, lse, part, part_lse);
    return {out, rows};
  };
}

// ---- AdamW: master, m, v, gradient

AdamWSettings Settings() {
  AdamWSettings s;
  s.lr = 1e-3;
  s.weight_decay = 0.1;
  s.step = 3;
  s.grad_scale = 0.5;
  return s;
}

Tensors AdamWInputs(at::ScalarType, Shape s, at::Device d) {
  const std::vector<int64_t> sizes = {s.rows, s.width};
  return {Random(sizes, at::kFloat, d, 1), Random(sizes, at::kFloat, d, 2) * 0.1,
          Random(sizes, at::kFloat, d, 3).square(), Random(sizes, at::kFloat, d, 4)};
}

Tensors PlainAdamW(const Tensors& in) {
  const AdamWSettings s = Settings();
  const double correction1 = 1 - std::pow(s.beta1, s.step),
               correction2 = 1 - std::pow(s.beta2, s.step);
  const at::Tensor g = in[3] * s.grad_scale;
  const at::Tensor m = in[1] * s.beta1 + g * (1 - s.beta1),
                   v = in[2] * s.beta2 + g * g * (1 - s.beta2);
  const at::Tensor decayed = in[0] * (1 - s.lr * s.weight_decay);
  const at::Tensor master =
      decayed - m / (v.sqrt() / std::sqrt(correction2) + s.eps) * (s.lr / correction1);
  const bool exact = master.scalar_type() == at::kDouble;
  return {master, m, v, exact ? master : master.to(at::kBFloat16)};
}

Prepared AdamW(const Tensors& in) {
  at::Tensor master = in[0].clone(), m = in[1].clone(), v = in[2].clone();
  at::Tensor compute = Poison(master.sizes(), master.options().dtype(at::kBFloat16));
  const at::Tensor grad = in[3];
  return [=]() mutable -> Tensors {
    AdamWStep(Settings(), master, m, v, grad, compute);
    return {master, m, v, compute};
  };
}

// ---- Rows in fp8: x (bf16 in any case), factors

Tensors Fp8Inputs(at::ScalarType, Shape s, at::Device d) {
  return {Random({s.rows, s.width}, at::kBFloat16, d, 1),
          at::exp2(Random({s.width}, at::kFloat, d, 2).round())};
}

// {values, scales, codes transposed, as numbers}
Tensors PlainFp8(const Tensors& in) {
  const at::Tensor x = in[0].to(at::kDouble) * in[1].to(at::kDouble);
  const auto [mantissa, exponent] = at::frexp(x.abs().amax(1, /*keepdim=*/true) / kFp8Largest);
  // The smallest power of two that is not below.
  at::Tensor scale = at::exp2(exponent.to(at::kDouble) - mantissa.eq(0.5).to(at::kDouble));
  scale = scale.masked_fill(mantissa.eq(0), 1);
  const at::Tensor codes = (x / scale).to(at::kFloat).to(at::kFloat8_e4m3fn).to(at::kDouble);
  return {(codes * scale / in[1]).to(in[0].scalar_type()), scale.squeeze(1), codes.t()};
}

Prepared Fp8(const Tensors& in) {
  const at::Tensor x = in[0], factors = in[1];
  Fp8Rows q{at::empty(x.sizes(), x.options().dtype(at::kFloat8_e4m3fn)),
            Poison({x.size(0)}, factors.options())};
  at::Tensor values = Poison(x.sizes(), x.options());
  at::Tensor transposed = at::empty({x.size(1), x.size(0)}, q.codes.options());
  return [=]() mutable -> Tensors {
    QuantizeFp8(x, factors, q);
    DequantizeFp8(q, factors, values);
    TransposeFp8(q.codes, transposed);
    return {values, q.scales, transposed.to(at::kFloat)};
  };
}

Prepared SumSquaresOf(const Tensors& in) {
  const at::Tensor x = in[0];
  at::Tensor sums = at::empty({SumSquaresBlocks(x.numel())}, x.options().dtype(at::kDouble));
  return [=]() mutable -> Tensors {
    BlockSumSquares(x, sums);
    return {sums.sum()};
  };
}

// Inputs of the given shapes: {rows, width} in the type, {width} in fp32.
auto RowsAndWeight(int rows_of_type) {
  return [rows_of_type](at::ScalarType t, Shape s, at::Device d) -> Tensors {
    Tensors in = {Random({s.rows, s.width}, t, d, 1), Random({s.width}, at::kFloat, d, 2)};
    for (int i = 1; i < rows_of_type; ++i)
      in.push_back(Random({s.rows, s.width}, t, d, static_cast<uint64_t>(2 + i)));
    return in;
  };
}

Tensors HeadNormInputs(at::ScalarType t, Shape s, at::Device d) {
  const int64_t head = s.width % 128 == 0 ? 128 : s.width;
  return {Random({s.rows, s.width + 2 * head}, t, d, 1), Random({head}, at::kFloat, d, 2),
          Random({s.rows, s.width}, t, d, 3)};
}

// Two heads behind the ones that are rotated.
Tensors RopeInputs(at::ScalarType t, Shape s, at::Device d) {
  const int64_t head = HeadDim(s.width);
  const at::Tensor angle = Random({s.rows, head / 2}, at::kFloat, d, 2);
  return {Random({s.rows, s.width / head * head + 2 * head}, t, d, 1), at::cos(angle),
          at::sin(angle)};
}

Tensors CrossEntropyInputs(at::ScalarType t, Shape s, at::Device d) {
  at::Tensor labels = at::arange(s.rows, at::kLong).remainder(s.width);
  if (s.rows > 0) labels[0] = -100;
  return {Random({s.rows, s.width}, t, d, 1), labels.to(d)};
}

std::vector<Operation> MakeOperations() {
  const auto gate_up = [](at::ScalarType t, Shape s, at::Device d) -> Tensors {
    return {Random({s.rows, 2 * s.width}, t, d, 1), Random({s.rows, s.width}, t, d, 2)};
  };
  const auto accumulated = [](at::ScalarType t, Shape s, at::Device d) -> Tensors {
    return {Random({s.rows, s.width}, t, d, 1), Random({s.rows, s.width}, at::kFloat, d, 2)};
  };
  const Shape hidden{32768, 4096}, mlp{32768, 11008}, table{32000, 4096};
  return {{"rms_norm_forward", RowsAndWeight(1), PlainNormForward, NormForward,
           [](double e) { return 2 * e; }, hidden},
          {"rms_norm_backward", RowsAndWeight(3), PlainNormBackward, NormBackward,
           [](double e) { return 4 * e; }, hidden},
          {"head_rms_norm", HeadNormInputs, PlainHeadNorm, HeadNorm, [](double e) { return 5 * e; },
           hidden},
          {"rope", RopeInputs, PlainRope, Rope, [](double e) { return 2 * e; }, hidden},
          {"swiglu_forward", gate_up, PlainSwigluForward, SwigluForwardOf,
           [](double e) { return 3 * e; }, mlp},
          {"swiglu_backward", gate_up, PlainSwigluBackward, SwigluBackwardOf,
           [](double e) { return 5 * e; }, mlp},
          {"cross_entropy",
           CrossEntropyInputs,
           PlainCrossEntropy,
           CrossEntropy,
           [](double e) { return 2 * e; },
           {4096, 32000}},
          {"embedding_backward", EmbeddingInputs, PlainEmbedding, Embedding,
           [](double e) { return e + 8; }, hidden},
          {"dropout", DropoutInputs, [](const Tensors& in) -> Tensors { return {in[0] * in[1]}; },
           DropoutOf, [](double e) { return 2 * e; }, hidden},
          {"accumulate", accumulated,
           [](const Tensors& in) -> Tensors { return {in[1] + 0.5 * Wide(in[0])}; }, Accumulate,
           [](double e) { return e + 8; }, table},
          {"add_outer_product", OuterInputs, PlainOuter, Outer, [](double e) { return e; }, hidden,
           false, true},
          {"merge_attention", MergeInputs, PlainMerge, MergeAttentionOf,
           [](double) { return 12.0; }, hidden, true},
          {"fp8", Fp8Inputs, PlainFp8, Fp8, [](double) { return 3.0 + 3.0 + 2.0; }, hidden, true},
          {"adamw", AdamWInputs, PlainAdamW, AdamW, [](double) { return 30.0; }, table, true},
          {"sum_squares", RowsAndWeight(1),
           [](const Tensors& in) -> Tensors { return {Wide(in[0]).square().sum()}; }, SumSquaresOf,
           [](double) { return 4.0; }, table, true}};
}

}  // namespace

const std::vector<Operation>& Operations() {
  static const std::vector<Operation> all = MakeOperations();
  return all;
}

at::Tensor Poison(at::IntArrayRef shape, const at::TensorOptions& options) {
  const int64_t elements = c10::multiply_integers(shape);
  return at::full({elements + 2 * kGuard}, NAN, options).narrow(0, kGuard, elements).view(shape);
}

bool UntouchedAround(const at::Tensor& poison) {
  const at::Tensor all = poison.as_strided({poison.numel() + 2 * kGuard}, {1}, 0);
  return at::cat({all.narrow(0, 0, kGuard), all.narrow(0, kGuard + poison.numel(), kGuard)})
      .isnan()
      .all()
      .item<bool>();
}

}  // namespace ll::gpu
