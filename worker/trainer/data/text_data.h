// Text as training data: packed once into the job's folder when training starts.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/spec/job_spec.h"

namespace ll {

// Whether `data` names text: .txt, .jsonl, .ndjson or .json, also .gz and .zst; a folder; a
// pattern. Everything else is a token file.
bool IsTextData(const std::string& data);

struct PackPlace {
  std::string out;  // the file goes to OUT/data/
  int rank = 0;     // rank 0 packs, the others wait for it
  // Told every few seconds; may be empty.
  std::function<void(int64_t done_bytes, int64_t total_bytes)> progress;
};

// The token file made of `spec`'s (resolved) data: samples with sft, else documents, each closed by
// an EOS. Its name tells content, tokenizer and settings apart, so another attempt in the same
// folder finds it again, a killed one goes on where it was, and changed text gives another file.
// Warnings name what was skipped and cut. Errors: what the text, the tokenizer or the template lack
// (with file and line); for the other ranks, a file that has not grown for ten minutes.
absl::StatusOr<std::string> PackTextData(const JobSpec& spec, const PackPlace& place,
                                         std::vector<std::string>* warnings);

}  // namespace ll
