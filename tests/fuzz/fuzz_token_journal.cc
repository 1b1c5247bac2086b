// The journal beside a token file that is being written, as a crash or a disk may have left it.
#include "base/check.h"
#include "model/text/token_journal.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/token_spans.h"

namespace ll {

void FuzzOne(absl::string_view input) {
  const MemoryFile file(input);
  std::optional<TokenCommit> restored;
  bool dropped = false;
  {
    const auto journal = TokenJournal::Open(file.path(), "fingerprint", restored, dropped);
    if (!journal.ok()) return CheckRefusal(journal.status());
    TokenCommit next;
    next.tokens = restored ? restored->tokens : 0;
    if (restored) CheckSpans(restored->documents, restored->tokens);
    if (restored && restored->loss_spans) CheckSpans(*restored->loss_spans, restored->tokens);
    next.state = "after";
    LL_CHECK((*journal)->Append(next).ok());
  }
  // What was restored is there again, and so is what was added to it.
  std::optional<TokenCommit> again;
  const auto journal = TokenJournal::Open(file.path(), "fingerprint", again, dropped);
  LL_CHECK(journal.ok() && again.has_value());
  LL_CHECK(again->state == "after" && again->tokens == (restored ? restored->tokens : 0));
  if (restored) LL_CHECK(again->documents == restored->documents);
}

}  // namespace ll
