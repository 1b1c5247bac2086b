#include "storage/s3_xml.h"

#include <pugixml.hpp>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"

namespace ll {
namespace {

absl::StatusOr<pugi::xml_node> Root(pugi::xml_document& document, const std::string& xml,
                                    const char* name) {
  const pugi::xml_parse_result result = document.load_buffer(xml.data(), xml.size());
  const pugi::xml_node root = document.child(name);
  if (result && root) return root;
  return absl::UnavailableError(
      absl::StrCat("expected <", name, ">, found \"", OneLine(xml.substr(0, 80)), "\""));
}

int HexDigit(char c) {
  return absl::ascii_isdigit(c)    ? c - '0'
         : absl::ascii_isxdigit(c) ? absl::ascii_toupper(c) - 'A' + 10
                                   : -1;
}

std::string PercentDecode(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && HexDigit(text[i + 1]) >= 0 &&
        HexDigit(text[i + 2]) >= 0) {
      out += static_cast<char>(HexDigit(text[i + 1]) * 16 + HexDigit(text[i + 2]));
      i += 2;
    } else {
      out += text[i] == '+' ? ' ' : text[i];
    }
  }
  return out;
}

std::string Decoded(const std::string& key, const pugi::xml_node& root) {
  return root.child("EncodingType") ? PercentDecode(key) : key;
}
std::string KeyOf(const pugi::xml_node& entry, const pugi::xml_node& root) {
  return Decoded(entry.child_value("Key"), root);
}

}  // namespace

absl::StatusOr<S3Page> ParseListing(const std::string& xml) {
  pugi::xml_document document;
  const auto root = Root(document, xml, "ListBucketResult");
  if (!root.ok()) return root.status();
  S3Page page;
  for (const pugi::xml_node& entry : root->children("Contents")) {
    ObjectInfo info;
    info.key = KeyOf(entry, *root);
    if (info.key.empty() || !absl::SimpleAtoi(entry.child_value("Size"), &info.size_bytes) ||
        info.size_bytes < 0) {
      return absl::UnavailableError("a listing without key or size");
    }
    page.objects.push_back(std::move(info));
  }
  if (absl::string_view(root->child_value("IsTruncated")) == "true") {
    page.continuation = root->child_value("NextContinuationToken");
    if (page.continuation.empty())
      return absl::UnavailableError("a cut listing without NextContinuationToken");
  }
  return page;
}

absl::StatusOr<S3UploadsPage> ParseUploads(const std::string& xml) {
  pugi::xml_document document;
  const auto root = Root(document, xml, "ListMultipartUploadsResult");
  if (!root.ok()) return root.status();
  S3UploadsPage page;
  for (const pugi::xml_node& entry : root->children("Upload"))
    page.uploads.emplace_back(KeyOf(entry, *root), entry.child_value("UploadId"));
  if (absl::string_view(root->child_value("IsTruncated")) == "true") {
    page.next_key = Decoded(root->child_value("NextKeyMarker"), *root);
    page.next_upload = root->child_value("NextUploadIdMarker");
    if (page.next_key.empty())
      return absl::UnavailableError("a cut list of uploads without NextKeyMarker");
  }
  return page;
}

absl::StatusOr<S3PartsPage> ParseParts(const std::string& xml) {
  pugi::xml_document document;
  auto root = Root(document, xml, "ListPartsResult");
  if (!root.ok()) root = Root(document, xml, "ListPartsResponse");  // as some stores call it
  if (!root.ok()) return root.status();
  S3PartsPage page;
  for (const pugi::xml_node& entry : root->children("Part")) {
    S3Part part;
    if (!absl::SimpleAtoi(entry.child_value("PartNumber"), &part.number) || part.number < 1 ||
        !absl::SimpleAtoi(entry.child_value("Size"), &part.size_bytes) || part.size_bytes < 0) {
      return absl::UnavailableError("a part without number or size");
    }
    part.etag = entry.child_value("ETag");
    part.checksum_sha256 = entry.child_value("ChecksumSHA256");
    page.parts.push_back(std::move(part));
  }
  if (absl::string_view(root->child_value("IsTruncated")) == "true") {
    page.next_marker = root->child_value("NextPartNumberMarker");
    if (page.next_marker.empty())
      return absl::UnavailableError("a cut list of parts without NextPartNumberMarker");
  }
  return page;
}

absl::StatusOr<std::string> ParseUploadId(const std::string& xml) {
  pugi::xml_document document;
  const auto root = Root(document, xml, "InitiateMultipartUploadResult");
  if (!root.ok()) return root.status();
  const std::string id = root->child_value("UploadId");
  if (id.empty()) return absl::UnavailableError("an answer without UploadId");
  return id;
}

S3Error ParseError(const std::string& xml) {
  pugi::xml_document document;
  const auto root = Root(document, xml, "Error");
  if (!root.ok()) return {};
  return {OneLine(root->child_value("Code")), OneLine(root->child_value("Message"))};
}

std::string CompletionXml(const std::vector<std::pair<std::string, std::string>>& parts) {
  pugi::xml_document document;
  pugi::xml_node root = document.append_child("CompleteMultipartUpload");
  for (size_t i = 0; i < parts.size(); ++i) {
    pugi::xml_node part = root.append_child("Part");
    part.append_child("PartNumber").text() = static_cast<unsigned>(i + 1);
    part.append_child("ETag").text() = parts[i].first.c_str();
    part.append_child("ChecksumSHA256").text() = parts[i].second.c_str();
  }
  std::ostringstream out;
  document.save(out, "", pugi::format_raw | pugi::format_no_declaration);
  return out.str();
}

}  // namespace ll
