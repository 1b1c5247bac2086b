// A linear layer whose weight is several Hugging Face weights stacked over their output rows (q, k,
// v; or gate, up), so that one GEMM serves them, with LoRA adapters on any of them. Forward and
// backward by hand.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "absl/status/status.h"
#include "kernels/ops.h"
#include "model/llama.h"
#include "model/segments.h"

namespace ll {

// Which dropout mask to use; key 0 = none. A projection's adapters share the mask of its input.
struct DropoutKey {
  uint64_t key = 0;
  uint32_t stream = 0;  // names the projection
  // Where ranks share a row: the tokens of the row that are here, one run behind the other. Null:
  // all of them.
  const std::vector<Segment>* tokens = nullptr;
};

class Projection {
 public:
  struct PartSpec {
    std::string name;  // "model.layers.0.self_attn.q_proj": the weight's name without ".weight"
    int64_t rows = 0;  // output features
    bool lora = false;
    bool bias = false;  // all parts of a projection have one or none has
  };

  // Reads the parts' weights, [rows, in] each, and biases [rows] from `source`.
  static absl::StatusOr<Projection> Create(const std::vector<PartSpec>& parts, int64_t in,
                                           const ModelOptions& options, WeightSource& source);

  // The base's weight as products read it, [out, in]: values, or fp8's codes where the device
  // multiplies them. Where it has to be made (from NF4 or fp8; transposed, for a CPU's backward
  // pass or that of fp8's codes) it is made once for all tiles of tokens, in buffers that the next
  // Open of any projection with the same `place` overwrites: as many may be open at a time in a
  // thread as there are places.
  struct Opened {
    at::Tensor forward, backward;  // undefined unless asked for
  };
  enum class Use { kForward, kBackward, kBoth };
  enum class Place { kFirst, kSecond, kThird, kFourth };
  Opened Open(Use use, Place place) const;
  // Whether both passes read the same, so that it need not be made for each.
  bool OpensAsOne() const { return !wide_ && !multiplies_fp8_; }

  // y [N, out] = x W^T + bias + LoRA. `low_rank` [N, R] gets what the matrices A make of x, so that
  // Backward need not read x for it again; undefined: it is not kept.
  void Forward(const Opened& weight, const at::Tensor& x, DropoutKey dropout, at::Tensor& y,
               const at::Tensor& low_rank = {}) const;
  // y = residual + x W^T + LoRA, for projections without a bias. y may be residual.
  void ForwardAdd(const Opened& weight, const at::Tensor& x, const at::Tensor& residual,
                  DropoutKey dropout, at::Tensor& y, const at::Tensor& low_rank = {}) const;
  // The same for generation: without dropout, and quick for a single row.
  void Infer(const Opened& weight, const at::Tensor& x, at::Tensor& y) const;
  void InferAdd(const Opened& weight, const at::Tensor& x, const at::Tensor& residual,
                at::Tensor& y) const;
  // dx [N, in] is overwritten (x and dy lie elsewhere); gradients are added to the trained
  // parameters. x may be undefined unless NeedsInput(). `low_rank` as a Forward with the same x,
  // dropout and weights left it; undefined: it is computed again.
  void Backward(const Opened& weight, const at::Tensor& x, const at::Tensor& dy, DropoutKey dropout,
                at::Tensor& dx, const at::Tensor& low_rank = {}) const;

  // True if Backward reads x: something here is trained.
  bool NeedsInput() const { return dweight_.defined() || lora_a_.defined(); }

  // Appends the matrices that are not trained, as they are kept (values, or NF4's or fp8's codes
  // and scales): handles, so that their memory can be changed under this projection.
  void AppendFrozen(std::vector<at::Tensor>& matrices) const;
  // Appends this projection's trained weights.
  void AppendParameters(std::vector<Parameter>& parameters) const;
  // The rows of one part in the compute dtype, by its Hugging Face name with ".weight"; undefined
  // if not here.
  at::Tensor Weight(const std::string& hf_name) const;

