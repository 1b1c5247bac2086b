// What an object store answers.
#include "base/check.h"
#include "storage/s3_xml.h"
#include "tests/fuzz/fuzz.h"

namespace ll {

void FuzzOne(absl::string_view input) {
  const std::string xml(input);
  const auto page = ParseListing(xml);
  if (page.ok()) {
    for (const ObjectInfo& info : page->objects) LL_CHECK(info.size_bytes >= 0);
  } else {
    CheckRefusal(page.status());
  }
  ParseUploads(xml).status().IgnoreError();
  const auto parts = ParseParts(xml);
  for (size_t i = 0; parts.ok() && i < parts->parts.size(); ++i)
    LL_CHECK(parts->parts[i].number > 0 && parts->parts[i].size_bytes >= 0);
  const auto id = ParseUploadId(xml);
  LL_CHECK(!id.ok() || !id->empty());
  LL_CHECK(ParseError(xml).message.find('\n') == std::string::npos);
}

}  // namespace ll
