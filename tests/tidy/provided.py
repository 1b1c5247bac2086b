"""Every file includes what it uses of the standard library and Abseil, itself or through the project's headers.

The precompiled headers hide an include that is missing until a build leaves them out, as ThreadSanitizer's does.
"""
import re

from tree import finding

STD = {
    "algorithm": r"(all_of|any_of|none_of|sort|stable_sort|min_element|max_element|find_if|count_if|remove_if|copy_if|transform|reverse|"
                 r"unique|nth_element|clamp|fill_n|is_sorted|lower_bound|upper_bound|max|min)\(",
    "array": r"array<", "atomic": r"atomic\b", "chrono": r"chrono\b",
    "cmath": r"(sqrt|pow|exp|log|log2|log1p|expm1|isnan|isinf|isfinite|floor|ceil|round|lround|llround|fabs|cos|sin)\(",
    "condition_variable": r"condition_variable\b", "cstdio": r"(printf|fprintf|snprintf|fputs|puts|fopen|fwrite|fflush|FILE)\b",
    "cstring": r"(memcpy|memset|memcmp|memmove|strlen|strcmp|strerror)\b", "deque": r"deque<", "filesystem": r"filesystem\b",
    "fstream": r"[io]?fstream\b", "functional": r"function<", "limits": r"numeric_limits\b", "map": r"(multi)?map<",
    "memory": r"(unique_ptr|shared_ptr|weak_ptr|make_unique|make_shared)\b", "mutex": r"(mutex|lock_guard|unique_lock|scoped_lock)\b",
    "numeric": r"(accumulate|iota)\(", "optional": r"(optional<|nullopt\b)", "set": r"(multi)?set<", "sstream": r"[io]?stringstream\b",
    "string": r"string\b", "string_view": r"string_view\b", "thread": r"thread\b", "tuple": r"(tuple|tie|make_tuple)\b",
    "unordered_map": r"unordered_map\b", "variant": r"(variant<|visit\(|get_if<)", "vector": r"vector<",
}
ABSL = {
    "cleanup/cleanup.h": r"(Cleanup|MakeCleanup)\b", "container/flat_hash_map.h": r"flat_hash_map\b",
    "container/flat_hash_set.h": r"flat_hash_set\b", "status/status.h": r"(\w+Error\(|OkStatus\b|Status\b|StatusCode\b)",
    "status/statusor.h": r"StatusOr\b", "strings/ascii.h": r"(AsciiStr\w+|ascii_\w+|Strip(Leading|Trailing)?AsciiWhitespace)\b",
    "strings/escaping.h": r"(C(Hex)?Escape|Utf8SafeCEscape|BytesToHexString|HexStringToBytes|(WebSafe)?Base64\w+)\b",
    "strings/match.h": r"(StrContains|StartsWith|EndsWith|EqualsIgnoreCase|StartsWithIgnoreCase|EndsWithIgnoreCase)\b",
    "strings/numbers.h": r"Simple(Hex)?Ato\w\b", "strings/str_cat.h": r"(StrCat|StrAppend|AlphaNum|Hex)\b",
    "strings/str_format.h": r"(StrFormat|StreamFormat|StrAppendFormat|PrintF|FPrintF)\b", "strings/str_join.h": r"StrJoin\b",
    "strings/str_replace.h": r"StrReplaceAll\b", "strings/str_split.h": r"(StrSplit|SkipEmpty|ByChar|ByString|ByAnyChar|MaxSplits)\b",
    "strings/strip.h": r"(Consume|Strip)(Prefix|Suffix)\b", "synchronization/mutex.h": r"(Mutex|MutexLock|ReaderMutexLock|CondVar)\b",
    "synchronization/notification.h": r"Notification\b", "time/clock.h": r"(Now\(|SleepFor|GetCurrentTimeNanos)",
    "time/time.h": r"(Time|Duration|FormatTime|ParseTime|FormatDuration|Seconds|Milliseconds)\b", "types/span.h": r"(Span|MakeSpan)\b",
}
HEADERS = {**{header: re.compile(r"\bstd::" + name) for header, name in STD.items()},
           **{"absl/" + header: re.compile(r"\babsl::" + name) for header, name in ABSL.items()}}


def check_provided(tree):
    """No file leans on a header that only the precompiled ones, or another library's, bring along."""
    direct = {name: set(re.findall(r'#include [<"]([^>"]+)[>"]', tree.text(name))) for name in tree.sources()}
    for name in tree.sources():
        reached, new = set(), direct[name]
        while new:
            reached |= new
            new = set().union(*(direct.get(header, set()) for header in new)) - reached
        lines = [(number, line.partition("//")[0]) for number, line in tree.lines(name)]
        for header in sorted(HEADERS.keys() - reached):
            used = next(((number, match) for number, line in lines if (match := HEADERS[header].search(line))), None)
            if used:
                number, match = used
                yield finding(name, number, f"{match.group().rstrip('(<')} needs #include of {header}")
