"""Dependencies point one way: who may include whom, and what each half of the system may link."""
import re

from tree import finding

# Folder -> folders it may use, most specific folder first. ARCHITECTURE.md explains the picture.
TORCH_FREE_MODEL = {"model/spec", "model/plan"}
REPORT = {"model/report"}  # results for people, torch-free
DATA = {"model/text", "model/data", "model/chat", "model/data/cli"}  # torch-free too; for those who make training data
LAYERS = [
    ("base", {"base"}),
    ("storage", {"storage", "base"}),  # object stores, torch-free
    ("proto", {"proto"}),
    ("rpc", {"rpc", "base", "proto"}),
    ("tracker", {"tracker", "storage", "proto", "base"}),  # what other tools are told
    ("model/spec", {"model/spec", "base"}),
    ("model/plan", {"model/plan", "model/spec", "base"}),
    ("model/report", {"model/report", "base"}),
    ("model/text", {"model/text", "base"}),
    ("model/chat", {"model/chat", "model/data", "model/text", "base"}),
    ("model/data", {"model/data", "model/text", "base"}),
    ("model/data/cli", {"base"} | DATA),
    ("model", {"model", "kernels", "base"} | TORCH_FREE_MODEL),
    ("kernels", {"kernels", "base"}),
    ("coordinator/core", {"coordinator/core", "base"}),
    ("coordinator/store", {"coordinator/store", "coordinator/core", "base"}),
    ("coordinator/web", {"coordinator/web", "coordinator", "coordinator/core", "rpc", "proto", "base"} | TORCH_FREE_MODEL | REPORT),
    ("coordinator", {"coordinator", "coordinator/web", "coordinator/core", "coordinator/store", "rpc", "proto", "base", "tracker", "storage"} | TORCH_FREE_MODEL),
    ("worker/agent", {"worker/agent", "rpc", "proto", "base"} | TORCH_FREE_MODEL),
    ("worker/trainer", {"worker/trainer", "storage", "model", "kernels", "base"} | TORCH_FREE_MODEL | DATA | REPORT),
    ("scaler", {"scaler", "rpc", "proto", "base", "storage"}),
    ("llctl", {"llctl", "rpc", "proto", "base", "tracker", "model/data/cli"} | TORCH_FREE_MODEL | REPORT),
]
# Only these folders may include headers of LibTorch; only the others those of gRPC, Protobuf and spdlog: the wheel's
# own copies of Protobuf and fmt clash with the distribution's.
TORCH_FOLDERS = {"model", "worker/trainer"}
TORCH_KERNEL_FILE = re.compile(r"torch[^/]*$|/(ops|testing)\.h$|_(test|bench)\.cc$")  # the thin files that adapt tensors
TORCH_INCLUDE = re.compile(r'#include\s*[<"](torch|ATen|c10|caffe2)/')
SERVICE_INCLUDE = re.compile(r'#include\s*[<"](grpc|grpcpp|google/protobuf|google/rpc|spdlog|prometheus|proto)/')
OWN_INCLUDE = re.compile(r'#include\s*"([^"]+)"')

# What would make the scheduling core differ from run to run, or wait.
CORE_BANS = [
    (r"\babsl::Now\s*\(|\bRealClock\b|system_clock|steady_clock|\bclock_gettime\b|\btime\s*\(\s*(nullptr|NULL|0)\s*\)",
     "reads a clock; time comes in with the event"),
    (r"\b(sleep|usleep|nanosleep|SleepFor|sleep_for|sleep_until)\s*\(", "sleeps"),
    (r"\b(rand|srand|random)\s*\(|random_device|mt19937|SystemRandom|absl::BitGen", "has randomness of its own"),
    (r"std::(jthread|thread|async|mutex|shared_mutex|condition_variable|atomic)\b|absl::(Mutex|Notification)",
     "uses threads; one thread at a time runs the core"),
    (r"\b(fopen|getenv|popen|system)\s*\(|std::(i|o)?fstream|base/file\.h|base/subprocess\.h", "does I/O"),
]
# A wall clock may be set while somebody waits by it (base/steady_cond_var.h).
STEADY_FOLDERS = ("base/", "llctl/", "rpc/", "worker/")
WALL_WAITS = re.compile(r"\b(AwaitWith|WaitWith|LockWhenWith)(Timeout|Deadline)\b|absl::Now\(\)\s*[-<>]|[-<>]=?\s*absl::Now\(\)")
# Looking up is fine; going through one is not, and only its author can say.
HASH_CONTAINER = re.compile(r"std::unordered_(map|set)\b|absl::(flat|node)_hash_(map|set)\b")
HASH_CONTAINER_REMARK = "never iterated"
# base/temp_dir.h is the way; a fuzz target has no GoogleTest, and its folder is in memory.
TEST_HELPERS = re.compile(r"^tests/|(^|/)testing\.h$|_for_test\.h$|_case\.h$")
OWN_FOLDERS = {"tests/fuzz/fuzz_token_file.cc"}
OWN_FOLDER = re.compile(r"\bmkdtemp\s*\(|\b(testing::TempDir|tmpnam|tempnam)\s*\(\s*\w*\s*\)")


