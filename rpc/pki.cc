#include "rpc/pki.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "rpc/named_file.h"

namespace ll {
namespace {

template <auto Free>
struct Freer {
  template <typename T>
  void operator()(T* value) const {
    Free(value);
  }
};
using BioPtr = std::unique_ptr<BIO, Freer<BIO_free_all>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using CertPtr = std::unique_ptr<X509, Freer<X509_free>>;
using RequestPtr = std::unique_ptr<X509_REQ, Freer<X509_REQ_free>>;
using ExtensionPtr = std::unique_ptr<X509_EXTENSION, Freer<X509_EXTENSION_free>>;
using NumberPtr = std::unique_ptr<BIGNUM, Freer<BN_free>>;

constexpr absl::Duration kClockSkew = absl::Minutes(5);
constexpr int kSerialBits = 127;

// The library's queue of reasons is emptied: the next error must not show this one's.
absl::Status OpenSslError(absl::string_view what) {
  char reason[256] = "unknown reason";
  if (const unsigned long error = ERR_get_error(); error != 0)
    ERR_error_string_n(error, reason, sizeof reason);
  ERR_clear_error();
  return absl::InternalError(absl::StrCat(what, ": ", reason));
}

BioPtr Reader(absl::string_view text) {
  return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}
std::string TextOf(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<size_t>(std::max(size, 0l)));
}

// A passphrase is never asked for: a daemon has nobody to ask.
int NoPassphrase(char*, int, int, void*) { return 0; }

CertPtr ParseCertificate(absl::string_view pem) {
  const BioPtr bio = Reader(pem);
  CertPtr out(PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr));
  ERR_clear_error();
  return out;
}
KeyPtr ParseKey(absl::string_view pem) {
  const BioPtr bio = Reader(pem);
  KeyPtr out(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, nullptr));
  ERR_clear_error();
  return out;
}

absl::StatusOr<std::string> CertificatePem(X509* certificate) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509(bio.get(), certificate) != 1)
    return OpenSslError("cannot write a certificate");
  return TextOf(bio.get());
}
absl::StatusOr<std::string> KeyPem(EVP_PKEY* key) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return OpenSslError("cannot write a key");
  return TextOf(bio.get());
}

absl::StatusOr<KeyPtr> NewKey() {
  KeyPtr key(EVP_EC_gen("P-256"));
  if (key == nullptr) return OpenSslError("cannot make a key");
  return key;
}

bool IsP256(EVP_PKEY* key) {
  char group[64] = {};
  size_t length = 0;
  return EVP_PKEY_get_base_id(key) == EVP_PKEY_EC &&
         EVP_PKEY_get_group_name(key, group, sizeof group, &length) == 1 &&
         (absl::string_view(group) == "prime256v1" || absl::string_view(group) == "P-256");
}

absl::Status AddExtension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  if (extension == nullptr || X509_add_ext(certificate, extension.get(), -1) != 1)
    return OpenSslError(absl::StrCat("cannot add ", OBJ_nid2sn(nid)));
  return absl::OkStatus();
}

// Version, number, name, key and times; the issuer's name is `issuer`'s, or its own for null.
absl::StatusOr<CertPtr> NewCertificate(const std::string& common_name, EVP_PKEY* key, X509* issuer,
                                       absl::Time begin, absl::Time end) {
  CertPtr out(X509_new());
  const NumberPtr serial(BN_new());
  X509_NAME* name = X509_get_subject_name(out.get());
  const bool ok =
      X509_set_version(out.get(), X509_VERSION_3) == 1 &&
      BN_rand(serial.get(), kSerialBits, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
      BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(out.get())) != nullptr &&
      X509_NAME_add_entry_by_txt(
          name, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(common_name.data()),
          static_cast<int>(std::min<size_t>(common_name.size(), 64)), -1, 0) == 1 &&
      X509_set_issuer_name(out.get(), issuer == nullptr ? name : X509_get_subject_name(issuer)) ==
          1 &&
      X509_set_pubkey(out.get(), key) == 1 &&
      ASN1_TIME_set(X509_getm_notBefore(out.get()), absl::ToTimeT(begin)) != nullptr &&
      ASN1_TIME_set(X509_getm_notAfter(out.get()), absl::ToTimeT(end)) != nullptr;
  if (!ok) return OpenSslError("cannot make a certificate");
  return out;
}

