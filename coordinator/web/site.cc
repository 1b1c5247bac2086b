#include "coordinator/web/site.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/sha256.h"
#include "coordinator/web/pages.h"
#include "coordinator/web/ui.h"

namespace ll {
namespace {

constexpr char kCookie[] = "ll-session";
constexpr char kHtml[] = "text/html; charset=utf-8";

// Of style and script together.
const std::string& AssetVersion() {
  static const auto* version =
      new std::string(Sha256Hex(std::string(kStyle) + std::string(kScript)).substr(0, 12));
  return *version;
}

void AddSecurityHeaders(HttpAnswer& answer) {
  answer.headers.emplace_back("Content-Security-Policy",
                              "default-src 'none'; style-src 'self'; script-src 'self'; img-src "
                              "'self'; connect-src 'self'; "
                              "form-action 'self'; base-uri 'none'; frame-ancestors 'none'");
  // Not "no-referrer": with it browsers send forms from the origin "null".
  answer.headers.emplace_back("Referrer-Policy", "same-origin");
  answer.headers.emplace_back("Cross-Origin-Opener-Policy", "same-origin");
}

HttpAnswer Redirect(const std::string& to) {
  return {.status = 303, .headers = {{"Location", to}}};
}

int HttpStatusOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    default:
      return 503;
  }
}

HttpAnswer Render(const Page& page, int status, bool logged_in) {
  return {.status = status,
          .type = kHtml,
          .body = RenderPage(page, logged_in, AssetVersion()),
          .headers = {{"Cache-Control", "no-store"}}};
}

// `next`: where to go afterwards.
Page LoginPage(const std::string& why, const std::string& next) {
  Page page{.title = "Log in"};
  Html& out = page.body;
  out.Raw("<h1>Log in</h1>");
  if (!why.empty()) out.Raw("<p class=\"error\" role=\"alert\">").Text(why).Raw("</p>");
  out.Raw(
         "<form class=\"login\" method=\"post\" action=\"/login\"><input type=\"hidden\" "
         "name=\"next\" value=\"")
      .Text(next);
  out.Raw(
      "\"><label>Token <input name=\"token\" type=\"password\" autocomplete=\"off\" required "
      "autofocus></label>"
      "<button>Log in</button></form><p>The token that <code>llctl</code> uses: on the "
      "coordinator's host the file "
      "<code>token</code> in its data folder, elsewhere what <code>LLCTL_TOKEN</code> holds.</p>");
  return page;
}

// Of letters that a header may hold: gRPC ends the process over others.
bool MayBeToken(const std::string& token) {
  return token.find_first_not_of(
             "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=") ==
         std::string::npos;
}

// Only this site's own pages.
std::string SafeNext(const std::string& next) {
  const bool own = absl::StartsWith(next, "/") && !absl::StartsWith(next, "//") &&
                   next.find('\\') == std::string::npos &&
                   next.find_first_of("\r\n") == std::string::npos;
  return own ? next : "/";
}

absl::StatusOr<Page> PageAt(const std::string& path, const PageRequest& request,
                            JobCharts& charts) {
  if (path == "/" || path == "/jobs") return JobListPage(request);
  if (path == "/queues") return QueuesPage(request);
  if (path == "/workers") return WorkersPage(request);
  if (path == "/schedules") return SchedulesPage(request);
  absl::string_view rest = path;
  if (absl::ConsumePrefix(&rest, "/schedules/")) return SchedulePage(request, UrlDecode(rest));
  if (absl::ConsumePrefix(&rest, "/jobs/")) {
    const bool log = absl::ConsumeSuffix(&rest, "/log");
    const std::string id = UrlDecode(rest);
    return log ? LogPage(request, id) : JobPage(request, id, charts);
  }
  return absl::NotFoundError("there is no such page");
}

}  // namespace

Site::Site(const std::shared_ptr<grpc::Channel>& api, Clock& clock, Random& random)
    : client_(api), clock_(clock), sessions_(clock, random), charts_(clock) {}

