#include "model/text/text_stream.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"

namespace ll {
namespace {

constexpr absl::string_view kReplacement =
    "\xEF\xBF\xBD";  // U+FFFD, what half a character decodes to
constexpr size_t kContextIds = 8;

}  // namespace

TextStream::TextStream(const Tokenizer& tokenizer, absl::Span<const int32_t> context,
                       std::vector<std::string> stop_strings)
    : tokenizer_(tokenizer), stop_strings_(std::move(stop_strings)) {
  if (context.size() > kContextIds) context.remove_prefix(context.size() - kContextIds);
  ids_.assign(context.begin(), context.end());
  shown_ = ids_.size();
  std::erase(stop_strings_, "");
}

std::string TextStream::Decode(bool last) {
  const absl::Span<const int32_t> ids = absl::MakeConstSpan(ids_).subspan(begin_);
  const std::string text = tokenizer_.Decode(ids);
  if (!last && absl::EndsWith(text, kReplacement)) return "";
  const std::string before = tokenizer_.Decode(ids.subspan(0, shown_ - begin_));
  absl::string_view added = text;
  // Where the ids in front decode otherwise now, they ended within a character: alone, then.
  const std::string alone =
      absl::ConsumePrefix(&added, before) ? "" : tokenizer_.Decode(ids.subspan(shown_ - begin_));
  std::string out = alone.empty() ? std::string(added) : alone;
  // A token may add nothing by itself (a special one, or a space that the decoder drops at the
  // end).
  if (out.empty() && !last) return "";
  begin_ = shown_;
  shown_ = ids_.size();
  return out;
}

std::string TextStream::Release(absl::string_view text, bool last) {
  held_.append(text.data(), text.size());
  size_t end = held_.size();
  for (const std::string& stop : stop_strings_) {
    const size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    stopped_ = true;
    end = std::min(end, at);
  }
  if (!stopped_ && !last) {
    for (const std::string& stop : stop_strings_) {
      // The longest end of the text that begins the stop string.
      for (size_t n = std::min(stop.size() - 1, held_.size()); n > 0; --n) {
        if (!absl::EndsWith(held_, absl::string_view(stop).substr(0, n))) continue;
        end = std::min(end, held_.size() - n);
        break;
      }
    }
  }
  std::string out = held_.substr(0, end);
  held_.erase(0, end);
  return out;
}

std::string TextStream::Push(int32_t id) {
  if (stopped_) return "";
  ids_.push_back(id);
  return Release(Decode(/*last=*/false), /*last=*/false);
}

std::string TextStream::Finish() {
  if (stopped_) return "";
  return Release(Decode(/*last=*/true), /*last=*/true);
}

}  // namespace ll