absl::Status Sign(X509* certificate, EVP_PKEY* key) {
  if (X509_sign(certificate, key, EVP_sha256()) > 0) return absl::OkStatus();
  return OpenSslError("cannot sign");
}

bool IsAddress(const std::string& host) {
  unsigned char buffer[sizeof(in6_addr)];
  return inet_pton(AF_INET, host.c_str(), buffer) == 1 ||
         inet_pton(AF_INET6, host.c_str(), buffer) == 1;
}

bool IsDnsName(const std::string& host) {
  constexpr char kAllowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-";
  const std::string plain = host.rfind("*.", 0) == 0 ? host.substr(2) : host;
  return !plain.empty() && plain.size() <= 253 &&
         plain.find_first_not_of(kAllowed) == std::string::npos;
}

struct Names {
  std::string common_name, alternative, usage;
};

// The names were checked character by character: they are put into a configuration string.
absl::StatusOr<Names> NamesOf(const CertificateSubject& subject) {
  const auto bad = [](absl::string_view field, const std::string& found) {
    return MakeFieldError(
        {field, "1 to 64 letters, digits, '.', '_' or '-'", OneLine(found.substr(0, 80))});
  };
  if (!subject.worker.empty()) {
    if (!IsIdentityName(subject.worker)) return bad("worker", subject.worker);
    return Names{subject.worker, absl::StrCat("URI:", kWorkerUri, subject.worker), "clientAuth"};
  }
  if (!subject.user.empty()) {
    if (!IsIdentityName(subject.user)) return bad("user", subject.user);
    return Names{subject.user, absl::StrCat("URI:", kUserUri, subject.user), "clientAuth"};
  }
  Names out{.usage = "serverAuth"};
  for (const std::string& host : subject.hosts) {
    const bool address = IsAddress(host);
    if (!address && !IsDnsName(host)) {
      return MakeFieldError({"server", "a DNS name or an address", OneLine(host.substr(0, 80))});
    }
    if (out.common_name.empty()) out.common_name = host;
    absl::StrAppend(&out.alternative, out.alternative.empty() ? "" : ",",
                    address ? "IP:" : "DNS:", host);
  }
  if (out.alternative.empty())
    return MakeFieldError({"server", "at least one DNS name or address", "none"});
  return out;
}

absl::StatusOr<std::string> SignFor(const KeyPair& authority, EVP_PKEY* key,
                                    const CertificateSubject& subject, absl::Time now,
                                    absl::Duration validity) {
  LL_ASSIGN_OR_RETURN(const Names names, NamesOf(subject));
  const CertPtr issuer = ParseCertificate(authority.certificate_pem);
  const KeyPtr issuer_key = ParseKey(authority.key_pem);
  if (issuer == nullptr || issuer_key == nullptr ||
      X509_check_private_key(issuer.get(), issuer_key.get()) != 1) {
    ERR_clear_error();
    return FieldStatus(absl::StatusCode::kFailedPrecondition, "dir",
                       "the authority's certificate and key do not belong together",
                       "make one with ll-coordinator pki init");
  }
  LL_ASSIGN_OR_RETURN(const absl::Time last, ExpiryOf(authority.certificate_pem));
  if (now >= last) {
    return FieldStatus(absl::StatusCode::kFailedPrecondition, "dir",
                       absl::StrCat("the authority has ended at ", absl::FormatTime(last)),
                       "make another one with ll-coordinator pki init");
  }
  LL_ASSIGN_OR_RETURN(const CertPtr made,
                      NewCertificate(names.common_name, key, issuer.get(), now - kClockSkew,
                                     std::min(now + validity, last)));
  X509* const c = made.get();
  LL_RETURN_IF_ERROR(AddExtension(c, issuer.get(), NID_basic_constraints, "critical,CA:FALSE"));
  LL_RETURN_IF_ERROR(AddExtension(c, issuer.get(), NID_key_usage, "critical,digitalSignature"));
  LL_RETURN_IF_ERROR(AddExtension(c, issuer.get(), NID_ext_key_usage, names.usage));
  LL_RETURN_IF_ERROR(AddExtension(c, issuer.get(), NID_subject_alt_name, names.alternative));
  LL_RETURN_IF_ERROR(AddExtension(c, issuer.get(), NID_subject_key_identifier, "hash"));
  LL_RETURN_IF_ERROR(AddExtension(c, issuer.get(), NID_authority_key_identifier, "keyid"));
  LL_RETURN_IF_ERROR(Sign(c, issuer_key.get()));
  return CertificatePem(c);
}

}  // namespace

