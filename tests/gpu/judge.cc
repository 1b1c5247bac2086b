#include "tests/gpu/judge.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include <ATen/detail/CUDAHooksInterface.h>

namespace ll::gpu {
namespace {

// bf16 keeps 8 bits; sums of many products leave a few of their last.
constexpr double kTolerance = 2e-2;

// [B, heads, N, D] of random bf16, laid out as rows of tokens.
at::Tensor Rows(const AttentionCase& c, int64_t heads, int64_t tokens, at::Device device) {
  const int64_t width = heads * c.head_dim;
  const int64_t step = c.overlapping ? tokens / 2 : tokens;
  const at::Tensor rows =
      at::randn({std::max<int64_t>(1, step * (c.batch - 1) + tokens), width}, at::kFloat)
          .to(device, at::kBFloat16);
  return rows.as_strided({c.batch, heads, tokens, c.head_dim},
                         {step * width, c.head_dim, width, 1});
}

AttentionInputs Inputs(const AttentionCase& c, at::Device device) {
  return {Rows(c, c.heads, c.queries, device), Rows(c, c.kv_heads, c.keys, device),
          Rows(c, c.kv_heads, c.keys, device)};
}

struct Reference {
  at::Tensor out, lse;  // lse [B, H, N]
  AttentionGradients gradients;
};

// Explicit softmax in fp32. `offset` keys lie before the first query: keys - queries for the mask
// aligned at the bottom right, 0 at the top left.
Reference Exact(const AttentionInputs& in, const at::Tensor& dout, int64_t offset) {
  const int64_t shared = in.q.size(1) / in.k.size(1);
  const at::Tensor q = in.q.to(at::kFloat), v = in.v.to(at::kFloat).repeat_interleave(shared, 1);
  const at::Tensor k = in.k.to(at::kFloat).repeat_interleave(shared, 1), g = dout.to(at::kFloat);
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  const at::Tensor hidden =
      at::ones({q.size(2), k.size(2)}, q.options().dtype(at::kBool)).triu(offset + 1);
  const at::Tensor scores =
      at::matmul(q, k.transpose(2, 3)).mul(scale).masked_fill(hidden, -INFINITY);
  const at::Tensor p = at::softmax(scores, -1);
  Reference r;
  r.lse = at::logsumexp(scores, {-1});
  r.out = at::matmul(p, v);
  const at::Tensor dp = at::matmul(g, v.transpose(2, 3));
  const at::Tensor ds = p * (dp - (g * r.out).sum(-1, true)) * scale;
  const auto of_kv_heads = [&](const at::Tensor& t) {
    return t.view({t.size(0), in.k.size(1), shared, t.size(2), t.size(3)}).sum(2);
  };
  r.gradients = {at::matmul(ds, k), of_kv_heads(at::matmul(ds.transpose(2, 3), q)),
                 of_kv_heads(at::matmul(p.transpose(2, 3), g))};
  return r;
}

// Relative to the exact result, or to `least` where that is smaller. NaN counts as infinitely
// wrong.
double Error(const at::Tensor& got, const at::Tensor& exact, double least = 1e-9) {
  if (exact.numel() == 0) return got.numel() == 0 ? 0 : INFINITY;
  if (got.sizes() != exact.sizes()) return INFINITY;
  const double norm = exact.norm().item<double>();
  const double error = (got.to(at::kFloat) - exact).norm().item<double>() / std::max(norm, least);
  return std::isnan(error) ? INFINITY : error;
}

// `least`: a gradient that is zero but for rounding (one key: dq) has no scale of its own.
double Error(const AttentionGradients& got, const AttentionGradients& exact, double least) {
  return std::max({Error(got.dq, exact.dq, least), Error(got.dk, exact.dk, least),
                   Error(got.dv, exact.dv, least)});
}

// An entry point's log-sum-exp as [B, H, N]: packed ones have [H, B * N], some pad the rows, some
// end in a dimension of one.
at::Tensor LseOf(at::Tensor lse, const AttentionCase& c) {
  if (lse.dim() == 2) return lse.view({c.heads, c.batch, c.queries}).transpose(0, 1);
  if (lse.dim() == 4) lse = lse.squeeze(-1);
  return lse.narrow(2, 0, c.queries);
}

// While it lives, kernels with a fixed order are demanded, as a training with `deterministic` does.
class FixedOrder {
 public:
  FixedOrder() { at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false); }
  ~FixedOrder() { at::globalContext().setDeterministicAlgorithms(false, /*warn_only=*/false); }
};

bool Equal(const AttentionGradients& a, const AttentionGradients& b) {
  return at::equal(a.dq, b.dq) && at::equal(a.dk, b.dk) && at::equal(a.dv, b.dv);
}

nlohmann::ordered_json Describe(const EntryPoint& entry, const AttentionCase& c) {
  return {{"entry_point", entry.name},
          {"case", c.name},
          {"batch", c.batch},
          {"heads", c.heads},
          {"kv_heads", c.kv_heads},
          {"queries", c.queries},
          {"keys", c.keys},
          {"head_dim", c.head_dim},
          {"overlapping", c.overlapping}};
}

// The first line, without the stack.
std::string FirstLine(const std::exception& e) {
  const std::string text = e.what();
  return text.substr(0, std::min(text.find('\n'), size_t{200}));
}

// Whether runs that follow each other give the same bits.
nlohmann::ordered_json SameBits(const EntryPoint& entry, const AttentionInputs& in,
                                const at::Tensor& dout, int repeats) {
  const Saved saved = entry.forward(in);
  const AttentionGradients got = entry.backward(in, saved, dout);
  bool same_forward = true, same_backward = true;
  for (int i = 1; i < repeats; ++i) {
    same_forward = same_forward && at::equal(entry.forward(in)[0], saved[0]);
    same_backward = same_backward && Equal(entry.backward(in, saved, dout), got);
  }
  return {{"forward", same_forward}, {"backward", same_backward}, {"runs", repeats}};
}

void Fill(nlohmann::ordered_json& line, const EntryPoint& entry, const AttentionCase& c,
          int repeats) {
  const at::Device device(entry.device);
  const AttentionInputs in = Inputs(c, device);
  const Saved saved = entry.forward(in);
  const at::Tensor dout = at::randn(in.q.sizes(), at::kFloat).to(device, at::kBFloat16);
  const AttentionGradients got = entry.backward(in, saved, dout);
  Synchronize(entry.device);

  const Reference bottom = Exact(in, dout, c.keys - c.queries), top = Exact(in, dout, 0);
  const bool is_bottom = Error(saved[0], bottom.out) <= Error(saved[0], top.out);
  const Reference& exact = is_bottom ? bottom : top;
  const double forward = Error(saved[0], exact.out);
  const double least = std::max(1e-9, 1e-3 * dout.to(at::kFloat).norm().item<double>());
  const double backward = Error(got, exact.gradients, least);
  if (c.queries < c.keys) line["alignment"] = is_bottom ? "bottom_right" : "top_left";
  const auto number = [](double x) {
    return std::isfinite(x) ? nlohmann::ordered_json(x) : nlohmann::ordered_json("not finite");
  };
  line["forward_error"] = number(forward);
  line["backward_error"] = number(backward);
  const double lse = Error(LseOf(saved[1], c), exact.lse);
  line["lse_error"] = number(lse);
  line["bit_equal"] = SameBits(entry, in, dout, repeats);
  {
    const FixedOrder fixed;
    line["bit_equal_deterministic"] = SameBits(entry, in, dout, repeats);
  }
  const bool right = forward < kTolerance && backward < kTolerance && lse < kTolerance;
  line["status"] = right ? "ok" : "wrong";
}

// Pairs (query, key) that are visible.
double Pairs(const AttentionCase& c) {
  const double q = static_cast<double>(c.queries), before = static_cast<double>(c.keys) - q;
  return static_cast<double>(c.batch * c.heads) * (q * before + q * (q + 1) / 2);
}

template <typename Call>
double MedianSeconds(at::DeviceType device, int repeats, Call call) {
  std::vector<double> seconds;
  for (int i = -3; i < repeats; ++i) {
    Synchronize(device);
    const auto start = std::chrono::steady_clock::now();
    call();
    Synchronize(device);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (i >= 0) seconds.push_back(took.count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

}  // namespace

const std::vector<AttentionCase>& Cases() {
  static const std::vector<AttentionCase> cases = [] {
    std::vector<AttentionCase> all;
    for (const int64_t d : {64, 128}) {
      const auto add = [&](std::string name, AttentionCase c) {
        c.name = name + " d" + std::to_string(d);
        c.head_dim = d;
        all.push_back(c);
      };
      add("square", {"", 2, 4, 4, 256, 256, d});
      add("grouped heads", {"", 2, 8, 2, 256, 256, d});
      add("fewer queries", {"", 2, 4, 4, 128, 256, d});
      add("fewer queries, grouped heads", {"", 2, 8, 2, 96, 224, d});
      add("overlapping", {"", 3, 4, 4, 256, 256, d, true});
      add("overlapping, grouped heads", {"", 3, 8, 2, 256, 256, d, true});
      add("one query", {"", 2, 4, 4, 1, 256, d});
      add("one token", {"", 2, 4, 4, 1, 1, d});
      add("63 tokens", {"", 2, 4, 4, 63, 63, d});
      add("no token", {"", 2, 4, 4, 0, 0, d});
    }
    return all;
  }();
  return cases;
}

const std::vector<AttentionCase>& SpeedCases() {
  static const std::vector<AttentionCase> cases = {
      {"unshifted groups of 32,768", 4, 16, 16, 8192, 8192, 128},
      {"shifted groups of 32,768", 3, 16, 16, 8192, 8192, 128},
      {"half groups of 32,768", 2, 16, 16, 4096, 4096, 128},
      {"full attention of 32,768", 1, 32, 32, 32768, 32768, 128},
      {"unshifted groups of 32,768, 8 of 64 heads' keys", 4, 32, 4, 8192, 8192, 128}};
  return cases;
}

nlohmann::ordered_json Judge(const EntryPoint& entry, const AttentionCase& c, int repeats,
                             uint64_t seed) {
  nlohmann::ordered_json line = Describe(entry, c);
  at::manual_seed(seed);
  try {
    Fill(line, entry, c, repeats);
  } catch (const std::exception& e) {
    line["status"] = "refused";
    line["message"] = FirstLine(e);
  }
  return line;
}

nlohmann::ordered_json Ended(const EntryPoint& entry, const AttentionCase& c, int exit) {
  nlohmann::ordered_json line = Describe(entry, c);
  line["status"] = "ended the process";
  line["exit"] = exit;
  return line;
}

nlohmann::ordered_json Time(const EntryPoint& entry, const AttentionCase& c, int repeats,
                            uint64_t seed, bool deterministic) {
  nlohmann::ordered_json line = Describe(entry, c);
  line["deterministic"] = deterministic;
  at::manual_seed(seed);
  try {
    std::optional<FixedOrder> fixed;
    if (deterministic) fixed.emplace();
    const AttentionInputs in = Inputs(c, at::Device(entry.device));
    const Saved saved = entry.forward(in);
    const at::Tensor dout = at::randn_like(saved[0]);
    const double forward = MedianSeconds(entry.device, repeats, [&] { entry.forward(in); });
    const double backward =
        MedianSeconds(entry.device, repeats, [&] { entry.backward(in, saved, dout); });
    const double flops = 4 * Pairs(c) * static_cast<double>(c.head_dim);
    line["forward_seconds"] = forward;
    line["backward_seconds"] = backward;
    line["forward_tflops"] = flops / forward / 1e12;
    line["backward_tflops"] = 2.5 * flops / backward / 1e12;
    line["status"] = "timed";
  } catch (const std::exception& e) {
    line["status"] = "refused";
    line["message"] = FirstLine(e);
  }
  return line;
}

void Synchronize(at::DeviceType device) {
  if (device == at::kCUDA) at::detail::getCUDAHooks().deviceSynchronize(0);
}

}  // namespace ll::gpu
