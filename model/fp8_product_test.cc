// A projection whose base is in fp8, against the definition in torch's own operations: with values
// multiplied in bf16, and with codes multiplied, for which the emulation stands in a GPU's place.
// And whole steps, whose conversions are counted as the planner counts them.
#include "model/fp8_product.h"

#include <map>
#include <optional>
#include <tuple>

#include "base/clock.h"
#include "gtest/gtest.h"
#include "kernels/common/torch_op_trace.h"
#include "kernels/emulate/emulated_kernels.h"
#include "kernels/testing.h"
#include "model/llama.h"
#include "model/plan/job_shape.h"
#include "model/plan/memory_plan.h"
#include "model/plan/time_plan.h"
#include "model/projection.h"

namespace ll {
namespace {

constexpr int64_t kTokens = 37, kIn = 48;

at::Tensor RowScales(const at::Tensor& x) {
  const at::Tensor largest = std::get<0>(x.abs().max(1, /*keepdim=*/true));
  return at::exp2(at::ceil(at::log2(largest / 448)));
}
at::Tensor RowsInFp8(const at::Tensor& x) {
  const at::Tensor scales = RowScales(x);
  return (x / scales).to(at::kFloat8_e4m3fn).to(at::kFloat) * scales;
}

double Distance(const at::Tensor& got, const at::Tensor& want) {
  return ((got.to(at::kFloat) - want).norm() / want.norm()).item<double>();
}
// What a few roundings to bf16 may cost, and what is far beyond them.
constexpr double kSame = 0.006, kOther = 0.02;

class RandomSource : public WeightSource {
 public:
  absl::StatusOr<at::Tensor> Get(const std::string& name) override {
    const int64_t rows = name[0] == 'q' ? 32 : 16;
    const bool bias = name.find("bias") != std::string::npos;
    at::Tensor& w = weights_[name];
    if (!w.defined()) {
      w = bias ? Random({rows}, at::kBFloat16, weights_.size())
               : Random({rows, kIn}, at::kBFloat16, weights_.size(), 0.05);
    }
    return w;
  }
  // The parts' weights over each other, fp32.
  at::Tensor Stacked(const std::string& kind) {
    return at::cat({*Get("q." + kind), *Get("k." + kind), *Get("v." + kind)}).to(at::kFloat);
  }

 private:
  std::map<std::string, at::Tensor> weights_;
};

// The emulation as a GPU that multiplies e4m3, as long as this lives.
class MultipliesFp8 {
 public:
  MultipliesFp8() : kernels_(EmulatedKernels()) {
    kernels_.multiplies_fp8 = [] { return true; };
    UseCudaKernels(&kernels_);
  }
  ~MultipliesFp8() { UseCudaKernels(nullptr); }

 private:
  CudaKernels kernels_;
};

// Whether codes are multiplied; LoRA on q and v or on none; biases.
struct Case {
  bool multiplies = false, lora = false, bias = false;
  double dropout = 0;
};

class Fp8Projection : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (GetParam().multiplies) gpu_.emplace();
  }

  Projection Make(BaseFormat base) {
    const Case& c = GetParam();
    ModelOptions options;
    options.base = base;
    options.lora = {c.lora ? 4 : 0, 8, c.dropout, {}, false};
    const auto part = [&](const char* name, int64_t rows, bool lora) {
      return Projection::PartSpec{name, rows, lora && c.lora, c.bias};
    };
    auto made = Projection::Create({part("q", 32, true), part("k", 16, false), part("v", 16, true)},
                                   kIn, options, source_);
    if (!made.ok()) ADD_FAILURE() << made.status();
    std::vector<Parameter> parameters;
    made->AppendParameters(parameters);
    at::manual_seed(7);  // B starts at zero
    for (Parameter& p : parameters) p.compute.copy_(at::randn(p.compute.sizes()) * 0.1);
    return *std::move(made);
  }
  // What the adapters add, of a projection that is otherwise zero: its product with no base.
  at::Tensor OfAdapters(const Projection& in_bf16, const at::Tensor& x, DropoutKey dropout) {
    at::Tensor y = at::empty({x.size(0), 64}, at::kBFloat16);
    in_bf16.Forward(in_bf16.Open(Projection::Use::kForward, Projection::Place::kFirst), x, dropout,
                    y);
    return y.to(at::kFloat) - x.to(at::kFloat).mm(source_.Stacked("weight").t());
  }

