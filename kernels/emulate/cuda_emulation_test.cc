// That the emulation notices what a GPU leaves undefined.
#include <vector>

#include "gtest/gtest.h"
#include "kernels/common/cuda.h"

namespace ll {
namespace {

constexpr int kThreads = 64;

TEST(CudaEmulation, EveryThreadOfEveryBlockRunsOnce) {
  std::vector<int> hits(6 * kThreads, 0);
  emulate::Launch(dim3(3, 2), kThreads, 0, [&] {
    ++hits[(blockIdx.y * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x];
  });
  for (const int hit : hits) EXPECT_EQ(hit, 1);
}

TEST(CudaEmulation, SharedMemoryIsTheBlocksAndBarriersOrderIt) {
  std::vector<int> seen(2 * kThreads, -1);
  emulate::Launch(2, kThreads, 0, [&] {
    LL_SHARED(int, values, kThreads);
    values[threadIdx.x] = static_cast<int>(threadIdx.x + 100 * blockIdx.x);
    __syncthreads();
    seen[blockIdx.x * kThreads + threadIdx.x] = values[kThreads - 1 - threadIdx.x];
  });
  for (int b = 0; b < 2; ++b)
    for (int t = 0; t < kThreads; ++t)
      EXPECT_EQ(seen[b * kThreads + t], kThreads - 1 - t + 100 * b);
}

TEST(CudaEmulation, ShufflesAndVotesAreTheWarps) {
  std::vector<float> sums(kThreads);
  std::vector<unsigned> votes(kThreads);
  emulate::Launch(1, kThreads, 0, [&] {
    sums[threadIdx.x] = cuda::WarpSum(static_cast<float>(threadIdx.x));
    votes[threadIdx.x] = __ballot_sync(cuda::kAllLanes, threadIdx.x % 32 < 3);
    EXPECT_EQ(__shfl_sync(cuda::kAllLanes, static_cast<int>(threadIdx.x), 5) % 32, 5);
  });
  EXPECT_EQ(sums[0], 31 * 16.0f);
  EXPECT_EQ(sums[63], 31 * 16.0f + 32 * 32);
  EXPECT_EQ(votes[40], 7u);
}

TEST(CudaEmulation, SharedMemoryStartsPoisoned) {
  emulate::Launch(1, kThreads, 64, [&] {
    LL_SHARED(float, values, 4);
    LL_DYNAMIC_SHARED(float, dynamic);
    EXPECT_TRUE(std::isnan(values[3]));
    EXPECT_TRUE(std::isnan(dynamic[15]));
  });
}

// A sum of neighbours without a barrier between write and read.
std::vector<float> Race(emulate::Order order) {
  std::vector<float> out(kThreads);
  emulate::SetOrder(order);
  emulate::Launch(1, kThreads, 0, [&] {
    LL_SHARED(float, values, kThreads);
    values[threadIdx.x] = 1;
    out[threadIdx.x] = values[(threadIdx.x + 1) % kThreads];
  });
  emulate::SetOrder(emulate::Order::kForward);
  return out;
}

TEST(CudaEmulation, AMissingBarrierShowsInAnotherOrder) {
  const std::vector<float> forward = Race(emulate::Order::kForward);
  const std::vector<float> reverse = Race(emulate::Order::kReverse);
  EXPECT_TRUE(std::isnan(forward[0]));
  EXPECT_EQ(reverse[0], 1);
}

using CudaEmulationDeathTest = ::testing::Test;

TEST(CudaEmulationDeathTest, BarrierNotReachedByAll) {
  EXPECT_DEATH(emulate::Launch(1, kThreads, 0,
                               [&] {
                                 if (threadIdx.x == 3) return;
                                 __syncthreads();
                               }),
               "a thread has ended while others wait");
}

TEST(CudaEmulationDeathTest, DifferentBarriers) {
  EXPECT_DEATH(emulate::Launch(1, kThreads, 0,
                               [&] {
                                 if (threadIdx.x < 32) {
                                   __syncthreads();
                                 } else {
                                   __syncthreads();
                                 }
                               }),
               "different barriers");
}

TEST(CudaEmulationDeathTest, LanesMissing) {
  EXPECT_DEATH(emulate::Launch(1, kThreads, 0,
                               [&] {
                                 if (threadIdx.x < 8) return;
                                 cuda::WarpSum(1.0f);
                               }),
               "lanes are not all there");
}

TEST(CudaEmulationDeathTest, NotWholeWarps) {
  EXPECT_DEATH(emulate::Launch(1, 33, 0, [] {}), "a block of 33");
}

}  // namespace
}  // namespace ll