bool IsIdentityName(absl::string_view name) {
  constexpr char kAllowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  return !name.empty() && name.size() <= 64 &&
         name.find_first_not_of(kAllowed) == absl::string_view::npos;
}

absl::StatusOr<KeyPair> MakeAuthority(absl::string_view common_name, absl::Time now,
                                      absl::Duration validity) {
  LL_ASSIGN_OR_RETURN(const KeyPtr key, NewKey());
  LL_ASSIGN_OR_RETURN(const CertPtr made,
                      NewCertificate(std::string(common_name), key.get(), nullptr, now - kClockSkew,
                                     now + validity));
  X509* const c = made.get();
  LL_RETURN_IF_ERROR(AddExtension(c, c, NID_basic_constraints, "critical,CA:TRUE,pathlen:0"));
  LL_RETURN_IF_ERROR(AddExtension(c, c, NID_key_usage, "critical,keyCertSign,cRLSign"));
  LL_RETURN_IF_ERROR(AddExtension(c, c, NID_subject_key_identifier, "hash"));
  LL_RETURN_IF_ERROR(Sign(c, key.get()));
  KeyPair out;
  LL_ASSIGN_OR_RETURN(out.certificate_pem, CertificatePem(c));
  LL_ASSIGN_OR_RETURN(out.key_pem, KeyPem(key.get()));
  return out;
}

absl::StatusOr<KeyPair> Issue(const KeyPair& authority, const CertificateSubject& subject,
                              absl::Time now, absl::Duration validity) {
  LL_ASSIGN_OR_RETURN(const KeyPtr key, NewKey());
  KeyPair out;
  LL_ASSIGN_OR_RETURN(out.certificate_pem, SignFor(authority, key.get(), subject, now, validity));
  LL_ASSIGN_OR_RETURN(out.key_pem, KeyPem(key.get()));
  return out;
}

absl::StatusOr<KeyPair> MakeCsr(absl::string_view common_name) {
  LL_ASSIGN_OR_RETURN(const KeyPtr key, NewKey());
  const RequestPtr request(X509_REQ_new());
  const std::string name(common_name.substr(0, 64));
  const BioPtr bio(BIO_new(BIO_s_mem()));
  const bool ok =
      X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(request.get()), "CN", MBSTRING_UTF8,
                                 reinterpret_cast<const unsigned char*>(name.data()),
                                 static_cast<int>(name.size()), -1, 0) == 1 &&
      X509_REQ_set_pubkey(request.get(), key.get()) == 1 &&
      X509_REQ_sign(request.get(), key.get(), EVP_sha256()) > 0 &&
      PEM_write_bio_X509_REQ(bio.get(), request.get()) == 1;
  if (!ok) return OpenSslError("cannot make a request");
  KeyPair out{.certificate_pem = TextOf(bio.get())};
  LL_ASSIGN_OR_RETURN(out.key_pem, KeyPem(key.get()));
  return out;
}