  RandomSource source_;
  std::optional<MultipliesFp8> gpu_;
};

TEST_P(Fp8Projection, IsTheProductOfTheRoundedValues) {
  const Case& c = GetParam();
  const Projection fp8 = Make(BaseFormat::kFp8), plain = Make(BaseFormat::kCompute);
  const DropoutKey dropout{c.dropout > 0 ? 5u : 0u, 1, nullptr};
  const at::Tensor x = Random({kTokens, kIn}, at::kBFloat16, 11),
                   dy = Random({kTokens, 64}, at::kBFloat16, 12);
  const at::Tensor w = source_.Stacked("weight"), values = RowsInFp8(w);
  const auto opened = fp8.Open(Projection::Use::kBoth, Projection::Place::kFirst);

  const at::Tensor product = RowsInFp8(x.to(at::kFloat)).mm(values.t());
  const at::Tensor adapters = OfAdapters(plain, x, dropout);  // and the bias
  at::Tensor y = at::full({kTokens, 64}, 7, at::kBFloat16);
  fp8.Forward(opened, x, dropout, y);
  EXPECT_LT(Distance(y, product + adapters), kSame);
  EXPECT_GT(Distance(product, x.to(at::kFloat).mm(w.t())), kOther);

  if (!c.bias) {
    const at::Tensor residual = Random({kTokens, 64}, at::kBFloat16, 13);
    y.copy_(residual);
    fp8.ForwardAdd(opened, x, y, dropout, y);
    EXPECT_LT(Distance(y, product + adapters + residual.to(at::kFloat)), kSame);
    at::Tensor one = at::empty({1, 64}, at::kBFloat16);
    fp8.InferAdd(opened, x.narrow(0, 0, 1), residual.narrow(0, 0, 1), one);
    if (c.dropout == 0) {
      EXPECT_LT(Distance(one, y.narrow(0, 0, 1).to(at::kFloat)), kSame);
    }
  }

  // The other way, W's scales are in the sum: they go into dy before its rows are rounded.
  const at::Tensor scales = RowScales(w).view({1, 64});
  const at::Tensor back = (RowsInFp8(dy.to(at::kFloat) * scales) / scales).mm(values);
  at::Tensor dx = at::full({kTokens, kIn}, 7, at::kBFloat16), plain_dx = dx.clone();
  fp8.Backward(opened, x, dy, dropout, dx);
  plain.Backward(plain.Open(Projection::Use::kBackward, Projection::Place::kSecond), x, dy, dropout,
                 plain_dx);
  const at::Tensor of_adapters = plain_dx.to(at::kFloat) - dy.to(at::kFloat).mm(w);
  EXPECT_LT(Distance(dx, back + of_adapters), kSame);
  EXPECT_GT(Distance(back, dy.to(at::kFloat).mm(w)), kOther);

  // The adapters see x and dy as they are: their gradients are those beside a base in bf16.
  std::vector<Parameter> got, want;
  fp8.AppendParameters(got);
  plain.AppendParameters(want);
  ASSERT_EQ(got.size(), c.lora ? 4u : 0u);
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_GT(got[i].grad.abs().max().item<double>(), 0) << got[i].name;
    EXPECT_TRUE(at::equal(got[i].grad, want[i].grad)) << got[i].name;
  }
  EXPECT_TRUE(at::equal(fp8.Weight("k.weight").to(at::kFloat), values.narrow(0, 32, 16)));
}

INSTANTIATE_TEST_SUITE_P(
    Routes, Fp8Projection,
    testing::Values(Case{}, Case{.lora = true}, Case{.lora = true, .bias = true},
                    Case{.lora = true, .dropout = 0.3}, Case{.multiplies = true},
                    Case{.multiplies = true, .bias = true}, Case{.multiplies = true, .lora = true},
                    Case{.multiplies = true, .lora = true, .bias = true},
                    Case{.multiplies = true, .lora = true, .dropout = 0.3}));

