"""Bundles for tests, written into directories; and wheels, which are nothing but zip files."""

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

GREETING = """
from skep.flow import Context, step
from greeting.words import Words, VERSION

@step
async def find(cx: Context[None], name: str) -> Words:
    from greeting import words
    assert words is not None and words.VERSION == VERSION
    return Words(VERSION, name)

@step
async def say(cx: Context[None], words: Words) -> str:
    import greeting.words
    return f"{words.text}, {words.name} ({greeting.words.VERSION})"
"""

GREET = """
flow: greet
input: {name: str}
steps:
  found: {use: steps.find, with: {name: $input.name}}
  gate:  {wait: signal, with: {name: go}, after: [found]}
  said:  {use: steps.say, with: {words: $found}, after: [gate]}
output: {said: $said}
"""

HELLO = """
flow: hello
input: {name: str}
steps:
  found: {use: steps.find, with: {name: $input.name}}
  said:  {use: steps.say, with: {words: $found}}
output: {said: $said}
"""


def write(directory: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else dedent(content).lstrip().encode())
    return directory


def greeting(directory: Path, version: str, *, process: str = "worker", **more: str) -> Path:
    """Two modules that import each other's package by name; what it says tells the version of both."""
    words = f"""
        import msgspec
        VERSION = "hello {version}"
        class Words(msgspec.Struct):
            text: str
            name: str
        """
    files = {
        "bundle.yaml": f"""
            bundle: greeting
            version: "{version}"
            steps: [greeting.steps]
            process: {process}
            """,
        "greeting/__init__.py": "",
        "greeting/words.py": words,
        "greeting/steps.py": GREETING,
        "greet.yaml": GREET,
        "flows/hello.yaml": HELLO,
    }
    return write(directory, files | more)


def single(
    directory: Path, code: str, *, name: str = "one", flow: str = "", head: str = "", **more: str
) -> Path:
    """A bundle of one module, `<name>_code`, whose steps are `<name>.…`, with `head` in its manifest."""
    manifest = f'bundle: {name}\nversion: "1"\nsteps: [{name}_code]\nprefix: {name}\n{dedent(head)}'
    header = "import asyncio, os\nfrom skep.flow import Context, Retry, step\n"
    files = {"bundle.yaml": manifest, f"{name}_code.py": header + dedent(code)}
    return write(directory, files | ({"flow.yaml": flow} if flow else {}) | more)


def wheel(folder: Path, name: str, version: str, code: str) -> Path:
    """A wheel with one module of that name."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
    target = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for path, text in (files | {f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}).items():
            archive.writestr(path, text)
    return target


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