 private:
  struct Part {
    std::string name;
    int64_t row = 0, rows = 0;       // its slice of the output
    int64_t rank_row = -1;           // its slice of the stacked A matrices; -1 = no LoRA
    at::Tensor b, b_master, b_grad;  // [rows, rank]
  };

  absl::Status ReadWeights(const ModelOptions& options, WeightSource& source);
  // Keeps a part's rows as they came from the source.
  absl::Status KeepRows(const Part& part, const at::Tensor& w, const ModelOptions& options);
  // [out, in] in the compute dtype: weight_, or a buffer of `place`. The second lies as [in, out].
  at::Tensor BaseWeight(Place place) const;
  at::Tensor TransposedWeight(Place place) const;
  // fp8's codes [out, in], which lie as [in, out] in a buffer of `place`.
  at::Tensor TransposedCodes(Place place) const;
  // What the base is multiplied by: x, or its values after they were rounded to fp8, in a buffer
  // that the next call overwrites. `factors` as for fp8::Rounded.
  at::Tensor BaseInput(const at::Tensor& x, const at::Tensor& factors) const;
  absl::Status LoadBias(const ModelOptions& options, WeightSource& source);
  bool Drops(DropoutKey dropout) const { return dropout.key != 0 && dropout_p_ != 0; }
  // lora_alpha / rank (or / sqrt(rank)), and what dropout's kept elements are to be multiplied by.
  double Scale(DropoutKey dropout) const;
  // Of so many products with the matrices A, and with the matrices B.
  double LoraFlops(int64_t tokens, int a_products, int b_products) const;
  // x as the adapters see it: x itself, or x after dropout (not scaled) in a buffer that the next
  // call overwrites.
  at::Tensor AdapterInput(const at::Tensor& x, DropoutKey dropout) const;
  // y = x with the mask of `dropout`; y may be x.
  void Mask(const at::Tensor& x, DropoutKey dropout, at::Tensor& y) const;
  // input A^T in `low_rank` [N, R], or where that is undefined in a buffer that the next call
  // overwrites.
  at::Tensor Down(const at::Tensor& input, const at::Tensor& low_rank) const;
  // y = residual + x W^T of fp8's codes; residual may be y.
  void Fp8ForwardAdd(const Opened& weight, const at::Tensor& x, const at::Tensor& residual,
                     at::Tensor& y) const;
  // y is overwritten with the bias and the adapters' part.
  void ForwardLora(const at::Tensor& x, DropoutKey dropout, at::Tensor& y,
                   const at::Tensor& low_rank) const;
  // y += scale * (input A^T) B^T, where each part has its own columns of y.
  void AddLora(const at::Tensor& x, DropoutKey dropout, at::Tensor& y,
               const at::Tensor& low_rank = {}) const;
  // dx is overwritten with the adapters' part of it, or `adds` it.
  void BackwardLora(const at::Tensor& x, const at::Tensor& dy, DropoutKey dropout, bool adds,
                    at::Tensor& dx, const at::Tensor& low_rank) const;

  int64_t in_ = 0, out_ = 0, rank_ = 0;
  double scale_ = 0, dropout_p_ = 0;
  std::vector<Part> parts_;
  // A bf16 weight with more output than input features. The backward pass multiplies by a
  // transposed copy of it: oneDNN's product over a long dimension that lies across the rows of its
  // right operand takes up to half as long again (docs/performance.md).
  bool wide_ = false;
  at::Tensor weight_;                 // [out, in], compute dtype; or, instead of it:
  std::vector<Nf4Tensor> quantized_;  // one a part
  Fp8Rows fp8_;                       // [out, in]
  bool multiplies_fp8_ = false;       // products are of fp8's codes (model/fp8_product.h)
  at::TensorOptions compute_;         // dtype and device of what is computed
  at::Tensor master_, dweight_;       // fp32 [out, in], only where the weight itself is trained
  at::Tensor bias_;                   // [out], compute dtype; undefined where there is none
  at::Tensor bias_master_, dbias_;    // fp32 [out], only where the weight itself is trained
  at::Tensor lora_a_, lora_a_master_, lora_a_grad_;  // [R, in], the parts' A stacked
};

}  // namespace ll
