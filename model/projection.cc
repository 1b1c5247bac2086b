#include "model/projection.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/common/torch_op_trace.h"
#include "kernels/ops.h"
#include "model/fp8_product.h"
#include "model/random_tensor.h"
#include "model/scratch.h"

namespace ll {
namespace {

ScratchUse BufferOf(Projection::Place place, ScratchUse first) {
  return static_cast<ScratchUse>(static_cast<int>(first) + static_cast<int>(place));
}

// An fp32 master of `compute`: the same storage where the model computes in fp32.
at::Tensor MasterOf(const at::Tensor& compute) {
  return compute.scalar_type() == at::kFloat ? compute : compute.to(at::kFloat);
}

}  // namespace

absl::StatusOr<Projection> Projection::Create(const std::vector<PartSpec>& parts, int64_t in,
                                              const ModelOptions& options, WeightSource& source) {
  Projection p;
  p.in_ = in;
  const LoraSpec& lora = options.lora;
  for (const PartSpec& spec : parts) {
    Part part{spec.name, p.out_, spec.rows, -1, {}, {}, {}};
    if (spec.lora && lora.rank > 0) {
      part.rank_row = p.rank_;
      p.rank_ += lora.rank;
    }
    p.out_ += spec.rows;
    p.parts_.push_back(part);
  }
  LL_RETURN_IF_ERROR(p.ReadWeights(options, source));
  if (options.train_all) {
    p.master_ = MasterOf(p.weight_);
    if (options.trainable) p.dweight_ = at::zeros({p.out_, in}, options.fp32());
  }
  if (!parts.empty() && parts[0].bias) LL_RETURN_IF_ERROR(p.LoadBias(options, source));
  if (p.rank_ == 0) return p;

  p.scale_ = lora.use_rslora ? lora.alpha / std::sqrt(lora.rank) : lora.alpha / lora.rank;
  p.dropout_p_ = lora.dropout;
  at::Tensor a =
      at::empty({p.rank_, in}, at::kFloat);  // drawn on the CPU, the same on every device
  if (options.trainable) p.lora_a_grad_ = at::zeros({p.rank_, in}, options.fp32());
  const double bound =
      1.0 / std::sqrt(static_cast<double>(in));  // PEFT: Kaiming uniform with a = sqrt(5)
  for (Part& part : p.parts_) {
    if (part.rank_row < 0) continue;
    at::Generator generator = NamedGenerator(options.seed, part.name + ".lora_A.weight");
    a.narrow(0, part.rank_row, lora.rank).uniform_(-bound, bound, generator);
    part.b_master = at::zeros({part.rows, lora.rank}, options.fp32());
    part.b = options.dtype == at::kFloat ? part.b_master : part.b_master.to(options.dtype);
    if (options.trainable) part.b_grad = at::zeros({part.rows, lora.rank}, options.fp32());
  }
  p.lora_a_master_ = a.to(options.device);
  p.lora_a_ = options.dtype == at::kFloat ? p.lora_a_master_ : p.lora_a_master_.to(options.dtype);
  return p;
}

absl::Status Projection::ReadWeights(const ModelOptions& options, WeightSource& source) {
  compute_ = options.compute();
  wide_ = options.device.is_cpu() && options.dtype == at::kBFloat16 && out_ > in_ &&
          in_ % 64 == 0 && options.base != BaseFormat::kFp8;
  for (const Part& part : parts_) wide_ = wide_ && part.rows % 32 == 0;
  if (options.base == BaseFormat::kCompute) weight_ = at::empty({out_, in_}, options.compute());
  if (options.base == BaseFormat::kFp8) {
    fp8_ = {at::empty({out_, in_}, options.compute().dtype(at::kFloat8_e4m3fn)),
            at::empty({out_}, options.fp32())};
    multiplies_fp8_ = fp8::Multiplies(options.device, out_, in_);
  }
  for (const Part& part : parts_) {
    if (options.base == BaseFormat::kNf4) {
      LL_ASSIGN_OR_RETURN(std::optional<Nf4Tensor> kept, source.GetNf4(part.name + ".weight"));
      if (kept && kept->shape == std::vector<int64_t>{part.rows, in_}) {
        // Handles of our own: the source may keep its.
        for (at::Tensor* t : {&kept->codes, &kept->absmax, &kept->nested_absmax}) *t = t->detach();
        quantized_.push_back(kept->To(options.device));
        continue;
      }
    }
    LL_ASSIGN_OR_RETURN(at::Tensor w, source.Get(part.name + ".weight"));
    if (w.sizes() != at::IntArrayRef({part.rows, in_})) {
      return absl::FailedPreconditionError(absl::StrCat(part.name, ".weight: expected shape [",
                                                        part.rows, ", ", in_, "], found [",
                                                        absl::StrJoin(w.sizes(), ", "), "]"));
    }
    LL_RETURN_IF_ERROR(KeepRows(part, w, options));
    w = at::Tensor();
    source.Release(part.name + ".weight");  // the file's pages would count twice
  }
  return absl::OkStatus();
}

absl::Status Projection::KeepRows(const Part& part, const at::Tensor& w,
                                  const ModelOptions& options) {
  switch (options.base) {
    case BaseFormat::kCompute:
      weight_.narrow(0, part.row, part.rows).copy_(w);
      break;
    case BaseFormat::kNf4:
      if (w.numel() % 64 != 0) {
        return absl::FailedPreconditionError(absl::StrCat(
            part.name, ".weight: NF4 needs a multiple of 64 elements, found ", w.numel()));
      }
      quantized_.push_back(QuantizeNf4(w.to(options.compute()).contiguous()));
      break;
    case BaseFormat::kFp8:
      Fp8Rows rows{fp8_.codes.narrow(0, part.row, part.rows),
                   fp8_.scales.narrow(0, part.row, part.rows)};
      QuantizeFp8(w.to(options.compute()), /*factors=*/{}, rows);
      break;
  }
  return absl::OkStatus();
}

at::Tensor Projection::BaseWeight(Place place) const {
  if (weight_.defined()) return weight_;
  at::Tensor weight = Scratch(BufferOf(place, ScratchUse::kWeight), {out_, in_}, compute_);
  if (fp8_.codes.defined()) {
    DequantizeFp8(fp8_, /*factors=*/{}, weight);
    return weight;
  }
  for (size_t i = 0; i < parts_.size(); ++i) {
    at::Tensor rows = weight.narrow(0, parts_[i].row, parts_[i].rows);
    DequantizeNf4(quantized_[i], rows);
  }
  return weight;
}

at::Tensor Projection::TransposedWeight(Place place) const {
  at::Tensor transposed = Scratch(BufferOf(place, ScratchUse::kTransposed), {in_, out_}, compute_);
  if (weight_.defined()) {
    TransposeInto(weight_, transposed);
    return transposed.t();
  }
  for (size_t i = 0; i < parts_.size(); ++i) {
    at::Tensor columns = transposed.narrow(1, parts_[i].row, parts_[i].rows);
    DequantizeNf4Transposed(quantized_[i], columns);
  }
  return transposed.t();
}

at::Tensor Projection::TransposedCodes(Place place) const {
  at::Tensor transposed =
      Scratch(BufferOf(place, ScratchUse::kTransposed), {in_, out_}, fp8_.codes.options());
  TransposeFp8(fp8_.codes, transposed);
  return transposed.t();
}

Projection::Opened Projection::Open(Use use, Place place) const {
  Opened weight;
  if (multiplies_fp8_) {
    weight.forward = fp8_.codes;
    if (use != Use::kForward) weight.backward = TransposedCodes(place);
    return weight;
  }
  if (use != Use::kBackward || !wide_) weight.forward = BaseWeight(place);
  if (use != Use::kForward) weight.backward = wide_ ? TransposedWeight(place) : weight.forward;
  return weight;
}

absl::Status Projection::LoadBias(const ModelOptions& options, WeightSource& source) {
  bias_ = at::empty({out_}, options.compute());
  for (const Part& part : parts_) {
    LL_ASSIGN_OR_RETURN(const at::Tensor b, source.Get(part.name + ".bias"));
    if (b.sizes() != at::IntArrayRef({part.rows})) {
      return absl::FailedPreconditionError(absl::StrCat(part.name, ".bias: expected shape [",
                                                        part.rows, "], found [",
                                                        absl::StrJoin(b.sizes(), ", "), "]"));
    }
    bias_.narrow(0, part.row, part.rows).copy_(b);
  }
  if (!options.train_all) return absl::OkStatus();
  bias_master_ = MasterOf(bias_);
  if (options.trainable) dbias_ = at::zeros({out_}, options.fp32());
  return absl::OkStatus();
}

double Projection::LoraFlops(int64_t tokens, int a_products, int b_products) const {
  double elements = static_cast<double>(rank_ * in_) * a_products;
  for (const Part& part : parts_) {
    if (part.rank_row >= 0)
      elements += static_cast<double>(part.rows * part.b.size(1)) * b_products;
  }
  return 2 * static_cast<double>(tokens) * elements;
}

at::Tensor Projection::AdapterInput(const at::Tensor& x, DropoutKey dropout) const {
  if (!Drops(dropout)) return x;
  at::Tensor dropped = Scratch(ScratchUse::kInput, x.sizes(), compute_);
  Mask(x, dropout, dropped);
  return dropped;
}

void Projection::Mask(const at::Tensor& x, DropoutKey dropout, at::Tensor& y) const {
  if (dropout.tokens == nullptr) {
    Dropout(x, dropout_p_, dropout.key, dropout.stream, y);
    return;
  }
  int64_t row = 0;
  for (const auto& [begin, end] : *dropout.tokens) {
    at::Tensor part = y.narrow(0, row, end - begin);
    Dropout(x.narrow(0, row, end - begin), dropout_p_, dropout.key, dropout.stream, part, begin);
    row += end - begin;
  }
}

double Projection::Scale(DropoutKey dropout) const {
  return Drops(dropout) ? scale_ * DropoutScale(dropout_p_) : scale_;
}

at::Tensor Projection::Down(const at::Tensor& input, const at::Tensor& low_rank) const {
  at::Tensor t =
      low_rank.defined() ? low_rank : Scratch(ScratchUse::kDown, {input.size(0), rank_}, compute_);
  at::mm_out(t, input, lora_a_.t());
  return t;
}

void Projection::AddLora(const at::Tensor& x, DropoutKey dropout, at::Tensor& y,
                         const at::Tensor& low_rank) const {
  const OpScope scope("LoRA", [&] {
    return OpWork{LoraFlops(x.size(0), 1, 1), Moves({x, y, y}).bytes};
  });
  const at::Tensor t = Down(AdapterInput(x, dropout), low_rank);
  for (const Part& part : parts_) {
    if (part.rank_row < 0) continue;
    y.narrow(1, part.row, part.rows)
        .addmm_(t.narrow(1, part.rank_row, part.b.size(1)), at::mul(part.b, Scale(dropout)).t());
  }
}

at::Tensor Projection::BaseInput(const at::Tensor& x, const at::Tensor& factors) const {
  return fp8_.codes.defined() ? fp8::Rounded(x, factors) : x;
}

// The adapters' products go first: the base's, which takes long, then adds to y while it computes,
// where a short product that adds would wait for memory. One of fp8's codes cannot add.
void Projection::Forward(const Opened& opened, const at::Tensor& x, DropoutKey dropout,
                         at::Tensor& y, const at::Tensor& low_rank) const {
  const at::Tensor& weight = opened.forward;
  if (multiplies_fp8_) {
    fp8::Product(x, /*factors=*/{}, weight.t(), fp8_.scales, bias_, y);
    if (rank_ > 0) AddLora(x, dropout, y, low_rank);
    return;
  }
  const at::Tensor input = BaseInput(x, /*factors=*/{});
  if (rank_ == 0) {
    const OpScope scope("product", [&] { return ProductWork(y, input, weight); });
    bias_.defined() ? at::addmm_out(y, bias_, input, weight.t()) : at::mm_out(y, input, weight.t());
    return;
  }
  ForwardLora(x, dropout, y, low_rank);
  const OpScope scope("product", [&] { return ProductWork(y, input, weight, /*adds=*/true); });
  y.addmm_(input, weight.t());
}

void Projection::ForwardLora(const at::Tensor& x, DropoutKey dropout, at::Tensor& y,
                             const at::Tensor& low_rank) const {
  const OpScope scope("LoRA", [&] {
    return OpWork{LoraFlops(x.size(0), 1, 1), Moves({x, y}).bytes};
  });
  const at::Tensor t = Down(AdapterInput(x, dropout), low_rank);
  for (const Part& part : parts_) {
    at::Tensor y_part = y.narrow(1, part.row, part.rows);
    const at::Tensor bias = bias_.defined() ? bias_.narrow(0, part.row, part.rows) : at::Tensor();
    if (part.rank_row < 0) {
      bias.defined() ? y_part.copy_(bias.expand_as(y_part)) : y_part.zero_();
      continue;
    }
    const at::Tensor t_part = t.narrow(1, part.rank_row, part.b.size(1));
    const at::Tensor up = at::mul(part.b, Scale(dropout)).t();
    bias.defined() ? at::addmm_out(y_part, bias, t_part, up) : at::mm_out(y_part, t_part, up);
  }
}

void Projection::Fp8ForwardAdd(const Opened& opened, const at::Tensor& x,
                               const at::Tensor& residual, at::Tensor& y) const {
  at::Tensor product = Scratch(ScratchUse::kProduct, y.sizes(), compute_);
  fp8::Product(x, /*factors=*/{}, opened.forward.t(), fp8_.scales, /*bias=*/{}, product);
  const OpScope scope("fp8 conversion", [&] { return Moves({product, residual, y}); });
  at::add_out(y, residual, product);
}

void Projection::ForwardAdd(const Opened& opened, const at::Tensor& x, const at::Tensor& residual,
                            DropoutKey dropout, at::Tensor& y, const at::Tensor& low_rank) const {
  if (multiplies_fp8_) {
    Fp8ForwardAdd(opened, x, residual, y);
  } else {
    const at::Tensor& weight = opened.forward;
    const at::Tensor input = BaseInput(x, /*factors=*/{});
    const OpScope scope("product", [&] { return ProductWork(y, input, weight, /*adds=*/true); });
    at::addmm_out(y, residual, input, weight.t());
  }
  if (rank_ > 0) AddLora(x, dropout, y, low_rank);
}

void Projection::Infer(const Opened& weight, const at::Tensor& x, at::Tensor& y) const {
  if (x.size(0) == 1 && !fp8_.codes.defined()) {
    MatVec(weight.forward, x, bias_, y);
    if (rank_ > 0) AddLora(x, {}, y);
    return;
  }
  Forward(weight, x, {}, y);
}

void Projection::InferAdd(const Opened& weight, const at::Tensor& x, const at::Tensor& residual,
                          at::Tensor& y) const {
  if (x.size(0) == 1 && !fp8_.codes.defined()) {
    MatVec(weight.forward, x, residual, y);
    if (rank_ > 0) AddLora(x, {}, y);
    return;
  }
  ForwardAdd(weight, x, residual, {}, y);
}

void Projection::BackwardLora(const at::Tensor& x, const at::Tensor& dy, DropoutKey dropout,
                              bool adds, at::Tensor& dx, const at::Tensor& low_rank) const {
  const bool trained = lora_a_grad_.defined();
  const OpScope scope("LoRA", [&] {
    // The gradients of A and of x, and t where it was not kept; the gradients of t and of B.
    const int a_products = !trained ? 1 : low_rank.defined() ? 2 : 3;
    return OpWork{LoraFlops(dy.size(0), a_products, trained ? 2 : 1), Moves({dy, x, dx}).bytes};
  });
  const double scale = Scale(dropout);
  at::Tensor input, t;
  if (trained) {
    input = AdapterInput(x, dropout);
    t = low_rank.defined() ? low_rank : Down(input, low_rank);
  }
  at::Tensor dt = Scratch(ScratchUse::kDownGradient, {dy.size(0), rank_}, compute_);
  for (const Part& part : parts_) {
    if (part.rank_row < 0) continue;
    const int64_t rank = part.b.size(1);
    const at::Tensor dy_part = dy.narrow(1, part.row, part.rows);
    at::Tensor dt_part = dt.narrow(1, part.rank_row, rank);
    at::mm_out(dt_part, dy_part, at::mul(part.b, scale));
    if (!part.b_grad.defined()) continue;
    at::Tensor db = part.b_grad;
    const at::Tensor t_part = t.narrow(1, part.rank_row, rank);
    AddOuterProduct(db, dy_part, t_part, scale);
  }
  if (at::Tensor da = lora_a_grad_; da.defined()) AddOuterProduct(da, dt, input);
  if (adds && !Drops(dropout)) {
    dx.addmm_(dt, lora_a_);
    return;
  }
  at::Tensor part = adds ? Scratch(ScratchUse::kInput, dx.sizes(), compute_) : dx;
  at::mm_out(part, dt, lora_a_);
  if (Drops(dropout)) Mask(part, dropout, part);
  if (adds) dx.add_(part);
}

void Projection::Backward(const Opened& opened, const at::Tensor& x, const at::Tensor& dy,
                          DropoutKey dropout, at::Tensor& dx, const at::Tensor& low_rank) const {
  const at::Tensor& weight = opened.backward;
  if (multiplies_fp8_) {
    fp8::Product(dy, /*factors=*/fp8_.scales, weight, /*scales=*/{}, /*bias=*/{}, dx);
    if (rank_ > 0) BackwardLora(x, dy, dropout, /*adds=*/true, dx, low_rank);
  } else {
    if (rank_ > 0) BackwardLora(x, dy, dropout, /*adds=*/false, dx, low_rank);
    const at::Tensor input = BaseInput(dy, /*factors=*/fp8_.scales);
    const OpScope scope("product", [&] { return ProductWork(dx, input, weight, rank_ > 0); });
    rank_ > 0 ? dx.addmm_(input, weight) : at::mm_out(dx, input, weight);
  }
  if (dweight_.defined()) {
    at::Tensor dw = dweight_;
    AddOuterProduct(dw, dy, x);
  }
  if (dbias_.defined()) {
    at::Tensor db = dbias_;
    db.add_(dy.sum(0, /*keepdim=*/false, at::kFloat));
  }
}

void Projection::AppendParameters(std::vector<Parameter>& parameters) const {
  const auto rows = [](const at::Tensor& t, int64_t first, int64_t n) {
    return t.defined() ? t.narrow(0, first, n) : t;
  };
  for (const Part& part : parts_) {
    if (master_.defined()) {
      parameters.push_back({part.name + ".weight", rows(weight_, part.row, part.rows),
                            rows(master_, part.row, part.rows), rows(dweight_, part.row, part.rows),
                            false, false});
    }
    if (bias_master_.defined()) {
      parameters.push_back({part.name + ".bias", rows(bias_, part.row, part.rows),
                            rows(bias_master_, part.row, part.rows),
                            rows(dbias_, part.row, part.rows), false, false});
    }
    if (part.rank_row < 0) continue;
    const int64_t rank = part.b.size(1);
    parameters.push_back({part.name + ".lora_A.weight", rows(lora_a_, part.rank_row, rank),
                          rows(lora_a_master_, part.rank_row, rank),
                          rows(lora_a_grad_, part.rank_row, rank), true, false});
    parameters.push_back(
        {part.name + ".lora_B.weight", part.b, part.b_master, part.b_grad, true, false});
  }
}

void Projection::AppendFrozen(std::vector<at::Tensor>& matrices) const {
  if (weight_.defined() && !master_.defined()) matrices.push_back(weight_);
  for (const Nf4Tensor& q : quantized_) {
    for (const at::Tensor& t : {q.codes, q.absmax, q.nested_absmax}) matrices.push_back(t);
  }
  if (fp8_.codes.defined()) matrices.insert(matrices.end(), {fp8_.codes, fp8_.scales});
}

at::Tensor Projection::Weight(const std::string& hf_name) const {
  for (const Part& part : parts_) {
    if (bias_.defined() && part.name + ".bias" == hf_name)
      return bias_.narrow(0, part.row, part.rows);
    if (part.name + ".weight" != hf_name) continue;
    const at::Tensor rows = BaseWeight(Place::kFirst).narrow(0, part.row, part.rows);
    return weight_.defined() ? rows : rows.clone();
  }
  return {};
}

}  // namespace ll
