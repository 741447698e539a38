"""What this version of Kubernetes needs to be built by a newer Go than it was written for.

Since Go 1.18 iterators of maps are filled in where the caller has room for them; the vendored reflect2, by
which API servers read the metadata of custom resources, expects to be given them, and crashes.
"""

from pathlib import Path

from tests.cluster.kubernetes.progress import Failed

_REFLECT = "vendor/github.com/modern-go/reflect2"
_EDITS = (
    (
        f"{_REFLECT}/unsafe_link.go",
        "func mapiterinit(rtype unsafe.Pointer, m unsafe.Pointer) *hiter",
        "func mapiterinit(rtype unsafe.Pointer, m unsafe.Pointer, it *hiter)",
    ),
    (
        f"{_REFLECT}/unsafe_link.go",
        "\t// rest fields are ignored\n",
        "\t// As large as the runtime's own: pointers first, then numbers.\n"
        "\tpointers [6]unsafe.Pointer\n\tnumbers [4]uintptr\n",
    ),
    (
        f"{_REFLECT}/unsafe_map.go",
        "\treturn &UnsafeMapIterator{\n\t\thiter:      mapiterinit(type2.rtype, *(*unsafe.Pointer)(obj)),\n",
        "\tvar it hiter\n\tmapiterinit(type2.rtype, *(*unsafe.Pointer)(obj), &it)\n"
        "\treturn &UnsafeMapIterator{\n\t\thiter:      &it,\n",
    ),
)


def mend(tree: Path) -> None:
    """The source is as it must be; may be repeated.  Raises Failed: it is not what was expected."""
    for name, before, after in _EDITS:
        file = tree / name
        text = file.read_text()
        if after in text:
            continue
        if text.count(before) != 1:
            raise Failed(f"{name} of the source is not as expected: is it another version of Kubernetes?")
        file.write_text(text.replace(before, after))
