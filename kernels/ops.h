// The kernels as functions on tensors: what model/ and worker/trainer call. Each op's folder says
// what it computes and holds its CPU kernel; `<op>_torch.cc` adapts tensors to it and divides the
// work among ATen's intra-op threads.
//
// Common rules: tensors are on one device, contiguous unless a comment says otherwise, float32 or
// bfloat16. A broken rule is a programming error and aborts. Results do not depend on the number of
// threads.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <vector>

namespace ll {

// y = rms_norm(x) * w; rstd [N] fp32. x, y [N, d]; w fp32 [d].
void RmsNormForward(const at::Tensor& x, const at::Tensor& w, double eps, at::Tensor& y,
                    at::Tensor& rstd);
// dresidual += gradient of x; dw (fp32 [d], may be undefined) += gradient of w.
void RmsNormBackward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w,
                     const at::Tensor& rstd, at::Tensor& dresidual, at::Tensor& dw);

// The same for every head: x, y [N, H * D], any row stride; w fp32 [D]; rstd fp32 [N * H]. y may be
// x.
void HeadRmsNormForward(const at::Tensor& x, const at::Tensor& w, double eps, at::Tensor& y,
                        at::Tensor& rstd);
// dy becomes the gradient of x; dw (fp32 [D], may be undefined) += gradient of w.
void HeadRmsNormBackward(at::Tensor& dy, const at::Tensor& x, const at::Tensor& w,
                         const at::Tensor& rstd, at::Tensor& dw);

// Rotates, in place, the first `heads` heads of every row of x [N, >= heads * D] (row stride free).
// cos, sin fp32
// [>= N, D / 2].
void RopeInPlace(at::Tensor& x, int64_t heads, const at::Tensor& cos, const at::Tensor& sin,
                 bool backward);

// out [N, F] = silu(gate) * up, gate_up [N, 2F].
void SwigluForward(const at::Tensor& gate_up, at::Tensor& out);
// gate_up becomes its own gradient; dout [N, F].
void SwigluBackward(at::Tensor& gate_up, const at::Tensor& dout);

// y [out] = w x (+ add), for one row of activations: w [out, in], x [in], add [out] or undefined,
// all of w's dtype; y of that or fp32. y may be add. Leading dimensions of 1 are free.
void MatVec(const at::Tensor& w, const at::Tensor& x, const at::Tensor& add, at::Tensor& y);

// out [H, D] = attention of one query token, q [H, D], to the keys of a cache: k, v [K, T, D] with
// any stride of the first dimension; D <= 256. Scaled by 1/sqrt(D).
void DecodeAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     at::Tensor& out);

// nll fp32 [N]; logits [N, V] become their gradient times grad_scale if write_grad. labels int64
// [N], -100 or < V.
void CrossEntropyInPlace(at::Tensor& logits, const at::Tensor& labels, double grad_scale,
                         bool write_grad, at::Tensor& nll);

// out [N, d] = table[tokens]; tokens int64 [N].
void EmbeddingForward(const at::Tensor& table, const at::Tensor& tokens, at::Tensor& out);
// grad fp32 [V, d] += scatter of dy [N, d].
void EmbeddingBackward(const at::Tensor& dy, const at::Tensor& tokens, at::Tensor& grad);

// y [columns, rows] = x [rows, columns]^T, bf16. Rows of y may be farther apart than `rows`.
void TransposeInto(const at::Tensor& x, at::Tensor& y);

// y [N, d] = x, each element zeroed with probability p (to 1/65536), not scaled; the mask depends
// on (key, stream, row, column) alone, x's first row being row `first_row`. y may be x.
void Dropout(const at::Tensor& x, double p, uint64_t key, uint32_t stream, at::Tensor& y,
             int64_t first_row = 0);
// What the kept elements are to be multiplied by: 1 / (1 - p), with p as Dropout rounds it.
double DropoutScale(double p);

