#include "tests/gpu/kernels_check.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <vector>

#include "tests/gpu/judge.h"

namespace ll::gpu {
namespace {

const char* TypeName(at::ScalarType t) { return t == at::kFloat ? "fp32" : "bf16"; }

nlohmann::ordered_json Number(double x) {
  return std::isfinite(x) ? nlohmann::ordered_json(x) : nlohmann::ordered_json("not finite");
}

// Flags and indices stay what they are.
Tensors InFp64(const Tensors& in) {
  Tensors out;
  for (const at::Tensor& t : in) out.push_back(t.is_floating_point() ? t.to(at::kDouble) : t);
  return out;
}

Tensors On(const Tensors& in, at::Device device) {
  Tensors out;
  for (const at::Tensor& t : in) out.push_back(t.to(device));
  return out;
}

// The largest difference over the largest value; infinite where shapes differ or a value is none.
double WorstError(const at::Tensor& got, const at::Tensor& exact) {
  if (got.sizes() != exact.sizes()) return INFINITY;
  if (exact.numel() == 0) return 0;
  const double scale = std::max(exact.abs().max().item<double>(), 1e-30);
  const double error = (got.cpu().to(at::kDouble) - exact).abs().max().item<double>() / scale;
  return std::isnan(error) ? INFINITY : error;
}

// What is forgiven beside twice torch's error: of bf16 one unit in the last place, of fp32 eight,
// which a sum of thousands added lane by lane loses, or a constant as AdamW's 1 - beta1 rounded
// once (measured on the CPU's kernels: six at most).
double Forgiven(at::ScalarType t) {
  return t == at::kBFloat16 ? std::ldexp(1, -7) : t == at::kFloat ? std::ldexp(1, -20) : 0;
}

// Seconds of one of several calls in a row, so that waiting for the device weighs little.
template <typename Call>
double MedianSeconds(Call call) {
  constexpr int kCalls = 5;
  std::vector<double> seconds;
  for (int i = -1; i < 9; ++i) {
    Synchronize(at::kCUDA);
    const auto start = std::chrono::steady_clock::now();
    for (int k = 0; k < kCalls; ++k) call();
    Synchronize(at::kCUDA);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (i >= 0) seconds.push_back(took.count() / kCalls);
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

nlohmann::ordered_json JudgeKernel(const Operation& operation, at::ScalarType type, Shape shape,
                                   at::Device device) {
  // Plain torch runs on the CPU, so that the limit is the same on every device.
  const Tensors in = operation.inputs(type, shape, at::kCPU);
  const Tensors exact = operation.plain(InFp64(in)), torch = operation.plain(in);
  const Tensors got = operation.prepare(On(in, device))();
  double error = 0, torch_error = 0, limit = 0, worst = -1;
  bool untouched = true;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double ours = WorstError(got[i], exact[i]), theirs = WorstError(torch[i], exact[i]);
    const double allowed = 2 * theirs + Forgiven(got[i].scalar_type());
    // Where nothing may differ, any difference is infinitely much.
    const double share = ours == 0 ? 0 : ours / allowed;
    if (got[i].storage_offset() > 0) untouched = untouched && UntouchedAround(got[i]);
    if (share <= worst) continue;
    worst = share;
    error = ours, torch_error = theirs, limit = allowed;
  }
  const bool ok = worst <= 1 && untouched && got.size() == exact.size();
  nlohmann::ordered_json line = {{"kernel", operation.name}, {"type", TypeName(type)},
                                 {"rows", shape.rows},       {"width", shape.width},
                                 {"error", Number(error)},   {"torch_error", Number(torch_error)},
                                 {"limit", Number(limit)},   {"status", ok ? "ok" : "wrong"}};
  if (!untouched) line["message"] = "wrote outside of its output";
  return line;
}

bool CheckKernels(at::Device device, bool small,
                  const std::function<void(const nlohmann::ordered_json&)>& write) {
  std::vector<Shape> shapes = {{0, 64}, {1, 2}, {3, 18}, {7, 17}, {33, 64}, {130, 1026}};
  if (!small) shapes.insert(shapes.end(), {{257, 4096}, {5, 16384}});
  bool all_ok = true;
  for (const Operation& operation : Operations()) {
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      if (operation.fp32_only && type != at::kFloat) continue;
      for (const Shape shape : shapes) {
        const auto line = JudgeKernel(operation, type, shape, device);
        all_ok = all_ok && line["status"] == "ok";
        write(line);
      }
    }
  }
  return all_ok;
}

void TimeKernels(const std::function<void(const nlohmann::ordered_json&)>& write) {
  for (const Operation& operation : Operations()) {
    const Shape shape = operation.large;
    const auto type = operation.fp32_only ? at::kFloat : at::kBFloat16;
    const double elements = static_cast<double>(shape.rows * shape.width);
    const double bytes = elements * operation.bytes_an_element(2);
    const auto run = operation.prepare(operation.inputs(type, shape, at::kCUDA));
    const double seconds = MedianSeconds([&] { run(); });
    const double copy = CopyBytesPerSecond(bytes);
    write({{"kernel", operation.name},
           {"type", TypeName(type)},
           {"rows", shape.rows},
           {"width", shape.width},
           {"seconds", seconds},
           {"bytes", bytes},
           {"bytes_per_second", bytes / seconds},
           {"copy_bytes_per_second", copy},
           {"share_of_copy", bytes / seconds / copy},
           {"product", operation.product}});
  }
}

}  // namespace ll::gpu
