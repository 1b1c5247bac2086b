#include "worker/trainer/comm/conformance.h"

#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "worker/trainer/comm/sharded_sums.h"

namespace ll {
namespace {

absl::Status Expect(bool holds, const std::string& what) {
  return holds ? absl::OkStatus() : absl::InternalError(what);
}

// A rank's own values, the same on every device.
at::Tensor Values(int64_t elements, int rank, at::Device device) {
  return at::arange(elements, at::kFloat).mul(0.37f + static_cast<float>(rank)).sin().to(device);
}

// The sum in the order of the ranks.
at::Tensor SumOfValues(int64_t elements, int ranks, at::Device device, at::ScalarType type) {
  at::Tensor sum = Values(elements, 0, device).to(type);
  for (int rank = 1; rank < ranks; ++rank) sum += Values(elements, rank, device).to(type);
  return sum;
}

// Equal bit for bit on every rank and from call to call; small values on the CPU too, as losses
// are.
absl::Status AllReduce(Comm& comm, at::Device device) {
  constexpr int64_t kElements = 10001;
  const double ranks = comm.world_size();
  at::Tensor first;
  for (int call = 0; call < 3; ++call) {
    const at::Tensor sum = Values(kElements, comm.rank(), device);
    const at::Tensor small = at::full({2}, 1.0 + comm.rank(), at::kDouble);
    LL_RETURN_IF_ERROR(comm.AllReduceSum({sum, small}));
    const at::Tensor exact = SumOfValues(kElements, comm.world_size(), device, at::kDouble);
    LL_RETURN_IF_ERROR(
        Expect((exact - sum).abs().max().item<double>() < 1e-6 * ranks, "the sum is wrong"));
    LL_RETURN_IF_ERROR(Expect(small.eq(ranks * (ranks + 1) / 2).all().item<bool>(),
                              "the sum of values on the CPU is wrong"));
    if (call == 0) first = sum;
    LL_RETURN_IF_ERROR(Expect(at::equal(sum, first), "another call has other bits"));
  }
  at::Tensor rank_zeros = first.clone();
  LL_RETURN_IF_ERROR(comm.Broadcast(rank_zeros));
  return Expect(at::equal(first, rank_zeros), "rank 0 has other bits");
}

absl::Status Broadcast(Comm& comm, at::Device device) {
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16, at::kLong}) {
    at::Tensor values = at::full({4}, comm.rank() + 5, at::device(device).dtype(type));
    LL_RETURN_IF_ERROR(comm.Broadcast(values));
    LL_RETURN_IF_ERROR(Expect(values.eq(5).all().item<bool>(),
                              absl::StrCat("not rank 0's: ", c10::toString(type))));
  }
  return absl::OkStatus();
}

// [0, 1000) in parts of sizes of their own; of three ranks or more the second has none.
RankParts UnevenParts(int ranks) {
  if (ranks == 1) return {{0, 1000}};
  RankParts parts = {{0, 700}};
  if (ranks > 2) parts.push_back({700, 700});
  const int64_t left = ranks - static_cast<int64_t>(parts.size());
  for (int64_t i = 0; i < left; ++i)
    parts.push_back({700 + 300 * i / left, 700 + 300 * (i + 1) / left});
  return parts;
}

absl::Status ReduceScatterAndAllGather(Comm& comm, at::Device device) {
  const RankParts parts = UnevenParts(comm.world_size());
  const auto [begin, end] = parts[static_cast<size_t>(comm.rank())];
  const at::Tensor expected = SumOfValues(1000, comm.world_size(), device, at::kFloat);
  const at::Tensor mine = Values(1000, comm.rank(), device);
  const int64_t sent_before = comm.counters().bytes_sent;
  ReduceScatter reduce;
  LL_RETURN_IF_ERROR(reduce.Start(comm, mine, parts));
  LL_ASSIGN_OR_RETURN(const at::Tensor sum, reduce.Finish());
  at::Tensor all = at::zeros({1000}, mine.options());
  if (end > begin) {
    LL_RETURN_IF_ERROR(Expect(at::equal(sum, expected.narrow(0, begin, end - begin)),
                              "this rank's part of the sum is wrong"));
    all.narrow(0, begin, end - begin).copy_(sum);
  }
  LL_RETURN_IF_ERROR(
      Expect(at::equal(mine, Values(1000, comm.rank(), device)), "the values were written to"));
  LL_RETURN_IF_ERROR(Expect(comm.counters().bytes_sent - sent_before == 4 * (1000 - (end - begin)),
                            "the bytes are counted wrong"));
  AllGather gather;
  LL_RETURN_IF_ERROR(gather.Start(comm, all, parts));
  LL_RETURN_IF_ERROR(gather.Finish());
  return Expect(at::equal(all, expected), "the gathered values are wrong");
}

