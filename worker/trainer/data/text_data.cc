#include "worker/trainer/data/text_data.h"

#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/file_name.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "model/chat/sft_encoder.h"
#include "model/data/pack.h"
#include "model/text/tokenizer.h"
#include "worker/trainer/data/fingerprint.h"

namespace ll {
namespace {

constexpr absl::Duration kStalled = absl::Minutes(10);
constexpr absl::Duration kTellEvery = absl::Seconds(5);
constexpr size_t kToldWarnings = 20;  // one each for a hundred thousand bad records helps nobody

std::string TokenizerFolder(const JobSpec& spec) {
  return spec.tokenizer.value_or(spec.model.value_or(""));
}

SftOptions SftOptionsOf(const JobSpec& spec) {
  SftOptions options;
  options.prompt_template = *spec.prompt_template;
  options.max_seq_length = *spec.max_seq_length;
  options.truncation = *spec.truncation;
  return options;
}

// What the token file depends on besides the text.
absl::StatusOr<std::string> Settings(const JobSpec& spec, const Tokenizer& tokenizer) {
  const std::string bad = absl::StrCat(" on_bad_sample ", *spec.on_bad_sample);
  if (!*spec.sft) return absl::StrCat("tokenizer ", tokenizer.hash(), " text", bad);
  LL_ASSIGN_OR_RETURN(const std::string encoder,
                      SftIdentity(SftOptionsOf(spec), tokenizer, TokenizerFolder(spec)));
  return absl::StrCat(encoder, bad);
}

absl::StatusOr<std::string> NameOf(const JobSpec& spec, const std::string& settings) {
  LL_ASSIGN_OR_RETURN(const std::vector<InputFile> files, FindInputFiles({*spec.data}));
  std::string all = settings;
  for (const InputFile& file : files) {
    LL_ASSIGN_OR_RETURN(const std::string content, FileFingerprint(file.path));
    absl::StrAppend(&all, "\n", static_cast<int>(file.format), " ", content);
  }
  return absl::StrCat("train-", Sha256Hex(all).substr(0, 16), ".bin");
}

bool Ready(const std::string& path) { return FileExists(path) && FileExists(path + ".json"); }

absl::Status WaitFor(const std::string& path) {
  Clock& clock = RealClock();
  int64_t size = -1;
  absl::Duration last_change = clock.Steady();
  while (!Ready(path)) {
    const auto now = FileSize(path + ".partial");
    if (now.ok() && *now != size) {
      size = *now;
      last_change = clock.Steady();
    }
    if (clock.Steady() - last_change > kStalled) {
      return FieldStatus(absl::StatusCode::kDeadlineExceeded, path,
                         "rank 0 has not packed the data: nothing was written for ten minutes",
                         "look at rank 0's log; all ranks must see one output folder");
    }
    clock.Sleep(absl::Milliseconds(100));
  }
  return absl::OkStatus();
}

absl::StatusOr<SampleEncoder> MakeSampleEncoder(const JobSpec& spec,
                                                std::shared_ptr<const Tokenizer> tokenizer) {
  LL_ASSIGN_OR_RETURN(
      std::shared_ptr<const SftEncoder> encoder,
      SftEncoder::Create(SftOptionsOf(spec), std::move(tokenizer), TokenizerFolder(spec)));
  return SampleEncoder([encoder](const Record& record) -> absl::StatusOr<EncodedSample> {
    LL_ASSIGN_OR_RETURN(SftSample sample, encoder->Encode(record));
    return EncodedSample{std::move(sample.ids), std::move(sample.loss_spans),
                         sample.truncated_targets};
  });
}

void Tell(const PackResult& result, std::vector<std::string>* warnings) {
  const auto tell = [&](int64_t count, absl::string_view what) {
    if (count > 0) warnings->push_back(absl::StrCat("data: ", count, " ", what));
  };
  tell(result.skipped, "records could not be used and were skipped (on_bad_sample: skip)");
  tell(result.dropped, "samples are longer than max_seq_length and were left out");
  tell(result.truncated_targets, "tokens of answers were cut off at max_seq_length");
}

}  // namespace

bool IsTextData(const std::string& data) {
  return IsTextFileName(data) || IsDirectory(data) ||
         (!FileExists(data) && data.find_first_of("*?[") != data.npos);
}

absl::StatusOr<std::string> PackTextData(const JobSpec& spec, const PackPlace& place,
                                         std::vector<std::string>* warnings) {
  LL_ASSIGN_OR_RETURN(std::shared_ptr<const Tokenizer> tokenizer,
                      OpenTokenizer(TokenizerFolder(spec)));
  PackOptions options;
  options.inputs = {*spec.data};
  options.skip_bad_records = *spec.on_bad_sample == "skip";
  LL_ASSIGN_OR_RETURN(options.sample_settings, Settings(spec, *tokenizer));
  auto name = NameOf(spec, options.sample_settings);
  if (!name.ok()) return Annotate(name.status(), "data");
  if (*spec.sft) {
    LL_ASSIGN_OR_RETURN(options.encode_sample, MakeSampleEncoder(spec, tokenizer));
  }
  options.output = absl::StrCat(place.out, "/data/", *name);
  if (Ready(options.output)) return options.output;
  if (place.rank != 0) {
    LL_RETURN_IF_ERROR(WaitFor(options.output));
    return options.output;
  }
  LL_RETURN_IF_ERROR(MakeDirs(place.out + "/data"));
  options.warn = [warnings](const std::string& text) {
    if (warnings->size() < kToldWarnings) warnings->push_back(text);
  };
  if (place.progress) {
    options.progress = [&place, told = RealClock().Steady()](const PackProgress& p) mutable {
      if (RealClock().Steady() - told < kTellEvery) return;
      told = RealClock().Steady();
      place.progress(p.bytes_done, p.bytes_total);
    };
  }
  auto result = PackText(options, *tokenizer);
  if (!result.ok()) return Annotate(result.status(), "data");
  Tell(*result, warnings);
  return options.output;
}

}  // namespace ll
