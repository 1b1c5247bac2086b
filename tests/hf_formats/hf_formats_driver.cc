// hf_formats_driver extend FOLDER CONTEXT linear|ntk|yarn   prints the extended config.json
// hf_formats_driver copy IN.safetensors OUT.safetensors      reads every tensor and writes it again
// hf_formats_driver spiece FILE.model                        loads LibTorch and SentencePiece in
// one process
#include <iostream>
#include <string>

#include <ATen/ATen.h>

#include "base/status_macros.h"
#include "model/plan/config.h"
#include "model/text/tokenizer.h"
#include "model/weights/tensor_io.h"

namespace ll {
namespace {

absl::Status Extend(const std::string& folder, int64_t context, const std::string& type) {
  LL_ASSIGN_OR_RETURN(LlamaConfig config, ReadLlamaConfig(folder));
  LL_ASSIGN_OR_RETURN(LlamaConfig extended, ExtendContext(config, context, RopeTypeFromName(type)));
  std::cout << LlamaConfigToJson(extended).dump(2) << "\n";
  return absl::OkStatus();
}

absl::Status Copy(const std::string& from, const std::string& to) {
  LL_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(from));
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const TensorInfo& info : file->tensors()) {
    LL_ASSIGN_OR_RETURN(at::Tensor tensor, TensorView(file, info));
    tensors.emplace_back(info.name, tensor);
  }
  return WriteSafetensors(to, tensors, file->metadata());
}

absl::Status SentencePiece(const std::string& path) {
  LL_ASSIGN_OR_RETURN(auto tokenizer, OpenTokenizer(path));
  LL_ASSIGN_OR_RETURN(std::vector<int32_t> ids, tokenizer->Encode("in the beginning"));
  std::cout << at::tensor(std::vector<int64_t>(ids.begin(), ids.end())).sum().item<int64_t>()
            << "\n";
  return absl::OkStatus();
}

}  // namespace
}  // namespace ll

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  absl::Status status = absl::InvalidArgumentError("usage: see the file's head");
  if (what == "extend" && argc == 5) status = ll::Extend(argv[2], std::stoll(argv[3]), argv[4]);
  if (what == "copy" && argc == 4) status = ll::Copy(argv[2], argv[3]);
  if (what == "spiece" && argc == 3) status = ll::SentencePiece(argv[2]);
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
