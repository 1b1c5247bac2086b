#include "coordinator/webhooks/address_rules.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstring>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/field_error.h"

namespace ll {
namespace {

struct Bytes {
  unsigned char at[16];
};

constexpr unsigned char kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

std::optional<Bytes> BytesOf(const sockaddr* address) {
  Bytes out;
  if (address->sa_family == AF_INET) {
    std::memcpy(out.at, kMapped, sizeof kMapped);
    std::memcpy(out.at + 12, &reinterpret_cast<const sockaddr_in*>(address)->sin_addr, 4);
    return out;
  }
  if (address->sa_family == AF_INET6) {
    std::memcpy(out.at, &reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr, 16);
    return out;
  }
  return std::nullopt;
}

bool Within(const Bytes& bytes, const unsigned char* range, int bits) {
  for (int i = 0; i < 16 && bits > 0; ++i, bits -= 8) {
    const unsigned char mask = bits >= 8 ? 0xff : static_cast<unsigned char>(0xff << (8 - bits));
    if ((bytes.at[i] & mask) != (range[i] & mask)) return false;
  }
  return true;
}

// "ADDRESS" or "ADDRESS/BITS" in the mapped form.
bool ReadRange(const std::string& text, unsigned char* bytes, int* bits) {
  const std::vector<std::string> parts = absl::StrSplit(text, absl::MaxSplits('/', 1));
  in_addr v4;
  in6_addr v6;
  int most = 128, base = 0;
  if (inet_pton(AF_INET, parts[0].c_str(), &v4) == 1) {
    std::memcpy(bytes, kMapped, sizeof kMapped);
    std::memcpy(bytes + 12, &v4, 4);
    most = 32;
    base = 96;
  } else if (inet_pton(AF_INET6, parts[0].c_str(), &v6) == 1) {
    std::memcpy(bytes, &v6, 16);
  } else {
    return false;
  }
  *bits = most;
  const bool good =
      parts.size() == 1 || (absl::SimpleAtoi(parts[1], bits) && *bits >= 0 && *bits <= most);
  *bits += base;
  return good;
}

struct Kind {
  const char *range, *name;
};
// IANA's registries of special-purpose addresses.
constexpr Kind kRefused[] = {
    {"0.0.0.0/8", "this network"},
    {"10.0.0.0/8", "private"},
    {"100.64.0.0/10", "shared"},
    {"127.0.0.0/8", "loopback"},
    {"169.254.0.0/16", "link-local"},
    {"172.16.0.0/12", "private"},
    {"192.0.0.0/24", "reserved"},
    {"192.0.2.0/24", "documentation"},
    {"192.88.99.0/24", "reserved"},
    {"192.168.0.0/16", "private"},
    {"198.18.0.0/15", "benchmarking"},
    {"198.51.100.0/24", "documentation"},
    {"203.0.113.0/24", "documentation"},
    {"224.0.0.0/4", "multicast"},
    {"240.0.0.0/4", "reserved"},
    {"::1/128", "loopback"},
    {"fe80::/10", "link-local"},
    {"fc00::/7", "private"},
    {"ff00::/8", "multicast"},
    // Within global unicast: protocol assignments with Teredo, 6to4, documentation.
    {"2001::/23", "reserved"},
    {"2001:db8::/32", "documentation"},
    {"2002::/16", "6to4"},
    {"3fff::/20", "documentation"},
};

struct RefusedRange {
  unsigned char bytes[16];
  int bits;
  const char* name;
};

const std::vector<RefusedRange>& RefusedRanges() {
  static const auto& ranges = *[] {
    auto* out = new std::vector<RefusedRange>;
    for (const Kind& kind : kRefused) {
      RefusedRange range{};
      range.name = kind.name;
      LL_CHECK(ReadRange(kind.range, range.bytes, &range.bits));
      out->push_back(range);
    }
    return out;
  }();
  return ranges;
}

const char* RefusedAs(const Bytes& bytes) {
  for (const RefusedRange& range : RefusedRanges()) {
    if (Within(bytes, range.bytes, range.bits)) return range.name;
  }
  const bool v4 = Within(
      bytes, reinterpret_cast<const unsigned char*>("\0\0\0\0\0\0\0\0\0\0\xff\xff\0\0\0\0"), 96);
  // Beside mapped IPv4 only global unicast: NAT64, IPv4-compatible and the rest stay out.
  const bool global = (bytes.at[0] & 0xe0) == 0x20;
  return v4 || global ? nullptr : "reserved";
}

std::string TextOf(const Bytes& bytes) {
  char text[INET6_ADDRSTRLEN];
  const bool v4 = std::memcmp(bytes.at, kMapped, sizeof kMapped) == 0;
  inet_ntop(v4 ? AF_INET : AF_INET6, bytes.at + (v4 ? 12 : 0), text, sizeof text);
  return text;
}

bool LoopbackBytes(const Bytes& bytes) {
  const char* kind = RefusedAs(bytes);
  return kind != nullptr && std::strcmp(kind, "loopback") == 0;
}

}  // namespace

absl::Status AddressRules::Allow(const std::string& range) {
  Range out;
  if (!ReadRange(range, out.bytes, &out.bits)) {
    return MakeFieldError(
        {"allow", "an address, or a range as 10.1.0.0/16", OneLine(range.substr(0, 80))});
  }
  allowed_.push_back(out);
  return absl::OkStatus();
}

bool AddressRules::IsLoopback(const sockaddr* address) {
  const auto bytes = BytesOf(address);
  return bytes && LoopbackBytes(*bytes);
}

absl::Status AddressRules::Check(const sockaddr* address) const {
  const auto bytes = BytesOf(address);
  if (!bytes) return absl::PermissionDeniedError("no internet address");
  if (loopback_ && LoopbackBytes(*bytes)) return absl::OkStatus();
  for (const Range& range : allowed_) {
    if (Within(*bytes, range.bytes, range.bits)) return absl::OkStatus();
  }
  const char* kind = RefusedAs(*bytes);
  if (kind == nullptr) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("the address ", TextOf(*bytes), " is refused (", kind, ")"));
}

}  // namespace ll
