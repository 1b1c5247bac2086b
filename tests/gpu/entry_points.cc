#include "tests/gpu/entry_points.h"

#include <optional>
#include <tuple>

namespace ll::gpu {
namespace {

EntryPoint Cpu() {
  return {"_scaled_dot_product_flash_attention_for_cpu", at::kCPU,
          [](const AttentionInputs& in) -> Saved {
            auto [out, lse] =
                at::_scaled_dot_product_flash_attention_for_cpu(in.q, in.k, in.v, 0.0, true);
            return {out, lse};
          },
          [](const AttentionInputs& in, const Saved& saved,
             const at::Tensor& dout) -> AttentionGradients {
            auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
                dout, in.q, in.k, in.v, saved[0], saved[1], 0.0, true);
            return {dq, dk, dv};
          }};
}

EntryPoint DenseFlash() {
  return {
      "_scaled_dot_product_flash_attention", at::kCUDA,
      [](const AttentionInputs& in) -> Saved {
        const auto r = at::_scaled_dot_product_flash_attention(in.q, in.k, in.v, 0.0, true);
        return {std::get<0>(r), std::get<1>(r), std::get<6>(r), std::get<7>(r)};
      },
      [](const AttentionInputs& in, const Saved& s, const at::Tensor& dout) -> AttentionGradients {
        auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_backward(
            dout, in.q, in.k, in.v, s[0], s[1], {}, {}, in.q.size(2), in.k.size(2), 0.0, true, s[2],
            s[3]);
        return {dq, dk, dv};
      }};
}

EntryPoint DenseEfficient() {
  return {
      "_scaled_dot_product_efficient_attention", at::kCUDA,
      [](const AttentionInputs& in) -> Saved {
        auto [out, lse, seed, offset] = at::_scaled_dot_product_efficient_attention(
            in.q, in.k, in.v, std::nullopt, /*compute_log_sumexp=*/true, 0.0, true);
        return {out, lse, seed, offset};
      },
      [](const AttentionInputs& in, const Saved& s, const at::Tensor& dout) -> AttentionGradients {
        const auto r = at::_scaled_dot_product_efficient_attention_backward(
            dout, in.q, in.k, in.v, {}, s[0], s[1], s[2], s[3], 0.0, {true, true, true, false},
            true);
        return {std::get<0>(r), std::get<1>(r), std::get<2>(r)};
      }};
}

EntryPoint DenseCudnn() {
  return {
      "_scaled_dot_product_cudnn_attention", at::kCUDA,
      [](const AttentionInputs& in) -> Saved {
        const auto r = at::_scaled_dot_product_cudnn_attention(
            in.q, in.k, in.v, std::nullopt, /*compute_log_sumexp=*/true, 0.0, true);
        return {std::get<0>(r), std::get<1>(r), std::get<6>(r), std::get<7>(r)};
      },
      [](const AttentionInputs& in, const Saved& s, const at::Tensor& dout) -> AttentionGradients {
        auto [dq, dk, dv] = at::_scaled_dot_product_cudnn_attention_backward(
            dout, in.q, in.k, in.v, s[0], s[1], s[2], s[3], {}, {}, {}, in.q.size(2), in.k.size(2),
            0.0, true);
        return {dq, dk, dv};
      }};
}

// [B, H, N, D] as FlashAttention-2 wants it, [B, N, H, D]; strides are kept.
at::Tensor TokensFirst(const at::Tensor& t) { return t.transpose(1, 2); }

EntryPoint Flash2() {
  return {
      "_flash_attention_forward", at::kCUDA,
      [](const AttentionInputs& in) -> Saved {
        auto [out, lse, rng, unused, debug] = at::_flash_attention_forward(
            TokensFirst(in.q), TokensFirst(in.k), TokensFirst(in.v), std::nullopt, std::nullopt,
            in.q.size(2), in.k.size(2), 0.0, true, false);
        return {TokensFirst(out), lse, rng, unused};
      },
      [](const AttentionInputs& in, const Saved& s, const at::Tensor& dout) -> AttentionGradients {
        auto [dq, dk, dv] = at::_flash_attention_backward(
            TokensFirst(dout), TokensFirst(in.q), TokensFirst(in.k), TokensFirst(in.v),
            TokensFirst(s[0]), s[1], {}, {}, in.q.size(2), in.k.size(2), 0.0, true, s[2], s[3]);
        return {TokensFirst(dq), TokensFirst(dk), TokensFirst(dv)};
      }};
}

// The batch as sequences of one packed row: [B * N, H, D] with cumulative lengths.
struct Packed {
  at::Tensor tokens, starts;
  int64_t longest;
};
Packed Pack(const at::Tensor& t) {
  const int64_t batch = t.size(0), n = t.size(2);
  const at::Tensor starts = at::arange(batch + 1, t.options().dtype(at::kInt)) * n;
  return {TokensFirst(t).reshape({batch * n, t.size(1), t.size(3)}), starts, n};
}
at::Tensor Unpack(const at::Tensor& tokens, const at::Tensor& like) {
  const int64_t batch = like.size(0), n = like.size(2);
  return TokensFirst(tokens.view({batch, n, tokens.size(1), tokens.size(2)}));
}

EntryPoint Flash2Packed() {
  return {
      "_flash_attention_forward (packed)", at::kCUDA,
      [](const AttentionInputs& in) -> Saved {
        const Packed q = Pack(in.q), k = Pack(in.k), v = Pack(in.v);
        auto [out, lse, rng, unused, debug] =
            at::_flash_attention_forward(q.tokens, k.tokens, v.tokens, q.starts, k.starts,
                                         q.longest, k.longest, 0.0, true, false);
        return {Unpack(out, in.q), lse, rng, unused, out};
      },
      [](const AttentionInputs& in, const Saved& s, const at::Tensor& dout) -> AttentionGradients {
        const Packed q = Pack(in.q), k = Pack(in.k), v = Pack(in.v);
        auto [dq, dk, dv] = at::_flash_attention_backward(
            Pack(dout).tokens, q.tokens, k.tokens, v.tokens, s[4], s[1], q.starts, k.starts,
            q.longest, k.longest, 0.0, true, s[2], s[3]);
        return {Unpack(dq, in.q), Unpack(dk, in.k), Unpack(dv, in.v)};
      }};
}

EntryPoint Cudnn() {
  return {
      "_cudnn_attention_forward", at::kCUDA,
      [](const AttentionInputs& in) -> Saved {
        const auto r = at::_cudnn_attention_forward(in.q, in.k, in.v, std::nullopt, std::nullopt,
                                                    std::nullopt, in.q.size(2), in.k.size(2),
                                                    /*compute_log_sumexp=*/true, 0.0, true);
        return {std::get<0>(r), std::get<1>(r), std::get<6>(r), std::get<7>(r)};
      },
      [](const AttentionInputs& in, const Saved& s, const at::Tensor& dout) -> AttentionGradients {
        auto [dq, dk, dv] =
            at::_cudnn_attention_backward(dout, in.q, in.k, in.v, s[0], s[1], s[2], s[3], {}, {},
                                          {}, in.q.size(2), in.k.size(2), 0.0, true);
        return {dq, dk, dv};
      }};
}

}  // namespace

const std::vector<EntryPoint>& EntryPoints() {
  static const std::vector<EntryPoint> all = {
      Cpu(), DenseFlash(), DenseEfficient(), DenseCudnn(), Flash2(), Flash2Packed(), Cudnn()};
  return all;
}

}  // namespace ll::gpu
