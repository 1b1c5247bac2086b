#include <cstdio>
#include <memory>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/format.h"
#include "base/status_macros.h"
#include "kernels/nf4/nf4.h"
#include "model/weights/hf_folder.h"
#include "model/weights/nf4_io.h"
#include "model/weights/tensor_io.h"
#include "worker/trainer/cli/commands.h"
#include "worker/trainer/rank.h"
#include "worker/trainer/setup.h"

namespace ll {
namespace {

struct QuantizeFlags {
  std::string model, out;
  int threads = 0;
};

// The layers' matrices; embedding and head stay as they are, as in QLoRA.
bool IsQuantized(const WeightShape& weight) {
  return absl::StartsWith(weight.name, "model.layers.") && weight.shape.size() == 2;
}

// The weights in the order of the new file: quantised one at a time, so that no more than one is in
// memory.
class Quantizer {
 public:
  Quantizer(HfFolder& source, const LlamaConfig& config) : source_(source), config_(config) {}

  absl::Status Write(const std::string& path) {
    std::vector<TensorInfo> infos;
    for (const WeightShape& weight : WeightShapes(config_)) {
      LL_RETURN_IF_ERROR(AppendInfos(weight, infos));
    }
    LL_ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::Create(path, infos));
    for (const WeightShape& weight : WeightShapes(config_)) {
      LL_RETURN_IF_ERROR(AppendBytes(weight, writer));
    }
    return writer.Finish();
  }

  int64_t quantized_elements() const { return quantized_elements_; }
  int64_t quantized_bytes() const { return quantized_bytes_; }

 private:
  absl::Status AppendInfos(const WeightShape& weight, std::vector<TensorInfo>& infos) {
    if (!IsQuantized(weight)) {
      infos.push_back({.name = weight.name, .dtype = SourceDtype(), .shape = weight.shape});
      return absl::OkStatus();
    }
    const int64_t elements = weight.shape[0] * weight.shape[1];
    if (elements % kNf4Block != 0) {
      return MakeFieldError({weight.name,
                             absl::StrCat("a multiple of ", kNf4Block, " elements, as NF4 needs"),
                             absl::StrCat(elements)});
    }
    for (TensorInfo& info : Nf4TensorInfos(weight.name, weight.shape))
      infos.push_back(std::move(info));
    return absl::OkStatus();
  }

  absl::Status AppendBytes(const WeightShape& weight, SafetensorsWriter& writer) {
    LL_ASSIGN_OR_RETURN(const at::Tensor values, source_.Get(weight.name));
    if (!IsQuantized(weight)) return Append(values.to(TorchDtype()), writer);
    // fp16 has no kernel of its own; fp32 holds its values exactly.
    at::Tensor given = values.to(TorchDtype());
    if (given.scalar_type() == at::kHalf) given = given.to(at::kFloat);
    const Nf4Tensor q = QuantizeNf4(given.contiguous());
    quantized_elements_ += given.numel();
    quantized_bytes_ += static_cast<int64_t>(q.codes.nbytes() + q.absmax.nbytes() +
                                             q.nested_absmax.nbytes() + sizeof q.offset);
    for (const auto& [name, tensor] : Nf4Tensors(weight.name, q, config_.dtype)) {
      LL_RETURN_IF_ERROR(Append(tensor, writer));
    }
    return absl::OkStatus();
  }

  static absl::Status Append(const at::Tensor& tensor, SafetensorsWriter& writer) {
    const at::Tensor bytes = tensor.contiguous();
    return writer.Append(bytes.const_data_ptr(), static_cast<int64_t>(bytes.nbytes()));
  }

  Dtype SourceDtype() const {
    return config_.dtype == "float32"   ? Dtype::kF32
           : config_.dtype == "float16" ? Dtype::kF16
                                        : Dtype::kBF16;
  }
  at::ScalarType TorchDtype() const {
    return config_.dtype == "float32"   ? at::kFloat
           : config_.dtype == "float16" ? at::kHalf
                                        : at::kBFloat16;
  }

  HfFolder& source_;
  const LlamaConfig& config_;
  int64_t quantized_elements_ = 0, quantized_bytes_ = 0;
};

absl::Status Quantize(const QuantizeFlags& flags) {
  LL_ASSIGN_OR_RETURN(const LlamaConfig config, ReadModelConfig(flags.model));
  if (config.quantized) {
    return MakeFieldError({"--model", "a model in 16 or 32 bits",
                           absl::StrCat(flags.model, ", which is in NF4 already")});
  }
  if (FileExists(flags.out) || IsDirectory(flags.out)) {
    return MakeFieldError({"--out", "a folder that does not exist", flags.out},
                          absl::StatusCode::kAlreadyExists);
  }
  LL_ASSIGN_OR_RETURN(const auto source, HfFolder::Open(flags.model, config));
  // Under another name until it is whole.
  const std::string temporary = flags.out + ".writing";
  LL_RETURN_IF_ERROR(RemoveTree(temporary));
  LL_RETURN_IF_ERROR(MakeDirs(temporary));
  auto remove = absl::MakeCleanup([&] { RemoveTree(temporary).IgnoreError(); });
  Quantizer quantizer(*source, config);
  LL_RETURN_IF_ERROR(quantizer.Write(temporary + "/model.safetensors"));
  nlohmann::json json = config.raw;
  json["quantization_config"] = Nf4QuantizationConfig(config.dtype);
  LL_RETURN_IF_ERROR(WriteFileAtomic(temporary + "/config.json", json.dump(2) + "\n"));
  for (const std::string& path : TokenizerFiles(flags.model)) {
    LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
    LL_RETURN_IF_ERROR(WriteFileAtomic(temporary + path.substr(path.rfind('/')), text));
  }
  LL_RETURN_IF_ERROR(RenameDurably(temporary, flags.out));
  std::move(remove).Cancel();
  std::printf("%s: %s linear weights in %.3f bits each\n", flags.out.c_str(),
              HumanCount(quantizer.quantized_elements()).c_str(),
              8.0 * static_cast<double>(quantizer.quantized_bytes()) /
                  static_cast<double>(quantizer.quantized_elements()));
  return absl::OkStatus();
}

}  // namespace

void AddQuantize(CLI::App& program, Command& run) {
  auto flags = std::make_shared<QuantizeFlags>();
  CLI::App* command = program.add_subcommand(
      "quantize", "Writes a model folder with its linear weights in NF4, as bitsandbytes does");
  command->add_option("--model", flags->model, "Hugging Face folder")->required()->type_name("DIR");
  command->add_option("--out", flags->out, "Folder to write; must not exist")
      ->required()
      ->type_name("DIR");
  command->add_option("--threads", flags->threads, "CPU threads");
  command->callback([flags, &run] {
    run = [flags] {
      SetThreads(flags->threads, 1);
      const absl::Status status = Quantize(*flags);
      return status.ok() ? 0 : ReportToStderr(status);
    };
  });
}

}  // namespace ll
