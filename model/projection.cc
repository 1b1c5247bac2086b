#include "model/projection.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/ops.h"
#include "model/random_tensor.h"

namespace ll {
namespace {

// sum (fp32) += a^T b, where a [N, m] and b [N, n] are in the compute dtype.
void AddOuter(const at::Tensor& a, const at::Tensor& b, at::Tensor& sum) {
  if (a.scalar_type() == at::kFloat) {
    sum.addmm_(a.t(), b);
  } else {
    AccumulateInto(sum, at::mm(a.t(), b));
  }
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
    if (options.trainable) p.dweight_ = at::zeros({p.out_, in}, at::kFloat);
  }
  if (!parts.empty() && parts[0].bias) LL_RETURN_IF_ERROR(p.LoadBias(options, source));
  if (p.rank_ == 0) return p;

  p.scale_ = lora.use_rslora ? lora.alpha / std::sqrt(lora.rank) : lora.alpha / lora.rank;
  p.dropout_p_ = lora.dropout;
  p.lora_a_master_ = at::empty({p.rank_, in}, at::kFloat);
  if (options.trainable) p.lora_a_grad_ = at::zeros({p.rank_, in}, at::kFloat);
  const double bound =
      1.0 / std::sqrt(static_cast<double>(in));  // PEFT: Kaiming uniform with a = sqrt(5)
  for (Part& part : p.parts_) {
    if (part.rank_row < 0) continue;
    at::Generator generator = NamedGenerator(options.seed, part.name + ".lora_A.weight");
    p.lora_a_master_.narrow(0, part.rank_row, lora.rank).uniform_(-bound, bound, generator);
    part.b_master = at::zeros({part.rows, lora.rank}, at::kFloat);
    part.b = options.dtype == at::kFloat ? part.b_master : part.b_master.to(options.dtype);
    if (options.trainable) part.b_grad = at::zeros({part.rows, lora.rank}, at::kFloat);
  }
  p.lora_a_ = options.dtype == at::kFloat ? p.lora_a_master_ : p.lora_a_master_.to(options.dtype);
  return p;
}

absl::Status Projection::ReadWeights(const ModelOptions& options, WeightSource& source) {
  compute_ = at::TensorOptions(options.device).dtype(options.dtype);
  if (!options.quantize_base) weight_ = at::empty({out_, in_}, options.dtype);
  for (const Part& part : parts_) {
    if (options.quantize_base) {
      LL_ASSIGN_OR_RETURN(std::optional<Nf4Tensor> kept, source.GetNf4(part.name + ".weight"));
      if (kept && kept->shape == std::vector<int64_t>{part.rows, in_}) {
        quantized_.push_back(*std::move(kept));
        continue;
      }
    }
    LL_ASSIGN_OR_RETURN(at::Tensor w, source.Get(part.name + ".weight"));
    if (w.sizes() != at::IntArrayRef({part.rows, in_})) {
      return absl::FailedPreconditionError(absl::StrCat(part.name, ".weight: expected shape [",
                                                        part.rows, ", ", in_, "], found [",
                                                        absl::StrJoin(w.sizes(), ", "), "]"));
    }
    if (!options.quantize_base) {
      weight_.narrow(0, part.row, part.rows).copy_(w);
    } else if (w.numel() % 64 != 0) {
      return absl::FailedPreconditionError(absl::StrCat(
          part.name, ".weight: NF4 needs a multiple of 64 elements, found ", w.numel()));
    } else {
      quantized_.push_back(QuantizeNf4(w.to(options.dtype).contiguous()));
    }
  }
  return absl::OkStatus();
}

at::Tensor Projection::BaseWeight() const {
  if (weight_.defined()) return weight_;
  // One buffer a thread for all projections, as large as the largest: a fresh one for each use
  // would cost more in page faults than the dequantisation.
  static thread_local at::Tensor buffer;
  const int64_t elements = out_ * in_;
  if (!buffer.defined() || buffer.numel() < elements || buffer.dtype() != compute_.dtype()) {
    buffer = at::empty({elements}, compute_);
  }
  at::Tensor weight = buffer.narrow(0, 0, elements).view({out_, in_});
  for (size_t i = 0; i < parts_.size(); ++i) {
    at::Tensor rows = weight.narrow(0, parts_[i].row, parts_[i].rows);
    DequantizeNf4(quantized_[i], rows);
  }
  return weight;
}

absl::Status Projection::LoadBias(const ModelOptions& options, WeightSource& source) {
  bias_ = at::empty({out_}, options.dtype);
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
  if (options.trainable) dbias_ = at::zeros({out_}, at::kFloat);
  return absl::OkStatus();
}

at::Tensor Projection::StackedB() const {
  at::Tensor b = at::zeros({out_, rank_}, compute_);
  for (const Part& part : parts_) {
    if (part.rank_row < 0) continue;
    at::Tensor block = b.narrow(0, part.row, part.rows).narrow(1, part.rank_row, part.b.size(1));
    at::mul_out(block, part.b, at::scalar_tensor(scale_, at::kDouble));
  }
  return b;
}

at::Tensor Projection::Down(const at::Tensor& x, DropoutKey dropout) const {
  if (dropout.key == 0 || dropout_p_ == 0) return at::mm(x, lora_a_.t());
  at::Tensor t = at::empty({x.size(0), rank_}, x.options()), dropped = at::empty_like(x);
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (parts_[i].rank_row < 0) continue;
    const int64_t rank = parts_[i].b.size(1);
    Dropout(x, dropout_p_, dropout.key, dropout.stream + static_cast<uint32_t>(i), dropped);
    t.narrow(1, parts_[i].rank_row, rank)
        .copy_(at::mm(dropped, lora_a_.narrow(0, parts_[i].rank_row, rank).t()));
  }
  return t;
}