struct Step {
  double loss = 0, fp8_flops = 0, conversion_bytes = 0;
  std::vector<Parameter> parameters;
};

constexpr int64_t kRow = 64;

LlamaConfig SmallConfig() {
  LlamaConfig c;
  c.hidden_size = 64;
  c.intermediate_size = 192;
  c.num_hidden_layers = 1;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 16;
  c.vocab_size = 96;
  c.max_position_embeddings = kRow;
  c.initializer_range = 0.1;
  return c;
}

Step TakeStep(Recompute recompute) {
  ModelOptions options;
  options.base = BaseFormat::kFp8;
  options.lora = {4, 8, 0, {"q_proj", "v_proj", "down_proj"}, false};
  options.recompute = recompute;
  RandomWeights weights(1, SmallConfig());
  auto model = Llama::Create(SmallConfig(), weights, options);
  EXPECT_TRUE(model.ok()) << model.status();
  at::manual_seed(3);
  for (Parameter& p : (*model)->parameters()) p.master.add_(at::randn(p.master.sizes()), 0.05);
  (*model)->CastMastersToCompute();
  Row row;
  row.tokens = at::arange(kRow, at::kLong) % 96;
  row.labels = row.tokens;
  OpTrace trace(RealClock(), [] {});
  Step step;
  {
    const OpTracing on(trace);
    step.loss = *(*model)->ForwardBackward(row, {AttentionKind::kS2, WrapKind::kSplit, 16}, 1.0);
  }
  for (const auto& [key, sum] : trace.sums()) {
    if (key.second == "fp8 product") step.fp8_flops += sum.work.flops;
    if (key.second == "fp8 conversion") step.conversion_bytes += sum.work.bytes;
  }
  step.parameters = (*model)->parameters();
  return step;
}

// Claim: codes multiplied give the losses and gradients of their values, and both routes convert
// what the planner says.
TEST(Fp8Step, BothRoutesAgreeAndConvertWhatIsPlanned) {
  const LlamaConfig config = SmallConfig();
  const auto body = static_cast<double>(LinearParameterCount(config));
  const double down = 64.0 * 192;
  for (const auto& [recompute, name, again] : {std::tuple(Recompute::kNone, "none", 0.0),
                                               {Recompute::kSelective, "selective", 2 * down},
                                               {Recompute::kFull, "full", body - down}}) {
    SCOPED_TRACE(name);
    const Step values = TakeStep(recompute);
    std::optional<MultipliesFp8> gpu(std::in_place);
    const Step codes = TakeStep(recompute);
    gpu.reset();
    EXPECT_NEAR(codes.loss, values.loss, 5e-3 * values.loss);
    for (size_t i = 0; i < values.parameters.size(); ++i) {
      // A last bit of bf16 may bring another code, an eighth away.
      EXPECT_LT(Distance(codes.parameters[i].grad, values.parameters[i].grad), 0.1)
          << values.parameters[i].name;
    }
    EXPECT_EQ(values.fp8_flops, 0);
    EXPECT_EQ(codes.fp8_flops, 2.0 * kRow * (2 * body + again));
    for (const bool multiplies : {false, true}) {
      const Fp8Bytes planned = ConversionBytes(config, name, multiplies);
      EXPECT_EQ((multiplies ? codes : values).conversion_bytes,
                kRow * planned.token + planned.weights)
          << multiplies;
    }
  }
}

TEST(Fp8Product, NeedsFeaturesInMultiplesOf16AndADeviceThatCan) {
  EXPECT_FALSE(fp8::Multiplies(at::kCPU, 64, 64));
  UseCudaKernels(&EmulatedKernels());
  EXPECT_FALSE(fp8::Multiplies(at::kCPU, 64, 64));
  const MultipliesFp8 gpu;
  EXPECT_TRUE(fp8::Multiplies(at::kCPU, 64, 48));
  EXPECT_FALSE(fp8::Multiplies(at::kCPU, 64, 40));
  EXPECT_FALSE(fp8::Multiplies(at::kCPU, 40, 64));
}

}  // namespace
}  // namespace ll
