// That the judge tells right from wrong, on the CPU's entry point and on spoiled copies of it.
#include "tests/gpu/judge.h"

#include <cmath>

#include "gtest/gtest.h"

namespace ll::gpu {
namespace {

const EntryPoint& Cpu() { return EntryPoints()[0]; }

AttentionCase Case(const std::string& name) {
  for (const AttentionCase& c : Cases()) {
    if (c.name == name) return c;
  }
  ADD_FAILURE() << "no case " << name;
  return Cases()[0];
}

TEST(Judge, TheCpusKernelIsRightWhereItsContractHolds) {
  for (const char* name :
       {"square d64", "square d128", "overlapping d64", "63 tokens d64", "one token d64"}) {
    const auto line = Judge(Cpu(), Case(name), 3, 1);
    EXPECT_EQ(line["status"], "ok") << line.dump(1);
    EXPECT_TRUE(line["bit_equal"]["forward"].get<bool>());
    EXPECT_TRUE(line["bit_equal_deterministic"]["backward"].get<bool>());
    EXPECT_LT(line["lse_error"].get<double>(), 1e-2);
    EXPECT_FALSE(line.contains("alignment"));
  }
}

TEST(Judge, SaysHowFewerQueriesAreAligned) {
  const auto line = Judge(Cpu(), Case("fewer queries d64"), 1, 1);
  EXPECT_EQ(line["status"], "ok") << line.dump(1);
  EXPECT_EQ(line["alignment"], "top_left");
}

TEST(Judge, AWrongOutputAWrongGradientAndMovingBitsAreSeen) {
  EntryPoint wrong = Cpu();
  wrong.forward = [](const AttentionInputs& in) {
    Saved saved = Cpu().forward(in);
    saved[0] = saved[0] * 1.05;
    return saved;
  };
  EXPECT_EQ(Judge(wrong, Case("square d64"), 1, 1)["status"], "wrong");

  wrong = Cpu();
  wrong.backward = [](const AttentionInputs& in, const Saved& saved, const at::Tensor& dout) {
    AttentionGradients g = Cpu().backward(in, saved, dout);
    g.dv = at::zeros_like(g.dv);
    return g;
  };
  EXPECT_EQ(Judge(wrong, Case("square d64"), 1, 1)["status"], "wrong");

  // In another base than e: parts of an attention could not be merged by it.
  wrong = Cpu();
  wrong.forward = [](const AttentionInputs& in) {
    Saved saved = Cpu().forward(in);
    saved[1] = saved[1] / std::log(2.0);
    return saved;
  };
  wrong.backward = [](const AttentionInputs& in, const Saved& saved, const at::Tensor& dout) {
    return Cpu().backward(in, {saved[0], saved[1] * std::log(2.0)}, dout);
  };
  EXPECT_EQ(Judge(wrong, Case("square d64"), 1, 1)["status"], "wrong");

  wrong = Cpu();
  int calls = 0;
  wrong.forward = [&calls](const AttentionInputs& in) {
    Saved saved = Cpu().forward(in);
    if (++calls == 3) saved[0] = saved[0] + 0.01;
    return saved;
  };
  const auto line = Judge(wrong, Case("square d64"), 5, 1);
  EXPECT_EQ(line["status"], "ok");
  EXPECT_FALSE(line["bit_equal"]["forward"].get<bool>());
}

// Bits that move unless a fixed order is demanded, as FlashAttention-2's do.
TEST(Judge, AFixedOrderIsDemandedForHalfOfTheRuns) {
  EntryPoint moving = Cpu();
  int calls = 0;
  moving.backward = [&calls](const AttentionInputs& in, const Saved& saved,
                             const at::Tensor& dout) {
    AttentionGradients g = Cpu().backward(in, saved, dout);
    const bool fixed = at::globalContext().deterministicAlgorithms() &&
                       !at::globalContext().deterministicAlgorithmsWarnOnly();
    if (!fixed) g.dq = g.dq * (1 + 1e-3 * ++calls);
    return g;
  };
  const auto line = Judge(moving, Case("square d64"), 4, 1);
  EXPECT_FALSE(line["bit_equal"]["backward"].get<bool>());
  EXPECT_TRUE(line["bit_equal_deterministic"]["backward"].get<bool>());
  EXPECT_FALSE(at::globalContext().deterministicAlgorithms());
}

TEST(Judge, NotANumberIsWrongAndARefusalIsNamed) {
  EntryPoint bad = Cpu();
  bad.forward = [](const AttentionInputs& in) {
    Saved saved = Cpu().forward(in);
    saved[0] = at::full_like(saved[0], NAN);
    return saved;
  };
  const auto line = Judge(bad, Case("square d64"), 1, 1);
  EXPECT_EQ(line["status"], "wrong");
  EXPECT_EQ(line["forward_error"], "not finite");

  bad.forward = [](const AttentionInputs&) -> Saved { TORCH_CHECK(false, "not today"); };
  const auto refused = Judge(bad, Case("square d64"), 1, 1);
  EXPECT_EQ(refused["status"], "refused");
  EXPECT_NE(refused["message"].get<std::string>().find("not today"), std::string::npos);
}

}  // namespace
}  // namespace ll::gpu
