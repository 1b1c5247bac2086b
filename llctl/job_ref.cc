#include "llctl/job_ref.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "llctl/errors.h"

namespace ll {
namespace {

constexpr int kJobRefPage = 1000;
constexpr size_t kIdDigits = 12, kJobsNamed = 5;

bool IsJobId(absl::string_view text) {
  return absl::ConsumePrefix(&text, "job-") && text.size() == kIdDigits &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isdigit(static_cast<unsigned char>(c)) || (c >= 'a' && c <= 'f');
         });
}

// Newest first. Looked for here: the service knows no filter by name, and a page of a thousand jobs
// with these three fields takes milliseconds.
absl::StatusOr<std::vector<v1::Job>> JobsNamed(const std::string& name, Client& client) {
  v1::ListRequest request;
  request.set_page_size(kJobRefPage);
  for (const char* field : {"job_id", "spec", "state"})
    request.mutable_read_mask()->add_paths(field);
  std::vector<v1::Job> found;
  do {
    LL_ASSIGN_OR_RETURN(v1::ListResponse page,
                        client.Call(client.jobs(), &v1::Jobs::Stub::List, request));
    for (v1::Job& job : *page.mutable_jobs()) {
      if (job.spec().name() == name) found.push_back(std::move(job));
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return found;
}

std::string Ids(const std::vector<v1::Job>& jobs) {
  std::vector<std::string> texts;
  for (const v1::Job& job : jobs) {
    if (texts.size() == kJobsNamed) {
      texts.push_back("…");
      break;
    }
    texts.push_back(absl::StrCat(job.job_id(), " (", v1::JobState_Name(job.state()), ")"));
  }
  return absl::StrJoin(texts, ", ");
}

}  // namespace

absl::StatusOr<std::string> JobIdOf(const std::string& text, Client& client) {
  if (IsJobId(text)) return text;
  LL_ASSIGN_OR_RETURN(const std::vector<v1::Job> named, JobsNamed(text, client));
  if (named.size() == 1) return named[0].job_id();
  std::vector<v1::Job> unfinished;
  for (const v1::Job& job : named) {
    if (!HasEnded(job.state())) unfinished.push_back(job);
  }
  if (unfinished.size() == 1) return unfinished[0].job_id();
  if (named.empty()) {
    return FieldStatus(absl::StatusCode::kNotFound, "job",
                       absl::StrCat("no job has the id or the name '", OneLine(text), "'"),
                       "llctl list shows both");
  }
  return MakeFieldError(
      {"job", "an id, or a name that says which job",
       absl::StrCat(named.size(), " jobs named '", OneLine(text), "'"),
       absl::StrCat("give the id: ", Ids(unfinished.empty() ? named : unfinished))});
}

absl::StatusOr<std::vector<std::string>> JobIdsOf(const std::vector<std::string>& texts,
                                                  Client& client) {
  std::vector<std::string> ids;
  for (const std::string& text : texts) {
    LL_ASSIGN_OR_RETURN(ids.emplace_back(), JobIdOf(text, client));
  }
  return ids;
}

}  // namespace ll
