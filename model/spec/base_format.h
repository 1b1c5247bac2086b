// How the linear layers' frozen weights are kept (key `quantization` of a job).
#pragma once

namespace ll {

// kCompute: in the type that is computed in. kNf4: four bits, expanded for each use (QLoRA;
// kernels/nf4). kFp8: e4m3 with a scale a row, multiplied as such where the device can
// (kernels/fp8).
enum class BaseFormat { kCompute, kNf4, kFp8 };

}  // namespace ll
