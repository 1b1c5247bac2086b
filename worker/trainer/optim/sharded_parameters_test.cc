#include "worker/trainer/optim/sharded_parameters.h"

#include <algorithm>
#include <random>
#include <thread>

#include <ATen/CPUGeneratorImpl.h>

#include "base/status_matchers.h"
#include "gtest/gtest.h"
#include "worker/trainer/comm/testing_gang.h"
#include "worker/trainer/optim/grad_norm.h"

namespace ll {
namespace {

TEST(Partition, EveryElementHasOneOwnerAndCutsFallOnBlocks) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 200; ++round) {
    const int world = 1 + static_cast<int>(random() % 8);
    std::vector<ParameterShape> shapes;
    for (size_t i = 0; i < 1 + random() % 12; ++i)
      shapes.push_back({1 + static_cast<int64_t>(random() % 5000), i == 0 && random() % 2 == 0});
    const BucketSizes sizes{64, 1000, 2048};
    std::vector<std::vector<int>> owners;
    for (const ParameterShape& shape : shapes)
      owners.emplace_back(static_cast<size_t>(shape.elements), 0);
    for (const Bucket& bucket : MakeBuckets(shapes, world, sizes)) {
      int64_t largest = 0, smallest = bucket.elements;
      for (int rank = 0; rank < world; ++rank) {
        int64_t elements = 0;
        for (const Piece& piece : PiecesOf(bucket, rank)) {
          const int64_t whole = shapes[piece.parameter].elements;
          EXPECT_EQ(piece.begin % sizes.block, 0);
          EXPECT_TRUE(piece.end == whole || piece.end % sizes.block == 0);
          for (int64_t i = piece.begin; i < piece.end; ++i)
            ++owners[piece.parameter][static_cast<size_t>(i)];
          elements += piece.size();
        }
        const auto& [begin, end] = bucket.parts[static_cast<size_t>(rank)];
        EXPECT_EQ(elements, end - begin);
        largest = std::max(largest, elements);
        smallest = std::min(smallest, elements);
      }
      EXPECT_LE(largest - smallest, 2 * sizes.block);
      EXPECT_EQ(bucket.by_rows, shapes[bucket.pieces[0].parameter].by_rows);
    }
    for (const auto& parameter : owners) {
      EXPECT_TRUE(std::all_of(parameter.begin(), parameter.end(), [](int n) { return n == 1; }));
    }
  }
}

at::Tensor RandomTensor(std::vector<int64_t> shape, uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kFloat));
}

// An embedding, a matrix of several buckets' blocks, two that share a storage, and a norm.
std::vector<Parameter> MakeParameters(bool bf16) {
  std::vector<Parameter> parameters;
  const auto add = [&](const std::string& name, const at::Tensor& master, const at::Tensor& grad,
                       bool rounded) {
    const at::Tensor compute = rounded ? master.to(at::kBFloat16) : master;
    parameters.push_back({name, compute, master, grad, false, parameters.empty()});
  };
  const auto own = [&](const std::string& name, std::vector<int64_t> shape, bool rounded) {
    add(name, RandomTensor(shape, parameters.size() + 1), at::zeros(shape), rounded);
  };
  own("embedding", {3001, 100}, bf16);
  own("large", {1100, 1000}, bf16);
  const at::Tensor stacked = RandomTensor({24, 5000}, 77), stacked_grad = at::zeros({24, 5000});
  add("upper", stacked.narrow(0, 0, 8), stacked_grad.narrow(0, 0, 8), bf16);
  add("lower", stacked.narrow(0, 8, 16), stacked_grad.narrow(0, 8, 16), bf16);
  own("norm", {321}, false);
  return parameters;
}

struct Outcome {
  std::vector<at::Tensor> computes;          // of all parameters, after the steps
  std::vector<std::vector<at::Tensor>> own;  // of each slice: master and moments
  std::vector<Slice> slices;
  std::vector<double> norms;
  int64_t bytes_sent = 0, state_elements = 0;
};