absl::StatusOr<std::string> SignCsr(const KeyPair& authority, absl::string_view csr_pem,
                                    const CertificateSubject& subject, absl::Time now,
                                    absl::Duration validity) {
  const BioPtr bio = Reader(csr_pem);
  const RequestPtr request(PEM_read_bio_X509_REQ(bio.get(), nullptr, NoPassphrase, nullptr));
  EVP_PKEY* const key = request == nullptr ? nullptr : X509_REQ_get0_pubkey(request.get());
  const bool good = key != nullptr && IsP256(key) && X509_REQ_verify(request.get(), key) == 1;
  ERR_clear_error();
  if (!good) {
    return MakeFieldError(
        {"csr_pem", "a certificate request with an EC P-256 key, signed by it", "something else"});
  }
  return SignFor(authority, key, subject, now, validity);
}

absl::Status CheckCertificateFiles(const std::string& cert_file, const std::string& key_file,
                                   absl::string_view cert_flag, absl::string_view key_flag) {
  LL_ASSIGN_OR_RETURN(const std::string cert_pem, ReadNamedFile(cert_file, cert_flag));
  LL_ASSIGN_OR_RETURN(const std::string key_pem, ReadNamedFile(key_file, key_flag));
  struct stat st;
  if (stat(key_file.c_str(), &st) == 0 && (st.st_mode & S_IROTH) != 0) {
    return FieldStatus(absl::StatusCode::kFailedPrecondition, key_flag,
                       absl::StrCat("everybody on this host may read the key ", key_file),
                       absl::StrCat("chmod o-rwx ", key_file));
  }
  const CertPtr certificate = ParseCertificate(cert_pem);
  if (certificate == nullptr) return MakeFieldError({cert_flag, "a certificate in PEM", cert_file});
  const KeyPtr key = ParseKey(key_pem);
  if (key == nullptr)
    return MakeFieldError({key_flag, "a private key in PEM without a passphrase", key_file});
  const bool pair = X509_check_private_key(certificate.get(), key.get()) == 1;
  ERR_clear_error();
  if (pair) return absl::OkStatus();
  return MakeFieldError({key_flag, absl::StrCat("the key of ", cert_file), key_file});
}

absl::Status CheckAuthorityFile(const std::string& file, absl::string_view flag) {
  LL_ASSIGN_OR_RETURN(const std::string pem, ReadNamedFile(file, flag));
  if (ParseCertificate(pem) != nullptr) return absl::OkStatus();
  return MakeFieldError({flag, "certificates of authorities in PEM", file});
}

absl::Status CheckNotEnded(const std::string& file, absl::string_view flag, absl::Time now,
                           absl::string_view fix) {
  if (file.empty()) return absl::OkStatus();
  LL_ASSIGN_OR_RETURN(const std::string pem, ReadNamedFile(file, flag));
  constexpr absl::string_view kBegin = "-----BEGIN CERTIFICATE-----";
  const absl::string_view text = pem;
  absl::Time last = absl::InfinitePast();
  for (size_t at = text.find(kBegin); at != text.npos; at = text.find(kBegin, at + 1)) {
    const auto end = ExpiryOf(text.substr(at));
    if (end.ok()) last = std::max(last, *end);
  }
  // What is no certificate at all is the business of the checks of its content.
  if (last >= now || last == absl::InfinitePast()) return absl::OkStatus();
  const std::string ended = absl::FormatTime("%Y-%m-%d%ET%H:%M:%SZ", last, absl::UTCTimeZone());
  return MakeFieldError(
      {flag, "a certificate that is good now", absl::StrCat(file, ", which ended ", ended), fix},
      absl::StatusCode::kFailedPrecondition);
}

absl::StatusOr<absl::Time> ExpiryOf(absl::string_view certificate_pem) {
  const CertPtr certificate = ParseCertificate(certificate_pem);
  tm end{};
  if (certificate == nullptr || ASN1_TIME_to_tm(X509_get0_notAfter(certificate.get()), &end) != 1) {
    ERR_clear_error();
    return MakeFieldError({"certificate", "a certificate in PEM", "something else"});
  }
  return absl::FromTimeT(timegm(&end));
}

}  // namespace ll