HttpAnswer Site::Serve(const HttpQuestion& request) {
  HttpAnswer answer;
  if (request.method == "POST") {
    if (request.path == "/login") {
      answer = LogIn(request);
    } else if (request.path == "/logout") {
      answer = LogOut(request);
    } else {
      answer = {.status = 405, .body = "nothing is changed here\n"};
    }
  } else if (absl::StartsWith(request.path, "/ui/")) {
    answer = ServeAsset(request);
  } else {
    answer = ServePage(request);
  }
  AddSecurityHeaders(answer);
  return answer;
}

HttpAnswer Site::ServeAsset(const HttpQuestion& request) const {
  HttpAnswer answer;
  if (request.path == "/ui/ll.css") {
    answer = {.type = "text/css; charset=utf-8", .body = std::string(kStyle)};
  } else if (request.path == "/ui/ll.js") {
    answer = {.type = "text/javascript; charset=utf-8", .body = std::string(kScript)};
  } else if (request.path == "/ui/icon.svg") {
    answer = {.type = "image/svg+xml", .body = std::string(kIcon)};
  } else {
    return {.status = 404, .body = "there is no such file\n"};
  }
  // Pages name the version, so another one is another address.
  answer.headers = {{"Cache-Control", "max-age=31536000, immutable"}};
  return answer;
}

HttpAnswer Site::ServePage(const HttpQuestion& request) {
  const Query query = ParseQuery(request.query);
  const auto header = [&request](const char* name) {
    const auto found = request.headers.find(name);
    return found == request.headers.end() ? std::string() : found->second;
  };
  std::string token;
  const std::string authorization = header("Authorization");
  absl::string_view bearer = authorization;
  const bool program = absl::ConsumePrefix(&bearer, "Bearer ");
  if (program) {
    token = std::string(bearer);
    if (!MayBeToken(token))
      return Render(ErrorPage(absl::UnauthenticatedError("this is no token")), 401, true);
  } else if (auto known = sessions_.TokenOf(CookieValue(header("Cookie"), kCookie));
             known.has_value()) {
    token = *std::move(known);
  } else if (request.path == "/login") {
    return Render(LoginPage("", SafeNext(query.count("next") > 0 ? query.at("next") : "/")), 200,
                  false);
  } else {
    const std::string here =
        request.query.empty() ? request.path : absl::StrCat(request.path, "?", request.query);
    return Redirect(absl::StrCat("/login?next=", Html().UrlPart(here).str()));
  }
  if (request.path == "/login") return Redirect("/");
  const ApiClient::As api(client_, token);
  const absl::StatusOr<Page> page = PageAt(request.path, {api, query, clock_.Now()}, charts_);
  if (page.ok()) return Render(*page, 200, true);
  if (page.status().code() == absl::StatusCode::kUnauthenticated && !program) {
    sessions_.End(CookieValue(header("Cookie"), kCookie));
    return Render(LoginPage("The token is no longer valid.", request.path), 401, false);
  }
  return Render(ErrorPage(page.status()), HttpStatusOf(page.status()), true);
}

HttpAnswer Site::LogIn(const HttpQuestion& request) {
  const Query form = ParseQuery(request.body);
  const auto field = [&form](const char* name) {
    const auto found = form.find(name);
    return found == form.end() ? std::string() : found->second;
  };
  const std::string token = field("token"), next = SafeNext(field("next"));
  // What every page needs.
  v1::ListRequest probe;
  probe.set_page_size(1);
  absl::Status known = absl::InvalidArgumentError("give a token");
  if (!MayBeToken(token)) {
    known = absl::UnauthenticatedError("this is no token");
  } else if (!token.empty()) {
    known = ApiClient::As(client_, token).List(probe).status();
  }
  if (!known.ok())
    return Render(LoginPage(std::string(known.message()), next), HttpStatusOf(known), false);
  HttpAnswer answer = Redirect(next);
  answer.headers.emplace_back("Set-Cookie", absl::StrCat(kCookie, "=", sessions_.Begin(token),
                                                         "; Path=/; HttpOnly; SameSite=Strict"));
  return answer;
}

HttpAnswer Site::LogOut(const HttpQuestion& request) {
  const auto cookie = request.headers.find("Cookie");
  if (cookie != request.headers.end()) sessions_.End(CookieValue(cookie->second, kCookie));
  HttpAnswer answer = Redirect("/login");
  answer.headers.emplace_back(
      "Set-Cookie", absl::StrCat(kCookie, "=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"));
  return answer;
}

}  // namespace ll
