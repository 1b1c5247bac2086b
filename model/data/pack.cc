#include "model/data/pack.h"

#include <array>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/format.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "model/text/token_file_writer.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

using nlohmann::json;

// Everything that shapes the output. A file counts as unchanged by its size and time: reading it
// all to see whether it must be read again would cost what a resumed run saves.
std::string Fingerprint(const PackOptions& options, const Tokenizer& tokenizer,
                        const std::vector<InputFile>& files) {
  json list = json::array();
  for (const InputFile& file : files) {
    list.push_back({file.path, file.size_bytes, file.modified_ns});
  }
  const json all = {list,
                    tokenizer.hash(),
                    tokenizer.bos_id.value_or(-1),
                    tokenizer.eos_id.value_or(-1),
                    static_cast<int>(options.split),
                    options.add_bos,
                    options.add_eos,
                    options.encode_sample != nullptr,
                    options.sample_settings,
                    options.invalid_utf8 == InvalidUtf8::kReplace,
                    options.skip_bad_records};
  return Sha256Hex(all.dump(-1, ' ', true, json::error_handler_t::replace));
}

// What a commit remembers beside the ids.
struct State {
  ReadPosition position;
  std::optional<Record::Kind> kind;
  PackResult result;
};

std::string StateText(const State& s) {
  const PackResult& r = s.result;
  return json{
      {"position", {s.position.file, s.position.offset, s.position.line}},
      {"inside", s.position.inside},
      {"kind", s.kind ? static_cast<int>(*s.kind) : -1},
      {"totals",
       {r.text_bytes, r.target_tokens, r.truncated_targets, r.skipped, r.dropped, r.replaced}}}
      .dump();
}

absl::StatusOr<State> ParseState(const std::string& text) {
  State s;
  if (text.empty()) return s;
  try {
    LL_ASSIGN_OR_RETURN(const json root,
                        ParseJsonObject(text, {.max_depth = 4, .max_values = 100}));
    const auto position = root.at("position").get<std::array<int64_t, 3>>();
    s.position = {static_cast<size_t>(position[0]), position[1], position[2],
                  root.at("inside").get<bool>()};
    if (const int kind = root.at("kind").get<int>(); kind >= 0) {
      s.kind = static_cast<Record::Kind>(kind);
    }
    const auto totals = root.at("totals").get<std::array<int64_t, 6>>();
    s.result.text_bytes = totals[0];
    s.result.target_tokens = totals[1];
    s.result.truncated_targets = totals[2];
    s.result.skipped = totals[3];
    s.result.dropped = totals[4];
    s.result.replaced = totals[5];
  } catch (const json::exception& e) {
    return absl::DataLossError(absl::StrCat("a damaged journal: ", e.what()));
  }
  return s;
}

absl::Status CheckSpecialTokens(const PackOptions& options, const Tokenizer& tokenizer) {
  if (options.encode_sample) return absl::OkStatus();
  if (options.add_bos && !tokenizer.bos_id)
    return MakeFieldError({"bos", "a tokenizer with a BOS token", "none"});
  if (options.add_eos && !tokenizer.eos_id) {
    return MakeFieldError(
        {"eos", "a tokenizer with an EOS token", "none", "pack without an EOS token"});
  }
  return absl::OkStatus();
}

// One run: takes batches, writes ids, commits now and then.
class Packer {
 public:
  Packer(const PackOptions& options, const std::vector<InputFile>& files, TokenFileWriter writer,
         State state)
      : options_(options), writer_(std::move(writer)), state_(std::move(state)) {
    for (const InputFile& file : files) progress_.bytes_total += file.size_bytes;
    state_.result.resumed_tokens = writer_.size();
  }

  absl::Status Take(const EncodedBatch& batch) {
    for (const EncodedPart& part : batch.parts) LL_RETURN_IF_ERROR(TakePart(batch, part));
    state_.position = batch.after;
    state_.kind = batch.kind;
    state_.result.text_bytes += batch.text_bytes;
    since_commit_ += batch.text_bytes;
    if (since_commit_ >= options_.commit_bytes) {
      LL_RETURN_IF_ERROR(writer_.Commit(StateText(state_)));
      since_commit_ = 0;
    }
    progress_.bytes_done = batch.file_bytes;
    progress_.tokens = writer_.size();
    progress_.documents = writer_.documents();
    if (options_.progress) options_.progress(progress_);
    return absl::OkStatus();
  }

