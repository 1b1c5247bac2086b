#!/usr/bin/env python3
"""The documents' commands, run one page after the other, as a reader would; what they print is compared where a page shows it.

  commands_test.py BIN_DIR [PAGE...]   (pages as docs/data.md; default: all)
"""
import pathlib
import shutil
import sys
import tempfile
import time
import unittest

import blocks
import sandbox

PAGES = [argument for argument in sys.argv[1:] if argument.endswith(".md")]
sys.argv = [argument for argument in sys.argv if not argument.endswith(".md")]


class CommandsTest(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        folder = tempfile.mkdtemp(prefix="ll-docs-")
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        cls.root = pathlib.Path(folder)
        cls.places = {}
        cls.addClassCleanup(lambda: [place.stop() for place in cls.places.values()])
        sandbox.make_files(cls.root)

    def place(self, kind):
        if kind not in self.places:
            self.places[kind] = sandbox.Place(kind, self.root)
        return self.places[kind]

    def run_block(self, place, block):
        began = time.monotonic()
        code, output = place.run(block.replaced())
        print(f"{block}: {code}, {time.monotonic() - began:.1f} s", flush=True)
        self.assertEqual(code, 0, f"{block}:\n{block.replaced()}\n{output}")
        return output

    def run_page(self, page):
        """All its blocks, in order. A page that starts its own programs gets a shell of its own."""
        printed = ""
        for block in blocks.parse(page, (blocks.ROOT / page).read_text())[0]:
            if block.kind == "file":
                for kind in blocks.PLACES:
                    if kind in self.needed:
                        path = self.place(kind).folder / block.value
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_text(block.text + "\n")
            elif block.kind == "run":
                printed = self.run_block(self.place(block.place()), block)
            elif block.kind == "output":
                wrong = list(blocks.differences(block.text, printed, "numbers vary" in block.value))
                self.assertFalse(wrong, f"{block}: the page shows {wrong}; printed was\n{printed}")
        if "shell" in self.places:
            self.places.pop("shell").stop()
            shutil.rmtree(self.root / "shell")

    def test_pages(self):
        for page in PAGES or blocks.pages():
            found = blocks.parse(page, (blocks.ROOT / page).read_text())[0]
            self.needed = {block.place() for block in found if block.kind == "run"}
            if self.needed:
                with self.subTest(page=page):
                    self.run_page(page)


if __name__ == "__main__":
    sandbox.own_network(PAGES)
    unittest.main(verbosity=2)
