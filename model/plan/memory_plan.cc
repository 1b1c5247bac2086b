#include "model/plan/memory_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/format.h"
#include "model/plan/memory_parts.h"

namespace ll {
namespace {

// What the process holds before a model is there: libraries and, on a GPU, its context and
// communication buffers. The CPU's were measured (plan_matrix.py), the GPU's is an estimate. On a
// CPU: libraries, Gloo where there are several ranks, and the code that oneDNN makes for the shapes
// of the MLP's adapters.
constexpr int64_t kRuntimeBytesCpu = 168'000'000, kGlooBytes = 2'000'000, kMlpCodeBytes = 7'000'000;
// Any data has a row of another length, its last; oneDNN makes its bf16 code anew for it (fp32's is
// made for all lengths): where every weight trains, for the adapters, for those of the MLP.
constexpr int64_t kOtherLengthBytes = 3'000'000, kOtherLengthLoraBytes = 15'000'000,
                  kOtherLengthMlpBytes = 4'500'000;
constexpr int64_t kRuntimeBytesGpu = 2'500'000'000;
// What the C library's allocator holds beyond the buffers of a pass, measured likewise.
constexpr double kAllocatorShare = 0.012;
// Share of a device left alone for fragmentation and for what other processes take.
constexpr double kReserve = 0.04;
// Bytes of logits in flight where nothing trains.
constexpr int64_t kHeadBytesUntrained = 384 << 20;

// Of a CPU's process, beside the buffers of the model: while the weights are read, their files.
int64_t CpuRuntimeBytes(const LlamaConfig& c, const JobSpec& s, const MemoryForecast& m,
                        int64_t moments) {
  const int64_t pass = m.activations + m.workspace + m.head;
  int64_t bytes = kRuntimeBytesCpu + (Ranks(s) > 1 ? kGlooBytes : 0) +
                  static_cast<int64_t>(kAllocatorShare * static_cast<double>(pass));
  const bool adapts_mlp = Projections(c, s)[2].adapted > 0;
  if (adapts_mlp) bytes += kMlpCodeBytes;
  if (ElementBytes(s, /*gpu=*/false) == 2) {
    bytes += kOtherLengthBytes + (LoraParameterCount(c, s) > 0 ? kOtherLengthLoraBytes : 0) +
             (adapts_mlp ? kOtherLengthMlpBytes : 0);
  }
  const int64_t later = moments + pass + m.communication + m.snapshot;
  return bytes + std::max<int64_t>(0, MappedFileBytes(c, s) - later);
}

}  // namespace

std::vector<MemoryPart> MemoryParts(const MemoryForecast& m) {
  std::vector<MemoryPart> parts = {{"weights", m.weights},
                                   {"optimizer", m.trainables},
                                   {"activations", m.activations},
                                   {"one layer", m.workspace},
                                   {"logits", m.head},
                                   {"communication", m.communication},
                                   {"checkpoint copy", m.snapshot},
                                   {"runtime", m.runtime},
                                   {"measured excess", m.correction}};
  std::stable_sort(parts.begin(), parts.end(),
                   [](const MemoryPart& a, const MemoryPart& b) { return a.bytes > b.bytes; });
  return parts;
}

MemoryForecast ForecastMemory(const LlamaConfig& c, const JobSpec& s, bool gpu,
                              const std::string& recompute) {
  const int64_t element = ElementBytes(s, gpu), tokens = ShardTokens(c, s);
  MemoryForecast m;
  m.recompute = recompute;
  m.weights = WeightBytes(c, s, element);
  m.runtime = gpu ? kRuntimeBytesGpu : kRuntimeBytesCpu;
  if (!Trains(s)) {  // one layer's forward at a time, nothing kept
    m.workspace =
        (tokens * SavedElements(c, "selective") + TileTokens(c, s) * 2 * c.intermediate_size) *
        element;
    m.head = std::min(tokens * c.vocab_size * element, kHeadBytesUntrained);
    return m;
  }
  const int64_t moments = OptimizerBytes(c, s);
  m.trainables = GradientBytes(c, s) + MasterBytes(c, s, element) + moments;
  m.activations = ActivationBytes(c, s, element, gpu, recompute);
  m.workspace = WorkspaceBytes(c, s, element, gpu, recompute);
  m.head = HeadBytes(c, s, element, gpu);
  m.communication = CommunicationBytes(c, s, element, recompute);
  m.snapshot = SnapshotBytes(c, s, gpu);
  if (!gpu) m.runtime = CpuRuntimeBytes(c, s, m, moments);
  return m;
}

int64_t UsableBytes(const Device& device) {
  return static_cast<int64_t>(static_cast<double>(device.memory_bytes) * (1 - kReserve));
}

int64_t SlotBytesFor(int64_t bytes) {
  return static_cast<int64_t>(static_cast<double>(bytes) / (1 - kReserve)) + 1;
}

FitResult Fits(const LlamaConfig& c, const JobSpec& s, const Device& device) {
  FitResult out;
  out.available_bytes = UsableBytes(device);
  std::vector<std::string> choices = {"none", "selective", "full"};
  if (s.recompute.value_or("auto") != "auto") choices = {*s.recompute};
  MemoryForecast m;
  for (const std::string& recompute : choices) {
    m = ForecastMemory(c, s, device.IsGpu(), recompute);
    out.fits = m.total() <= out.available_bytes;
    if (out.fits) break;
  }
  out.needed_bytes = m.total();
  out.recompute = m.recompute;
  out.explanation = absl::StrCat(
      "a rank needs ", HumanBytes(out.needed_bytes), " (weights ", HumanBytes(m.weights),
      ", optimizer ", HumanBytes(m.trainables), ", activations ",
      HumanBytes(m.activations + m.workspace + m.head + m.communication), ", runtime ",
      HumanBytes(m.runtime + m.snapshot), ") with recompute ", m.recompute, "; one slot (",
      device.kind, ") offers ", HumanBytes(out.available_bytes));
  return out;
}

}  // namespace ll
