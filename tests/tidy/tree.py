"""The files that the checks look at, and what a check returns."""
import pathlib
import subprocess

SOURCE_SUFFIXES = (".h", ".cc", ".cu", ".cuh")


class Tree:
    """The repository's own files: tracked ones, and new ones that git does not ignore."""

    def __init__(self, root):
        self.root = pathlib.Path(root).resolve()
        try:
            listing = subprocess.run(
                ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
                cwd=self.root, capture_output=True, check=True).stdout.decode().split("\0")
            names = [name for name in listing if name]
        except (OSError, subprocess.CalledProcessError):  # an unpacked archive: everything but build output
            names = [str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()]
            names = [name for name in names if not name.startswith(("build", ".git/"))]
        self.names = sorted(name for name in set(names) if (self.root / name).is_file())
        self._texts = {}

    def text(self, name):
        if name not in self._texts:
            self._texts[name] = (self.root / name).read_bytes().decode("utf-8", errors="replace")
        return self._texts[name]

    def lines(self, name):
        """(number, line) pairs, from 1."""
        return enumerate(self.text(name).splitlines(), 1)

    def sources(self):
        return [name for name in self.names if name.endswith(SOURCE_SUFFIXES)]

    def texts(self):
        """Every file that people read or write; binaries are those with a zero byte."""
        for name in self.names:
            with open(self.root / name, "rb") as file:
                if b"\0" not in file.read(4096):
                    yield name


def finding(name, line, message):
    return f"{name}:{line}: {message}"