  absl::StatusOr<PackResult> Finish() {
    if (writer_.documents() == 0) {
      return MakeFieldError({options_.inputs[0], "some text", "none"});
    }
    PackResult result = state_.result;
    result.tokens = writer_.size();
    result.documents = writer_.documents();
    LL_RETURN_IF_ERROR(writer_.Finish());
    return result;
  }
  void Discard() { writer_.Discard(); }

 private:
  absl::Status TakePart(const EncodedBatch& batch, const EncodedPart& part) {
    PackResult& result = state_.result;
    if (!part.status.ok()) {
      // Half a document must not stay.
      if (!options_.skip_bad_records || !part.first || !part.last) return part.status;
      ++result.skipped;
      if (options_.warn) options_.warn(absl::StrCat("skipped: ", part.status.message()));
      return absl::OkStatus();
    }
    const auto ids = absl::MakeConstSpan(batch.ids).subspan(part.begin, part.end - part.begin);
    result.replaced += part.replaced ? 1 : 0;
    if (!options_.encode_sample) return writer_.AppendPart(ids, part.last);
    if (ids.empty()) ++result.dropped;
    result.truncated_targets += part.truncated_targets;
    for (const auto& [begin, end] : part.loss_spans) result.target_tokens += end - begin;
    return writer_.AppendDocument(ids, part.loss_spans);
  }

  const PackOptions& options_;
  TokenFileWriter writer_;
  State state_;
  PackProgress progress_;
  int64_t since_commit_ = 0;
};

// Faults that another run with the same input would meet again.
bool IsInputFault(const absl::Status& status) {
  return status.code() == absl::StatusCode::kInvalidArgument ||
         status.code() == absl::StatusCode::kNotFound;
}

// What is written takes the place of what lies there: never of what was read.
absl::Status CheckOutput(const std::string& output, const std::vector<InputFile>& files) {
  if (IsDirectory(output)) return MakeFieldError({"out", "a file", "the folder " + output});
  for (const std::string& written : {output, output + ".json"}) {
    for (const InputFile& file : files) {
      std::error_code error;  // one of them is not there: they are not the same
      if (!std::filesystem::equivalent(written, file.path, error)) continue;
      return MakeFieldError({"out", "a file that is none of the inputs",
                             absl::StrCat(output, ", which would replace ", file.path),
                             "give another name, outside of a folder that is packed"});
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PackResult> PackText(const PackOptions& options, const Tokenizer& tokenizer) {
  LL_RETURN_IF_ERROR(CheckSpecialTokens(options, tokenizer));
  LL_ASSIGN_OR_RETURN(const std::vector<InputFile> files, FindInputFiles(options.inputs));
  LL_RETURN_IF_ERROR(CheckOutput(options.output, files));
  LL_ASSIGN_OR_RETURN(
      TokenFileWriter writer,
      TokenFileWriter::CreateResumable(options.output, tokenizer.vocab_size(), tokenizer.hash(),
                                       Fingerprint(options, tokenizer, files)));
  if (options.warn && writer.dropped_partial()) {
    options.warn(
        absl::StrCat(options.output, ".partial is of other inputs or settings: starting anew"));
  }
  if (options.warn && writer.size() > 0) {
    options.warn(absl::StrCat("going on after ", HumanCount(writer.size()), " tokens of ",
                              options.output, ".partial"));
  }
  LL_ASSIGN_OR_RETURN(State state, ParseState(writer.committed_state()));
  ReadOptions reading;
  reading.split = options.split;
  reading.part_bytes = PartBytes(tokenizer);
  RawReader reader(files, reading, state.position);
  EncodeOptions encoding;
  encoding.threads = options.threads;
  encoding.encode_sample = options.encode_sample;
  encoding.add_bos = options.add_bos;
  encoding.add_eos = options.add_eos;
  encoding.invalid_utf8 = options.invalid_utf8;
  encoding.kind = state.kind;
  Packer packer(options, files, std::move(writer), std::move(state));
  absl::Status status = EncodeRecords(reader, encoding, tokenizer,
                                      [&](EncodedBatch& batch) { return packer.Take(batch); });
  absl::StatusOr<PackResult> result =
      status.ok() ? packer.Finish() : absl::StatusOr<PackResult>(status);
  if (IsInputFault(result.status())) packer.Discard();
  return result;
}

}  // namespace ll
