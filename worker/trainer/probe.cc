#include "worker/trainer/probe.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <thread>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "absl/cleanup/cleanup.h"
#include "base/file.h"
#include "base/gpu_kind.h"
#include "base/status_macros.h"
#include "kernels/ops.h"
#include "model/plan/time_plan.h"
#include "model/shifted_attention.h"
#include "model/torch_edge.h"
#include "worker/trainer/device.h"

namespace ll {
namespace {

constexpr int kMeasurements = 9;
// Tensors are taken in turn from sets of so many bytes together, more than a CPU's caches hold: a
// training comes back to a layer's only after all others'.
constexpr int64_t kColdBytes = 200'000'000;
constexpr absl::Duration kSocketTimeout = absl::Seconds(10);

double MedianOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

// `work` is repeated for `budget`; the median of `amount` over the seconds of one time.
double Rate(double amount, absl::Duration budget, Clock& clock, const std::function<void()>& work) {
  work();  // fresh pages, code and workspaces
  std::vector<double> rates;
  const absl::Duration begin = clock.Steady();
  while (rates.size() < static_cast<size_t>(kLeastRepeats) || clock.Steady() - begin < budget) {
    const absl::Duration start = clock.Steady();
    work();
    rates.push_back(amount / std::max(1e-9, absl::ToDoubleSeconds(clock.Steady() - start)));
  }
  return MedianOf(std::move(rates));
}

// Reading one element waits for a GPU's queue.
void Finish(const at::Tensor& t) {
  if (t.is_cuda()) t.view({-1})[0].item();
}

struct Shapes {
  int64_t tokens, hidden, intermediate, heads, kv_heads, head_dim, copy_bytes;
};

Shapes ShapesFor(bool gpu, bool small) {
  if (small) return {256, 128, 256, 4, 2, 32, 1 << 20};
  // A CPU trains models of the size of SmolLM2-135M, a GPU those of Llama-2-7B.
  if (!gpu) return {4096, 576, 1536, 9, 3, 64, 256 << 20};
  return {16384, 4096, 11008, 32, 32, 128, int64_t{1} << 30};
}

at::TensorOptions Of(at::ScalarType type) { return at::TensorOptions(ProcessDevice()).dtype(type); }
at::TensorOptions Bf16() { return Of(at::kBFloat16); }

size_t ColdSets(int64_t bytes_of_one) {
  return static_cast<size_t>(std::max<int64_t>(1, kColdBytes / bytes_of_one));
}

// A layer's four products, forward and for the gradient of their inputs.
double GemmFlops(const Shapes& s, at::ScalarType type, absl::Duration budget, Clock& clock) {
  const int64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  const std::pair<int64_t, int64_t> kProducts[] = {{s.hidden, q + 2 * kv},
                                                   {q, s.hidden},
                                                   {s.hidden, 2 * s.intermediate},
                                                   {s.intermediate, s.hidden}};
  struct Product {
    at::Tensor x, w, y, dx;  // y = x w^T, dx = y w
  };
  double flops = 0;
  int64_t elements = 0;
  for (const auto& [in, out] : kProducts) {
    flops += 4.0 * static_cast<double>(s.tokens * in * out);
    elements += s.tokens * (2 * in + out) + in * out;
  }
  std::vector<std::vector<Product>> layers(
      ColdSets(elements * static_cast<int64_t>(at::elementSize(type))));
  for (std::vector<Product>& layer : layers) {
    for (const auto& [in, out] : kProducts) {
      layer.push_back({at::randn({s.tokens, in}, Of(type)), at::randn({out, in}, Of(type)),
                       at::empty({s.tokens, out}, Of(type)), at::empty({s.tokens, in}, Of(type))});
    }
  }
  size_t next = 0;
  return Rate(flops, budget, clock, [&] {
    std::vector<Product>& layer = layers[next++ % layers.size()];
    for (Product& p : layer) at::mm_out(p.y, p.x, p.w.t());
    for (Product& p : layer) at::mm_out(p.dx, p.y, p.w);
    Finish(layer.back().dx);
  });
}

absl::StatusOr<double> AttentionFlops(const Shapes& s, at::ScalarType type, absl::Duration budget,
                                      Clock& clock) {
  LlamaConfig config;
  config.num_hidden_layers = 1;
  config.num_attention_heads = s.heads;
  config.num_key_value_heads = s.kv_heads;
  config.head_dim = s.head_dim;
  const AttentionSpec spec{AttentionKind::kS2, WrapKind::kSplit, s.tokens / 4};
  LL_ASSIGN_OR_RETURN(const AttentionPlan plan, MakeAttentionPlan(config, spec, s.tokens, {}));
  const int64_t q = s.heads * s.head_dim, width = q + 2 * s.kv_heads * s.head_dim;
  const at::Tensor qkv = at::randn({s.tokens, width}, Of(type));
  const at::Tensor dout = at::randn({s.tokens, q}, Of(type));
  at::Tensor out = at::empty_like(dout), dqkv = at::empty_like(qkv);
  at::Tensor lse = at::empty({s.heads, s.tokens}, Of(at::kFloat));
  const double flops = 3.5 * CausalAttentionFlops(config, s.tokens, "s2", s.tokens / 4);
  return Rate(flops, budget, clock, [&] {
    AttentionForward(plan, /*window=*/0, qkv, out, lse);
    AttentionBackward(plan, /*window=*/0, qkv, out, lse, dout, dqkv);
    Finish(dqkv);
  });
}

double MemoryBandwidth(const Shapes& s, absl::Duration budget, Clock& clock) {
  const at::Tensor from = at::zeros({s.copy_bytes / 2}, Bf16());
  at::Tensor to = at::empty_like(from);
  return Rate(2.0 * static_cast<double>(s.copy_bytes), budget, clock, [&] {
    to.copy_(from);
    Finish(to);
  });
}

// A layer's elementwise kernels, forward and backward.
double ElementwiseBandwidth(const Shapes& s, absl::Duration budget, Clock& clock) {
  const int64_t width = (s.heads + 2 * s.kv_heads) * s.head_dim, rotated = s.heads + s.kv_heads;
  struct Layer {
    at::Tensor x, y, dx, qkv, gate_up, act, dact;
  };
  std::vector<Layer> layers(ColdSets(2 * s.tokens * (3 * s.hidden + width + 4 * s.intermediate)));
  const at::Tensor gate_up = at::randn({s.tokens, 2 * s.intermediate}, Bf16());
  for (Layer& layer : layers) {
    layer.x = at::randn({s.tokens, s.hidden}, Bf16());
    layer.y = at::empty_like(layer.x);
    layer.dx = at::zeros_like(layer.x);
    layer.qkv = at::randn({s.tokens, width}, Bf16());
    layer.gate_up = gate_up.clone();
    layer.act = at::empty({s.tokens, s.intermediate}, Bf16());
    layer.dact = at::randn({s.tokens, s.intermediate}, Bf16());
  }
  const at::Tensor weight = at::ones({s.hidden}, Of(at::kFloat));
  const at::Tensor angles = at::rand({s.tokens, s.head_dim / 2}, Of(at::kFloat));
  const at::Tensor cos = angles.cos(), sin = angles.sin();
  at::Tensor rstd = at::empty({s.tokens}, Of(at::kFloat)), dw = at::zeros_like(weight);
  const double bytes = 3 * ElementwiseBytes(s.hidden) * static_cast<double>(s.tokens);
  size_t next = 0;
  return Rate(bytes, budget, clock, [&] {
    Layer& layer = layers[next++ % layers.size()];
    // SwiGLU's gradient of its own gradient and so on would fade away. The median does not see it.
    if (next % (8 * layers.size()) < layers.size()) layer.gate_up.copy_(gate_up);
    for (int norm = 0; norm < 2; ++norm) {
      RmsNormForward(layer.x, weight, 1e-5, layer.y, rstd);
      layer.y.add_(layer.x);
      RmsNormBackward(layer.y, layer.x, weight, rstd, layer.dx, dw);
    }
    for (const bool backward : {false, true}) RopeInPlace(layer.qkv, rotated, cos, sin, backward);
    SwigluForward(layer.gate_up, layer.act);
    SwigluBackward(layer.gate_up, layer.dact);
    Finish(layer.gate_up);
  });
}

// AdamW on as many parameters as do not fit into caches.
double OptimizerBandwidth(const Shapes& s, absl::Duration budget, Clock& clock) {
  const int64_t n = s.copy_bytes / 16;
  at::Tensor master = at::randn({n}, Of(at::kFloat)), m = at::zeros_like(master),
             v = at::zeros_like(master), compute = at::empty({n}, Bf16());
  const at::Tensor grad = at::randn({n}, Of(at::kFloat));
  AdamWSettings settings;
  settings.lr = 1e-5;
  return Rate(kOptimizerBytes * static_cast<double>(n), budget, clock, [&] {
    AdamWStep(settings, master, m, v, grad, compute);
    Finish(compute);
  });
}

double ExpansionBandwidth(const Shapes& s, absl::Duration budget, Clock& clock) {
  const Nf4Tensor quantised =
      QuantizeNf4(at::randn({2 * s.intermediate, s.hidden}, Of(at::kFloat)));
  at::Tensor w = at::empty({2 * s.intermediate, s.hidden}, Bf16());
  return Rate(kExpansionBytes * static_cast<double>(w.numel()), budget, clock, [&] {
    DequantizeNf4(quantised, w);
    Finish(w);
  });
}

// ---- loopback

void LimitWaits(int fd) {
  timeval limit = absl::ToTimeval(kSocketTimeout);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

// Two ends of a TCP connection of this host with itself.
absl::StatusOr<std::pair<int, int>> Connected() {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) return ErrnoStatus(errno, "socket", "loopback");
  absl::Cleanup close_listener = [listener] { close(listener); };
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (bind(listener, generic, size) != 0 || listen(listener, 1) != 0 ||
      getsockname(listener, generic, &size) != 0)
    return ErrnoStatus(errno, "listen", "loopback");
  const int near = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (near < 0) return ErrnoStatus(errno, "socket", "loopback");
  LimitWaits(near);
  if (connect(near, generic, size) != 0) {
    const absl::Status failed = ErrnoStatus(errno, "connect", "loopback");
    close(near);
    return failed;
  }
  const int far = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  if (far < 0) {
    const absl::Status failed = ErrnoStatus(errno, "accept", "loopback");
    close(near);
    return failed;
  }
  LimitWaits(far);
  return std::pair(near, far);
}

absl::StatusOr<double> LinkBandwidth(bool small, absl::Duration budget, Clock& clock) {
  LL_ASSIGN_OR_RETURN(const auto ends, Connected());
  const auto [near, far] = ends;
  const size_t piece = 1 << 20, count = small ? 4 : 64;
  // Reads until the other end is closed.
  std::thread reader([fd = far] {
    std::vector<char> buffer(1 << 20);
    while (recv(fd, buffer.data(), buffer.size(), 0) > 0) {
    }
  });
  const std::vector<char> bytes(piece, 1);
  bool failed = false;
  const double rate = Rate(static_cast<double>(piece * count), budget, clock, [&, fd = near] {
    for (size_t i = 0; i < count && !failed; ++i) {
      for (size_t sent = 0; sent < piece && !failed;) {
        const ssize_t n = send(fd, bytes.data() + sent, piece - sent, MSG_NOSIGNAL);
        failed = n <= 0;
        if (n > 0) sent += static_cast<size_t>(n);
      }
    }
  });
  close(near);
  reader.join();
  close(far);
  if (failed) return absl::UnavailableError("the loopback connection broke");
  return rate;
}

std::string HostName() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return name;
}

}  // namespace