def layer_of(path):
    for folder, allowed in sorted(LAYERS, key=lambda layer: -len(layer[0])):
        if path == folder or path.startswith(folder + "/"):
            return folder, allowed
    return None, None


def is_test(name):
    return re.search(r"(_test|_bench)\.(cc|h)$|/(fake|mem|test|scripted)_[^/]*$", name) is not None


def check_includes(tree):
    """A folder includes only from its own layer and the layers below."""
    known = set(tree.names)
    for name in tree.sources():
        folder, allowed = layer_of(name)
        if folder is None:
            continue
        torch_ok = folder in TORCH_FOLDERS or (folder == "kernels" and TORCH_KERNEL_FILE.search(name))
        service_ok = folder not in TORCH_FOLDERS | TORCH_FREE_MODEL | DATA | REPORT | {"kernels", "base", "storage", "coordinator/core"}
        for number, line in tree.lines(name):
            if TORCH_INCLUDE.search(line) and not torch_ok:
                yield finding(name, number, "LibTorch's headers belong to model/, worker/trainer/ and kernels/*torch*")
            if SERVICE_INCLUDE.search(line) and not service_ok:
                yield finding(name, number, f"{folder} includes neither gRPC nor Protobuf nor spdlog")
            match = OWN_INCLUDE.search(line)
            if not match:
                continue
            target, _ = layer_of(match.group(1))
            generated = match.group(1).startswith("proto/")
            if target is None or (match.group(1) not in known and not generated):
                continue
            if target not in allowed and not (is_test(name) and target == "base"):
                yield finding(name, number, f"{folder} must not include {target}")


def check_links(tree):
    """The link graph in the CMake files points the same way as the includes."""
    targets = {}  # target -> (folder, file, line)
    uses = []     # (target, folder, file, line, dependency)
    call = re.compile(r"\b(ll_library|ll_torch_library|ll_binary|ll_proto)\s*\(\s*([\w-]+)([^)]*)\)")
    for name in tree.names:
        if not name.endswith("CMakeLists.txt") or name.startswith("tests/"):
            continue
        folder = name.rpartition("/")[0]
        text = re.sub(r"#.*", "", tree.text(name))
        for match in call.finditer(text):
            kind, target, body = match.groups()
            line = text.count("\n", 0, match.start()) + 1
            targets[target] = (folder, name, line)
            dependencies = body.partition("DEPS")[2].split()
            if kind == "ll_torch_library":
                dependencies.append("ll_torch")
            uses += [(target, folder, name, line, dependency) for dependency in dependencies]
    for target, folder, name, line, dependency in uses:
        layer, allowed = layer_of(folder)
        if layer is None:
            continue
        if dependency == "ll_torch" and layer not in TORCH_FOLDERS | {"kernels"}:
            yield finding(name, line, f"{target} must not link LibTorch")
        if dependency in targets:
            used, _ = layer_of(targets[dependency][0])
            if used is not None and used not in allowed:
                yield finding(name, line, f"{target} ({layer}) must not link {dependency} ({used})")
    # What a program links in the end, through everything below it.
    graph = {}
    for target, _, _, _, dependency in uses:
        graph.setdefault(target, set()).add(dependency)
    for target in targets:
        reached, open_ends = set(), [target]
        while open_ends:
            for dependency in graph.get(open_ends.pop(), ()):
                if dependency not in reached:
                    reached.add(dependency)
                    open_ends.append(dependency)
        for clashing, what in (("ll_torch", "LibTorch"), ("ll_sentencepiece", "SentencePiece")):
            if clashing in reached and reached & {"ll_proto", "ll_rpc"}:
                _, name, line = targets[target]
                yield finding(name, line, f"{target} links {what} and Protobuf into one program")


def check_core(tree):
    """The scheduling core is a pure function of its events."""
    for name in tree.sources():
        if not name.startswith("coordinator/core/") or is_test(name):
            continue
        for number, line in tree.lines(name):
            code = line.partition("//")[0]
            for pattern, why in CORE_BANS:
                if re.search(pattern, code):
                    yield finding(name, number, f"coordinator/core {why}")
            if HASH_CONTAINER.search(code) and HASH_CONTAINER_REMARK not in line:
                yield finding(name, number, "the order of a hash container differs from run to run: use a sorted one, or "
                                            f"say '{HASH_CONTAINER_REMARK}' beside it")


def check_waits(tree):
    """Waits and durations are measured by a clock that only goes forward."""
    for name in tree.sources():
        if not name.startswith(STEADY_FOLDERS) or is_test(name):
            continue
        for number, line in tree.lines(name):
            if WALL_WAITS.search(line.partition("//")[0]):
                yield finding(name, number, "waits by the wall clock, which may be set: Clock::Steady, SteadyCondVar")


def check_temp_dirs(tree):
    """A test's files lie in a TempDir: removed in the end, and no other process's."""
    for name in tree.sources():
        if not (is_test(name) or TEST_HELPERS.search(name)) or name in OWN_FOLDERS:
            continue
        for number, line in tree.lines(name):
            if OWN_FOLDER.search(line.partition("//")[0]):
                yield finding(name, number, "a folder of its own: TempDir of base/temp_dir.h")