// Every rank to every other, two tensors of sizes of their own at once, in bf16, while it computes.
absl::Status Exchange(Comm& comm, at::Device device) {
  const auto value = [&](int from, int to, int part, int round) {
    return at::full({1000 + 10 * from + to + part}, from * 100 + to * 10 + part + round,
                    at::device(device).dtype(at::kBFloat16));
  };
  for (int round = 0; round < 3; ++round) {
    std::vector<PeerMessage> sends, receives;
    for (int part = 0; part < 2; ++part) {
      for (int peer = 0; peer < comm.world_size(); ++peer) {
        if (peer == comm.rank()) continue;
        sends.push_back({peer, value(comm.rank(), peer, part, round)});
        receives.push_back({peer, at::zeros_like(value(peer, comm.rank(), part, round))});
      }
    }
    const std::vector<PeerMessage> received = receives;
    LL_RETURN_IF_ERROR(comm.StartExchange(std::move(sends), std::move(receives)));
    const at::Tensor ones = at::ones({256, 256}, at::Device(device));
    const at::Tensor product = ones.mm(ones);
    LL_RETURN_IF_ERROR(comm.FinishExchange());
    LL_RETURN_IF_ERROR(Expect(product.eq(256).all().item<bool>(), "the product beside it"));
    for (size_t i = 0; i < received.size(); ++i) {
      const int part = static_cast<int>(i) / (comm.world_size() - 1);
      const at::Tensor expected = value(received[i].peer, comm.rank(), part, round);
      LL_RETURN_IF_ERROR(Expect(at::equal(received[i].tensor, expected),
                                absl::StrCat("a message of rank ", received[i].peer)));
    }
  }
  return absl::OkStatus();
}

// Groups that share rows, used in turn with the group of all.
absl::Status Groups(Comm& world, at::Device device) {
  const int size = world.world_size() % 2 == 0 ? 2 : 1;
  const RankLayout layout = LayoutOf(world.rank(), world.world_size(), size);
  const std::vector<int> ranks = ContextRanks(layout);
  LL_ASSIGN_OR_RETURN(const auto context,
                      world.Split(absl::StrCat("context ", layout.data), ranks));
  LL_RETURN_IF_ERROR(Expect(context->rank() == layout.context && context->world_size() == size,
                            "another place in the group"));
  const auto one = [&](double value) {
    return at::full({1}, value, at::device(device).dtype(at::kDouble));
  };
  for (int round = 0; round < 3; ++round) {
    const at::Tensor sum = one(1.0 + world.rank()), all = one(1.0);
    LL_RETURN_IF_ERROR(context->AllReduceSum({sum}));
    LL_RETURN_IF_ERROR(world.AllReduceSum({all}));
    const double expected = std::accumulate(ranks.begin(), ranks.end(), static_cast<double>(size));
    LL_RETURN_IF_ERROR(Expect(sum.item<double>() == expected, "the group's sum is wrong"));
    LL_RETURN_IF_ERROR(Expect(all.item<double>() == world.world_size(), "the sum of all is wrong"));
    std::vector<PeerMessage> sends, receives;
    const at::Tensor got = one(0);
    if (size == 2 && layout.context == 0) sends.push_back({1, sum});
    if (size == 2 && layout.context == 1) receives.push_back({0, got});
    LL_RETURN_IF_ERROR(context->StartExchange(std::move(sends), std::move(receives)));
    LL_RETURN_IF_ERROR(context->FinishExchange());
    LL_RETURN_IF_ERROR(Expect(got.item<double>() == (layout.context == 1 ? expected : 0),
                              "a message within the group"));
  }
  return absl::OkStatus();
}

// The last rank comes late to an exchange with rank 0, which has waited for it: who holds others up
// is told by what they do not wait.
absl::Status WaitsAreCounted(Comm& comm, at::Device device) {
  constexpr absl::Duration kLate = absl::Milliseconds(300);
  const int last = comm.world_size() - 1;
  if (last == 0 || (comm.rank() != 0 && comm.rank() != last)) return absl::OkStatus();
  const int peer = last - comm.rank();
  const at::Tensor received = at::zeros({64}, at::device(device).dtype(at::kFloat));
  for (int round = 0; round < 2; ++round) {  // the first is to begin the second at the same time
    const double before = comm.counters().wait_seconds;
    if (round == 1 && comm.rank() == last) absl::SleepFor(kLate);
    LL_RETURN_IF_ERROR(comm.StartExchange({{peer, at::ones_like(received)}}, {{peer, received}}));
    LL_RETURN_IF_ERROR(comm.FinishExchange());
    LL_RETURN_IF_ERROR(Expect(received.eq(1).all().item<bool>(), "the values are wrong"));
    const double waited = comm.counters().wait_seconds - before;
    if (round == 1 && comm.rank() == 0) {
      LL_RETURN_IF_ERROR(Expect(waited > absl::ToDoubleSeconds(kLate) / 2,
                                absl::StrCat("waited for a late rank, counted ", waited, " s")));
    }
  }
  return absl::OkStatus();
}

}  // namespace

const std::vector<ConformanceCase>& ConformanceCases() {
  static const std::vector<ConformanceCase> cases = {
      {"all-reduce", AllReduce},
      {"broadcast", Broadcast},
      {"reduce-scatter and all-gather", ReduceScatterAndAllGather},
      {"exchange", Exchange},
      {"groups", Groups},
      {"waits are counted", WaitsAreCounted},
  };
  return cases;
}

}  // namespace ll
