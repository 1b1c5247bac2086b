#include "model/data/cli/sample_encoder.h"

#include <filesystem>
#include <utility>

#include "base/file.h"
#include "base/status_macros.h"
#include "model/chat/sft_encoder.h"

namespace ll {

namespace {

SftOptions OptionsOf(const DataFlags& flags) {
  SftOptions options;
  options.prompt_template = flags.prompt_template;
  options.max_seq_length = flags.max_seq_length;
  options.truncation = flags.truncation;
  return options;
}

std::string FolderOf(const DataFlags& flags) {
  return IsDirectory(flags.tokenizer)
             ? flags.tokenizer
             : std::filesystem::path(flags.tokenizer).parent_path().string();
}

}  // namespace

absl::StatusOr<SampleEncoder> MakeSampleEncoder(const DataFlags& flags,
                                                std::shared_ptr<const Tokenizer> tokenizer) {
  if (flags.prompt_template.empty()) return SampleEncoder();
  LL_ASSIGN_OR_RETURN(std::shared_ptr<const SftEncoder> encoder,
                      SftEncoder::Create(OptionsOf(flags), std::move(tokenizer), FolderOf(flags)));
  return SampleEncoder([encoder](const Record& record) -> absl::StatusOr<EncodedSample> {
    LL_ASSIGN_OR_RETURN(SftSample sample, encoder->Encode(record));
    return EncodedSample{std::move(sample.ids), std::move(sample.loss_spans),
                         sample.truncated_targets};
  });
}

absl::StatusOr<std::string> SampleSettings(const DataFlags& flags, const Tokenizer& tokenizer) {
  if (flags.prompt_template.empty()) return std::string();
  return SftIdentity(OptionsOf(flags), tokenizer, FolderOf(flags));
}

}  // namespace ll