// Two steps with gradients that are a function of (step, rank, parameter).
Outcome TwoSteps(Comm& comm, int stage, bool sparse, bool bf16, uint64_t seed) {
  Outcome outcome;
  std::vector<Parameter> parameters = MakeParameters(bf16);
  ShardedParameters shards(parameters, stage, sparse, comm);
  AdamWOptimizer optimizer(shards.slices(), {0.9, 0.95, 1e-8, 0.1});
  shards.ReleaseMasters();
  const int64_t before = comm.counters().bytes_sent;
  for (int64_t step = 0; step < 2; ++step) {
    shards.StartStep();
    const bool has_row = comm.rank() != 1;  // rank 1 has none
    if (has_row) {
      std::mt19937_64 random(seed + static_cast<uint64_t>(10 * step + comm.rank()));
      std::vector<int64_t> tokens;
      for (int i = 0; i < 400; ++i) tokens.push_back(static_cast<int64_t>(random() % 3001));
      const at::Tensor ids = at::tensor(tokens, at::kLong);
      shards.Touch(ids);
      shards.LastRow();
      for (size_t i = parameters.size(); i-- > 0;) {
        shards.Begin(i, i + 1);
        at::Tensor grad = parameters[i].grad;
        const at::Tensor value = RandomTensor(grad.sizes().vec(), random());
        if (i == 0) {
          grad.index_copy_(0, ids, value.index_select(0, ids));
          grad.select(0, tokens[0]).fill_(-0.0f);  // the sign of a zero is a bit too
        } else {
          grad.add_(value);
        }
        LL_EXPECT_OK(shards.End(i, i + 1));
      }
    }
    LL_EXPECT_OK(shards.FinishReduction());
    const auto norm = shards.GradNorm();
    LL_EXPECT_OK(norm.status());
    outcome.norms.push_back(*norm);
    optimizer.Step(step + 1, 0.01, ClipFactor(*norm, 1.0));
    LL_EXPECT_OK(shards.GatherParameters());
  }
  outcome.bytes_sent = comm.counters().bytes_sent - before;
  for (const Parameter& p : parameters) outcome.computes.push_back(p.compute);
  for (size_t i = 0; i < shards.slices().size(); ++i) {
    outcome.own.push_back(
        {shards.slices()[i].master, optimizer.exp_avg()[i], optimizer.exp_avg_sq()[i]});
    outcome.state_elements += optimizer.exp_avg()[i].numel();
  }
  outcome.slices = shards.slices();
  return outcome;
}

bool SameBits(const at::Tensor& a, const at::Tensor& b) {
  return at::equal(a.contiguous().view({-1}).view(at::kByte),
                   b.contiguous().view({-1}).view(at::kByte));
}

TEST(ShardedParameters, StagesAndSparsenessGiveTheSameBits) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  for (const int world : {2, 3, 4}) {
    for (const bool bf16 : {false, true}) {
      std::vector<Outcome> dense0(static_cast<size_t>(world));
      RunGang(world, [&](Comm& comm) {
        dense0[static_cast<size_t>(comm.rank())] = TwoSteps(comm, 0, false, bf16, seed);
      });
      const Outcome& reference = dense0[0];
      for (const int stage : {0, 1, 2}) {
        for (const bool sparse : {false, true}) {
          SCOPED_TRACE(testing::Message() << world << " ranks, stage " << stage << ", sparse "
                                          << sparse << ", bf16 " << bf16);
          std::vector<Outcome> outcomes(static_cast<size_t>(world));
          RunGang(world, [&](Comm& comm) {
            outcomes[static_cast<size_t>(comm.rank())] = TwoSteps(comm, stage, sparse, bf16, seed);
          });
          int64_t elements = 0;
          for (const Outcome& outcome : outcomes) {
            EXPECT_EQ(outcome.norms, reference.norms);
            for (size_t i = 0; i < outcome.computes.size(); ++i)
              EXPECT_TRUE(SameBits(outcome.computes[i], reference.computes[i])) << i;
            for (size_t i = 0; i < outcome.own.size(); ++i) {
              const Slice& slice = outcome.slices[i];
              for (size_t k = 0; k < 3; ++k) {
                const at::Tensor whole = reference.own[slice.parameter][k];
                EXPECT_TRUE(SameBits(outcome.own[i][k],
                                     whole.narrow(0, slice.begin, slice.end - slice.begin)));
              }
            }
            elements += outcome.state_elements;
          }
          int64_t whole = 0;
          for (const at::Tensor& t : reference.computes) whole += t.numel();
          EXPECT_EQ(elements, stage == 0 ? world * whole : whole);
        }
      }
    }
  }
}

