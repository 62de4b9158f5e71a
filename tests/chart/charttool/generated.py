"""Files of the repository that a machine writes: written, or compared with what would be written."""

from pathlib import Path

from .paths import ROOT


def settle(wanted: dict[Path, str], *, check: bool, command: str) -> int:
    """Writes the files, or with `check` reports those that differ. Returns how many differed with `check`, else 0."""
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        name = path.relative_to(ROOT)
        if check:
            print(f"{name} is not what its source gives: run cargo xtask chart {command}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
            print(f"wrote {name}")
    return len(stale) if check else 0