void Projection::Forward(const at::Tensor& x, DropoutKey dropout, at::Tensor& y) const {
  const at::Tensor weight = BaseWeight();
  bias_.defined() ? at::addmm_out(y, bias_, x, weight.t()) : at::mm_out(y, x, weight.t());
  if (rank_ > 0) y.addmm_(Down(x, dropout), StackedB().t());
}

void Projection::ForwardAdd(const at::Tensor& x, const at::Tensor& residual, DropoutKey dropout,
                            at::Tensor& y) const {
  at::addmm_out(y, residual, x, BaseWeight().t());
  if (rank_ > 0) y.addmm_(Down(x, dropout), StackedB().t());
}

void Projection::BackwardLora(const at::Tensor& x, const at::Tensor& dy, DropoutKey dropout,
                              at::Tensor& dx) const {
  const at::Tensor b = StackedB();
  const at::Tensor dt = at::mm(dy, b);  // [N, R]
  if (lora_a_grad_.defined()) {
    // One GEMM for all parts; the blocks off the diagonal are another part's products and are
    // dropped.
    const at::Tensor db = at::mm(dy.t(), Down(x, dropout)).to(at::kFloat);
    for (const Part& part : parts_) {
      if (part.rank_row < 0) continue;
      at::Tensor grad = part.b_grad;
      grad.add_(db.narrow(0, part.row, part.rows).narrow(1, part.rank_row, grad.size(1)), scale_);
    }
  }
  if (dropout.key == 0 || dropout_p_ == 0) {
    at::Tensor da = lora_a_grad_;
    if (da.defined()) AddOuter(dt, x, da);
    dx.addmm_(dt, lora_a_);
    return;
  }
  at::Tensor dropped = at::empty_like(x);
  for (size_t i = 0; i < parts_.size(); ++i) {
    const Part& part = parts_[i];
    if (part.rank_row < 0) continue;
    const uint32_t stream = dropout.stream + static_cast<uint32_t>(i);
    const int64_t rank = part.b.size(1);
    const at::Tensor dt_part = dt.narrow(1, part.rank_row, rank).contiguous();
    if (lora_a_grad_.defined()) {
      Dropout(x, dropout_p_, dropout.key, stream, dropped);
      at::Tensor da = lora_a_grad_.narrow(0, part.rank_row, rank);
      AddOuter(dt_part, dropped, da);
    }
    at::mm_out(dropped, dt_part, lora_a_.narrow(0, part.rank_row, rank));
    Dropout(dropped, dropout_p_, dropout.key, stream, dropped);
    dx.add_(dropped);
  }
}

void Projection::Backward(const at::Tensor& x, const at::Tensor& dy, DropoutKey dropout,
                          at::Tensor& dx) const {
  at::mm_out(dx, dy, BaseWeight());
  if (rank_ > 0) BackwardLora(x, dy, dropout, dx);
  if (dweight_.defined()) {
    at::Tensor dw = dweight_;
    AddOuter(dy, x, dw);
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

at::Tensor Projection::Weight(const std::string& hf_name) const {
  for (const Part& part : parts_) {
    if (bias_.defined() && part.name + ".bias" == hf_name)
      return bias_.narrow(0, part.row, part.rows);
    if (part.name + ".weight" != hf_name) continue;
    const at::Tensor rows = BaseWeight().narrow(0, part.row, part.rows);
    return weight_.defined() ? rows : rows.clone();
  }
  return {};
}

}  // namespace ll