absl::StatusOr<nlohmann::ordered_json> ProbeDevice(const ProbeOptions& options, Clock& clock) {
  const bool gpu = ProcessDevice().is_cuda();
  const Shapes shapes = ShapesFor(gpu, options.small);
  const absl::Duration start = clock.Steady(), share = options.budget / kMeasurements;
  double gemm = 0, attention = 0, memory = 0, link = 0;
  double gemm_fp32 = 0, attention_fp32 = 0, elementwise = 0, expansion = 0, optimizer = 0;
  LL_RETURN_IF_ERROR(TorchTry([&]() -> absl::Status {
    gemm = GemmFlops(shapes, at::kBFloat16, share, clock);
    gemm_fp32 = GemmFlops(shapes, at::kFloat, share, clock);
    LL_ASSIGN_OR_RETURN(attention, AttentionFlops(shapes, at::kBFloat16, share, clock));
    LL_ASSIGN_OR_RETURN(attention_fp32, AttentionFlops(shapes, at::kFloat, share, clock));
    memory = MemoryBandwidth(shapes, share, clock);
    elementwise = ElementwiseBandwidth(shapes, share, clock);
    expansion = ExpansionBandwidth(shapes, share, clock);
    optimizer = OptimizerBandwidth(shapes, share, clock);
    return absl::OkStatus();
  }));
  if (!gpu) {
    LL_ASSIGN_OR_RETURN(link, LinkBandwidth(options.small, share, clock));
  }
  return nlohmann::ordered_json{
      {"device", gpu ? GpuKind(ProcessDeviceName(), AvailableMemoryBytes()) : "cpu"},
      {"host", HostName()},
      {"time", absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", clock.Now(), absl::UTCTimeZone())},
      {"build", LL_VERSION},
      {"threads", at::get_num_threads()},
      {"gemm_flops", gemm},
      {"attention_flops", attention},
      {"gemm_fp32_flops", gemm_fp32},
      {"attention_fp32_flops", attention_fp32},
      {"memory_bandwidth", memory},
      {"elementwise_bandwidth", elementwise},
      {"expansion_bandwidth", expansion},
      {"optimizer_bandwidth", optimizer},
      {"link_bandwidth", link},
      {"seconds", absl::ToDoubleSeconds(clock.Steady() - start)}};
}

}  // namespace ll