// sum (fp32) += scale * x.
void AccumulateInto(at::Tensor& sum, const at::Tensor& x, double scale = 1.0);
// sum (fp32) [m, n] += scale * a^T b, where a [N, m] and b [N, n] are in the compute dtype: the
// gradient of a weight. A GPU adds the product to the sum in fp32; elsewhere the product is rounded
// to the compute dtype first, into `rounded` [m, n] where that is given.
void AddOuterProduct(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b, double scale = 1.0,
                     at::Tensor rounded = {});

// Two results of the same queries over disjoint keys become one, in out and lse
// (kernels/merge_attention/merge_attention.h). fp32: out, part [N, H, D]; lse, part_lse [H, N],
// whose rows may lie apart.
void MergeAttention(at::Tensor& out, at::Tensor& lse, const at::Tensor& part,
                    const at::Tensor& part_lse);

struct AdamWSettings {
  double lr = 0, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0;
  int64_t step = 1;       // counted from 1
  double grad_scale = 1;  // the clipping factor
};
// One step on fp32 master, m, v, grad of any equal shape; writes `compute` (bf16) too unless it is
// the master.
void AdamWStep(const AdamWSettings& settings, at::Tensor& master, at::Tensor& m, at::Tensor& v,
               const at::Tensor& grad, at::Tensor& compute);

// A matrix in NF4 with double quantisation (kernels/nf4/nf4.h): 4.127 bits an element.
struct Nf4Tensor {
  at::Tensor codes;          // u8 [numel / 2]
  at::Tensor absmax;         // u8 [numel / 64]
  at::Tensor nested_absmax;  // fp32 [ceil(numel / 64 / 256)]
  float offset = 0;          // mean of the absmax
  std::vector<int64_t> shape;

  // The same weight on a device.
  Nf4Tensor To(at::Device device) const {
    return {codes.to(device), absmax.to(device), nested_absmax.to(device), offset, shape};
  }
};
// w of a multiple of 64 elements. `offset`: instead of the mean that is computed here, for
// comparing bytes with another implementation, whose sum may be rounded in another order.
Nf4Tensor QuantizeNf4(const at::Tensor& w, std::optional<float> offset = std::nullopt);
// w (fp32 or bf16, as many elements) is overwritten.
void DequantizeNf4(const Nf4Tensor& q, at::Tensor& w);
// The same values into wt [in, out] bf16, of which q is the transpose [out, in]: out % 32 == 0, in
// % 64 == 0. Rows of wt may be farther apart than out.
void DequantizeNf4Transposed(const Nf4Tensor& q, at::Tensor& wt);
// The 16 codes and the 256 steps of the absmax, fp32, as saved folders carry them.
at::Tensor Nf4QuantMap();
at::Tensor Nf4NestedQuantMap();

// Rows in fp8, e4m3 with a scale each, a power of two (kernels/fp8/fp8.h): 8 bits an element.
struct Fp8Rows {
  at::Tensor codes;   // e4m3fn [N, d]
  at::Tensor scales;  // fp32 [N]
};
// q, of x's shape, is overwritten. x [N, d] bf16, any row stride; its columns are multiplied by
// `factors` first: fp32 [d], powers of two, or undefined.
void QuantizeFp8(const at::Tensor& x, const at::Tensor& factors, Fp8Rows& q);
// y [N, d] bf16 = the values, exactly, with columns divided by `factors`.
void DequantizeFp8(const Fp8Rows& q, const at::Tensor& factors, at::Tensor& y);
// y [d, N] = codes^T, of codes [N, d] or any bytes.
void TransposeFp8(const at::Tensor& codes, at::Tensor& y);

// sums (fp64 [blocks], where x lies) = sums of squares of each kSumSquaresBlock elements (the last
// may be fewer) of x (fp32), added up in fp64.
void BlockSumSquares(const at::Tensor& x, at::Tensor& sums);
// Their sum; waits for a GPU.
double SumSquares(const at::Tensor& x);

}  // namespace ll
