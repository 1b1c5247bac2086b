#include "model/data/cli/sample_encoder.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/chat/sft_encoder.h"

namespace ll {

absl::StatusOr<SampleEncoder> MakeSampleEncoder(const DataFlags& flags,
                                                std::shared_ptr<const Tokenizer> tokenizer) {
  if (flags.prompt_template.empty()) return SampleEncoder();
  SftOptions options;
  options.prompt_template = flags.prompt_template;
  options.max_seq_length = flags.max_seq_length;
  options.truncation = flags.truncation;
  const std::string folder = IsDirectory(flags.tokenizer)
                                 ? flags.tokenizer
                                 : std::filesystem::path(flags.tokenizer).parent_path().string();
  LL_ASSIGN_OR_RETURN(std::shared_ptr<const SftEncoder> encoder,
                      SftEncoder::Create(options, std::move(tokenizer), folder));
  return SampleEncoder([encoder](const Record& record) -> absl::StatusOr<EncodedSample> {
    LL_ASSIGN_OR_RETURN(SftSample sample, encoder->Encode(record));
    return EncodedSample{std::move(sample.ids), std::move(sample.loss_spans),
                         sample.truncated_targets};
  });
}

std::string SampleSettings(const DataFlags& flags) {
  return absl::StrCat(flags.prompt_template, " ", flags.max_seq_length, " ", flags.truncation);
}

}  // namespace ll
