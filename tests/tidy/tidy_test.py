#!/usr/bin/env python3
"""Each check finds what it is there for, in a small repository made for it, and accepts what is right."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import builds  # noqa: E402
import layers  # noqa: E402
import provided  # noqa: E402
import texts   # noqa: E402
from tree import Tree  # noqa: E402

UNFINISHED = "TO" + "DO"


class TidyTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def tree(self, files):
        for name, text in files.items():
            path = pathlib.Path(self.folder.name) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Tree(self.folder.name)

    def expect(self, check, files, *parts):
        """`check` finds exactly one thing in `files` for each of `parts`, which name it."""
        findings = list(check(self.tree(files)))
        self.assertEqual(len(findings), len(parts), findings)
        for part, line in zip(parts, findings):
            self.assertIn(part, line)

    def test_includes_point_down(self):
        self.expect(layers.check_includes, {
            "base/ids.h": '#pragma once\n',
            "rpc/channel.h": '#include "base/ids.h"\n#include "proto/job.pb.h"\n',
            "coordinator/core/a.cc": '#include "base/ids.h"\n#include "proto/job.pb.h"\n',
            "base/up.cc": '#include "rpc/channel.h"\n',
            "llctl/b.cc": '#include <torch/torch.h>\n',
            "model/c.cc": '#include <ATen/ATen.h>\n#include <spdlog/spdlog.h>\n',
            "kernels/x/x_torch.cc": '#include <ATen/ATen.h>\n',
        }, "base/up.cc:1: base must not include rpc", "coordinator/core/a.cc:2: coordinator/core includes neither",
            "coordinator/core/a.cc:2: coordinator/core must not include proto", "llctl/b.cc:1: LibTorch",
            "model/c.cc:2: model includes neither")

    def test_what_is_used_is_included(self):
        self.expect(provided.check_provided, {
            "base/ids.h": '#include <string>\n#include "absl/status/status.h"\n',
            "base/own.cc": '#include "base/ids.h"\nabsl::Status A(std::string);  // std::vector<int>\n',
            "base/lacks.cc": '#include "base/ids.h"\n\nstd::string A() { return absl::StrCat(1); }\nstd::vector<int> b;\n',
        }, "base/lacks.cc:3: absl::StrCat needs #include of absl/strings/str_cat.h", "base/lacks.cc:4: std::vector needs")

    def test_link_graph_points_down(self):
        self.expect(layers.check_links, {
            "base/CMakeLists.txt": "ll_library(ll_base SRCS a.cc DEPS absl::status)\n",
            "proto/CMakeLists.txt": "ll_proto(ll_proto job.proto)\n",
            "coordinator/core/CMakeLists.txt": "ll_library(ll_core SRCS a.cc\n  DEPS ll_base ll_proto)\n",
            "worker/trainer/CMakeLists.txt": "ll_torch_library(ll_trainer_lib SRCS a.cc DEPS ll_base)\n",
            "llctl/CMakeLists.txt": "# DEPS ll_torch\nll_binary(llctl SRCS a.cc DEPS ll_proto)\n",
        }, "ll_core (coordinator/core) must not link ll_proto (proto)")

    def test_torch_and_protobuf_do_not_meet_in_a_program(self):
        self.expect(layers.check_links, {
            "proto/CMakeLists.txt": "ll_proto(ll_proto job.proto)\n",
            "rpc/CMakeLists.txt": "ll_library(ll_rpc SRCS a.cc DEPS ll_proto)\n",
            "llctl/CMakeLists.txt": "ll_binary(ll-ctl SRCS a.cc DEPS ll_rpc)\n",
            "worker/trainer/CMakeLists.txt": "ll_torch_library(ll_x SRCS a.cc DEPS ll_rpc)\n"
                                             "ll_binary(ll-trainer SRCS b.cc DEPS ll_torch)\n",
        }, "ll_x (worker/trainer) must not link ll_rpc (rpc)", "ll_x links LibTorch and Protobuf")

    def test_sentencepiece_and_protobuf_do_not_meet_in_a_program(self):
        self.expect(layers.check_links, {
            "proto/CMakeLists.txt": "ll_proto(ll_proto job.proto)\n",
            "model/text/CMakeLists.txt": "ll_library(ll_sentencepiece SRCS a.cc)\n"
                                         "ll_library(ll_text SRCS b.cc DEPS ll_sentencepiece)\n",
            "model/data/cli/CMakeLists.txt": "ll_library(ll_flags SRCS a.cc DEPS ll_text)\n",
            "llctl/CMakeLists.txt": "ll_binary(llctl SRCS a.cc DEPS ll_proto ll_flags)\n",
        }, "llctl links SentencePiece and Protobuf")

    def test_the_core_is_pure(self):
        self.expect(layers.check_core, {
            "coordinator/core/a.cc": "auto t = absl::Now();\n// absl::Now() in a comment is fine\nstd::thread t;\n",
            "coordinator/core/b.h": "absl::Time time() const;\nstd::unordered_map<int, int> m;\n"
                                    "absl::flat_hash_set<int> s;  // never iterated\n",
            "coordinator/core/a_test.cc": "std::thread t;\n",
            "coordinator/runtime/c.cc": "std::thread t;\n",
        }, "a.cc:1: coordinator/core reads a clock", "a.cc:3: coordinator/core uses threads",
            "b.h:2: the order of a hash container")

    def test_waits_are_steady(self):
        self.expect(layers.check_waits, {
            "worker/agent/a.cc": "while (absl::Now() < end) {}\nauto left = end - absl::Now();\nauto t = absl::Now();\n",
            "rpc/b.cc": "mu_.AwaitWithTimeout(absl::Condition(&stop_), pause);\ncontext.set_deadline(absl::Now() + pause);\n",
            "worker/agent/a_test.cc": "while (absl::Now() < end) {}\n", "llctl/c.cc": "while (absl::Now() < end) {}\n",
            "tracker/d.cc": "while (absl::Now() < end) {}\n",
        }, "llctl/c.cc:1", "rpc/b.cc:1", "a.cc:1", "a.cc:2")

    def test_temporary_folders_have_one_maker(self):
        self.expect(layers.check_temp_dirs, {
            "base/temp_dir.h": "mkdtemp(path_.data());\n", "worker/a.cc": "mkdtemp(made.data());\n",
            "worker/a_test.cc": "const TempDir dir;\nmkdtemp(dir);  // mkdtemp(\n// mkdtemp(x)\n",
            "rpc/testing.h": "auto f = ::testing::TempDir() + name;\n", "tests/b/c.cc": "mkdtemp(pattern);\n",
        }, "rpc/testing.h:1", "tests/b/c.cc:1", "worker/a_test.cc:2")

    def test_leftovers(self):
        self.expect(texts.check_leftovers, {
            "a.cc": f"// {UNFINISHED}: later\n", "b.md": "see /" + "root/notes\n", "c.cc": "int todo_list;\n",
            "d.sh": 'x="$HOME/' + 'work/x" /usr/share\n'}, "a.cc:1", "b.md:1")

    def test_markdown_links(self):
        self.expect(texts.check_links, {
            "README.md": "# A title, here\n[a](docs/x.md) [b](https://example.org/) [c](#a-title-here)\n"
                         "[d](gone.md) [e](docs/x.md#gone)\n```\n[f](gone)\n```\n",
            "docs/x.md": "# X\n[up](../README.md#a-title-here)\n"}, "gone.md: no such file", "docs/x.md#gone: no such heading")

    def test_licence(self):
        self.expect(texts.check_licence, {"README.md": ""}, "missing")
        self.expect(texts.check_licence, {"LICENSE": "all rights reserved"}, "not the text")
        self.expect(texts.check_licence, {"LICENSE": "Apache License\nVersion 2.0"})

    def test_include_guards(self):
        self.expect(texts.check_headers_once, {"a.h": "#pragma once\n", "b.h": "int x;\n"}, "b.h:1")

    def test_registered(self):
        self.expect(builds.check_registered, {
            "a/CMakeLists.txt": "ll_test(t SRCS x_test.cc sub/y_test.cc)\n", "a/x_test.cc": "", "a/sub/y_test.cc": "",
            "b/CMakeLists.txt": "foreach(n one two)\n  add_test(NAME ${n} COMMAND ${n}_test.py)\nendforeach()\n",
            "a/z_test.cc": "", "b/one_test.py": "", "b/three_test.py": ""}, "a/z_test.cc", "b/three_test.py")

    def test_format(self):
        self.expect(builds.check_format, {
            ".clang-format": "BasedOnStyle: Google\n", "good.cc": "int x = 1;\n", "bad.cc": "int   x=1 ;\n"}, "bad.cc")

    def test_headers_compile_alone(self):
        tree = self.tree({
            "a/good.h": "#pragma once\n#include <string>\ninline std::string F() { return {}; }\n",
            "a/bad.h": "#pragma once\ninline std::string F() { return {}; }\n",
            "a/heavy.h": "#include <torch/torch.h>\n",
            "a/proven.h": "#error the build has seen it\n", "a/proven.cc": '#include "a/proven.h"\n#include "a/bad.h"\n',
            "build/compile_commands.json": '[{"file": "%s/a/x.cc", "command": "c++ -std=c++20 -c x.cc"},'
                                           ' {"file": "%s/a/proven.cc", "command": "c++ -std=c++20 -c proven.cc"}]'
                                           % ((pathlib.Path(self.folder.name).resolve(),) * 2)})
        findings = list(builds.check_headers(tree, pathlib.Path(self.folder.name) / "build"))
        self.assertEqual(len(findings), 1, findings)
        self.assertIn("a/bad.h", findings[0])

    def test_lengths(self):
        body = "void F() {\n" + "  x();\n" * 80 + "}\n"
        self.expect(texts.report_lengths, {"a.cc": body, "b.cc": "int x;  // " + "y" * 100 + "\n"},
                    "function of 82 lines", "line of 111 characters")


if __name__ == "__main__":
    unittest.main()
