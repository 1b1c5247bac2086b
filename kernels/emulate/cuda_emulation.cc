#include "kernels/emulate/cuda_emulation.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include <ucontext.h>

namespace ll::emulate {
namespace {

constexpr size_t kStackBytes = 128 << 10;
constexpr unsigned kWarp = 32, kMaxThreads = 1024;

enum class State { kRuns, kAtBlockBarrier, kAtWarpBarrier, kEnded };

struct Fibre {
  ucontext_t context;
  State state = State::kRuns;
  dim3 index;
  const char* file = "";  // of the barrier it waits at
  int line = 0;
  int exchanges = 0;  // done so far; even and odd ones use different slots
};

struct Warp {
  uint64_t values[2][kWarp];
};

// The block that runs now.
struct Block {
  std::vector<Fibre> fibres;
  std::vector<Warp> warps;
  std::map<const void*, std::vector<unsigned char>> shared;
  std::vector<unsigned char> dynamic_shared;
  const std::function<void()>* body = nullptr;
  ucontext_t scheduler;
  size_t current = 0;
};

Order order = Order::kForward;
std::mt19937_64 generator;
Block* running = nullptr;

[[noreturn]] void Die(const char* what) {
  const Fibre& f = running->fibres[running->current];
  std::fprintf(stderr, "CUDA emulation: %s (block %u,%u thread %u, %s:%d)\n", what, blockIdx.x,
               blockIdx.y, f.index.x, f.file, f.line);
  std::abort();
}

// Memory of a block starts as signalling patterns: NaN as floats, absurd as integers.
std::vector<unsigned char> Poisoned(size_t bytes) {
  return std::vector<unsigned char>(bytes + 16, 0xff);
}
void* Align16(std::vector<unsigned char>& memory) {
  const uintptr_t p = reinterpret_cast<uintptr_t>(memory.data());
  return reinterpret_cast<void*>((p + 15) / 16 * 16);
}

unsigned char* Stack(size_t i) {
  static const auto stacks = std::make_unique<unsigned char[]>(kStackBytes * kMaxThreads);
  return stacks.get() + i * kStackBytes;
}

void Enter() {
  (*running->body)();
  running->fibres[running->current].state = State::kEnded;
  swapcontext(&running->fibres[running->current].context, &running->scheduler);
}

void Wait(State state) {
  Fibre& self = running->fibres[running->current];
  self.state = state;
  swapcontext(&self.context, &running->scheduler);
}

void Resume(size_t i) {
  running->current = i;
  threadIdx = running->fibres[i].index;
  swapcontext(&running->scheduler, &running->fibres[i].context);
}

std::vector<size_t> Sequence(size_t n) {
  std::vector<size_t> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = order == Order::kReverse ? n - 1 - i : i;
  if (order == Order::kShuffled) std::shuffle(out.begin(), out.end(), generator);
  return out;
}

// Lets a warp go on when all its lanes wait for each other.
bool ReleaseWarps(Block& block) {
  bool released = false;
  for (size_t first = 0; first < block.fibres.size(); first += kWarp) {
    const auto begin = block.fibres.begin() + static_cast<ptrdiff_t>(first), end = begin + kWarp;
    const auto waits = [](const Fibre& f) { return f.state == State::kAtWarpBarrier; };
    if (!std::all_of(begin, end, waits)) continue;
    std::for_each(begin, end, [](Fibre& f) { f.state = State::kRuns; });
    released = true;
  }
  return released;
}

// Nothing can run: all wait at one block barrier, or something is wrong with the kernel.
void ReleaseBlock(Block& block) {
  for (size_t i = 0; i < block.fibres.size(); ++i) {
    block.current = i;
    if (block.fibres[i].state == State::kAtWarpBarrier)
      Die("a shuffle or vote whose lanes are not all there");
  }
  for (size_t i = 0; i < block.fibres.size(); ++i) {
    const Fibre& f = block.fibres[i];
    block.current = i;
    if (f.state == State::kEnded) Die("a thread has ended while others wait at a barrier");
    if (f.line != block.fibres[0].line || std::strcmp(f.file, block.fibres[0].file) != 0)
      Die("threads wait at different barriers");
  }
  for (Fibre& f : block.fibres) f.state = State::kRuns;
}

void RunBlock(Block& block) {
  for (size_t i = 0; i < block.fibres.size(); ++i) {
    Fibre& f = block.fibres[i];
    f = Fibre{};
    f.index = dim3(static_cast<unsigned>(i));
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = Stack(i);
    f.context.uc_stack.ss_size = kStackBytes;
    f.context.uc_link = nullptr;
    makecontext(&f.context, Enter, 0);
  }
  for (;;) {
    bool ran = false;
    for (const size_t i : Sequence(block.fibres.size())) {
      if (block.fibres[i].state != State::kRuns) continue;
      Resume(i);
      ran = true;
    }
    if (ReleaseWarps(block) || ran) continue;
    const auto ended = [](const Fibre& f) { return f.state == State::kEnded; };
    if (std::all_of(block.fibres.begin(), block.fibres.end(), ended)) return;
    ReleaseBlock(block);
  }
}

}  // namespace

void SetOrder(Order new_order, uint64_t seed) {
  order = new_order;
  generator.seed(seed);
}

void Launch(dim3 grid, dim3 block_size, size_t dynamic_shared_bytes,
            const std::function<void()>& body) {
  if (block_size.y != 1 || block_size.z != 1 || block_size.x % kWarp != 0 ||
      block_size.x > kMaxThreads || block_size.x == 0) {
    std::fprintf(stderr, "CUDA emulation: a block of %u x %u x %u threads\n", block_size.x,
                 block_size.y, block_size.z);
    std::abort();
  }
  Block block;
  block.fibres.resize(block_size.x);
  block.warps.resize(block_size.x / kWarp);
  block.body = &body;
  running = &block;
  gridDim = grid;
  blockDim = block_size;
  const size_t blocks = size_t{grid.x} * grid.y * grid.z;
  for (const size_t i : Sequence(blocks)) {
    blockIdx = dim3(static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                    static_cast<unsigned>(i / grid.x / grid.y));
    block.shared.clear();
    block.dynamic_shared = Poisoned(dynamic_shared_bytes);
    RunBlock(block);
  }
  running = nullptr;
}

void* SharedMemory(const void* site, size_t bytes) {
  auto [it, added] = running->shared.try_emplace(site);
  if (added) it->second = Poisoned(bytes);
  return Align16(it->second);
}

void* DynamicSharedMemory() { return Align16(running->dynamic_shared); }

void SyncBlock(const char* file, int line) {
  Fibre& self = running->fibres[running->current];
  self.file = file;
  self.line = line;
  Wait(State::kAtBlockBarrier);
}

int Lane() { return static_cast<int>(running->current % kWarp); }

void SyncWarp(unsigned mask) { Exchange(mask, 0); }

const uint64_t* Exchange(unsigned mask, uint64_t value) {
  if (mask != 0xffffffffu) Die("only whole warps are emulated");
  Fibre& self = running->fibres[running->current];
  uint64_t* values = running->warps[running->current / kWarp].values[self.exchanges++ % 2];
  values[Lane()] = value;
  Wait(State::kAtWarpBarrier);
  return values;
}

}  // namespace ll::emulate