// ZeRO's volumes: a reduce-scatter of the fp32 gradients, then either an all-gather of their sums
// (stage 0) or of the compute copies. All ranks together, because parts differ by a block.
TEST(ShardedParameters, BytesOnTheWire) {
  constexpr int kRanks = 4;
  const uint64_t seed = 1;
  for (const int stage : {0, 1, 2}) {
    for (const bool sparse : {false, true}) {
      std::vector<Outcome> outcomes(kRanks);
      RunGang(kRanks, [&](Comm& comm) {
        outcomes[static_cast<size_t>(comm.rank())] = TwoSteps(comm, stage, sparse, true, seed);
      });
      int64_t sent = 0, elements = 0, compute_bytes = 0;
      for (const Outcome& outcome : outcomes) sent += outcome.bytes_sent;
      for (const at::Tensor& t : outcomes[0].computes) {
        elements += t.numel();
        compute_bytes += static_cast<int64_t>(t.nbytes());
      }
      const int64_t last = stage == 0 ? 4 * elements : compute_bytes;
      int64_t norms = 0;
      if (stage > 0) {
        for (const at::Tensor& t : outcomes[0].computes) norms += 8 * ((t.numel() + 65535) / 65536);
      }
      const int64_t dense = 2 * ((kRanks - 1) * (4 * elements + last) + kRanks * norms);
      if (!sparse) {
        EXPECT_EQ(sent, dense);
      } else {
        // Three ranks have at most 400 rows each; rows on a cut go to both sides.
        const int64_t table = 3001 * 100;
        EXPECT_LT(sent, dense - 2 * (kRanks - 1) * 4 * table +
                            2 * (3 * (400 + 3) * 400 * (stage == 0 ? 4 : 1) +
                                 kRanks * (kRanks - 1) * 3001));
        EXPECT_GT(sent, dense - 2 * (kRanks - 1) * 4 * table * (stage == 0 ? 2 : 1));
      }
    }
  }
}

TEST(ShardedParameters, StageTwoHoldsNoGradientOfOthers) {
  RunGang(2, [&](Comm& comm) {
    std::vector<Parameter> parameters = MakeParameters(true);
    ShardedParameters shards(parameters, 2, false, comm);
    shards.StartStep();
    for (const Parameter& p : parameters) EXPECT_EQ(p.grad.storage().nbytes(), 0u);
    shards.LastRow();
    for (size_t i = parameters.size(); i-- > 0;) {
      shards.Begin(i, i + 1);
      EXPECT_GT(parameters[i].grad.storage().nbytes(), 0u);
      EXPECT_EQ(parameters[i].grad.abs().max().item<float>(), 0.0f);
      LL_EXPECT_OK(shards.End(i, i + 1));
    }
    LL_EXPECT_OK(shards.FinishReduction());
    for (const Parameter& p : parameters) EXPECT_EQ(p.grad.storage().nbytes(), 0u);
    for (const Slice& slice : shards.slices()) EXPECT_EQ(slice.grad.numel(), slice.master.numel());
  });
}

}  // namespace
}  // namespace ll
