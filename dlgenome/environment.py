"""What is installed beside dlgenome, where that can spoil a run."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from dlgenome.errors import UsageError


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def check_modisco() -> None:
    """Return quietly unless `modisco` and `modisco-lite` are both installed; then raise UsageError.

    Both own the package `modiscolite` and the script `modisco`, so whichever came last has overwritten
    files of the other and neither can be trusted.
    """
    found = {name: _installed(name) for name in ("modisco", "modisco-lite")}
    if all(found.values()):
        both = " and ".join(f"{name} {number}" for name, number in found.items())
        raise UsageError(
            f"{both} are both installed and overwrite each other's files; "
            "run `pip uninstall modisco modisco-lite && pip install modisco-lite`."
        )
