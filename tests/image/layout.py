"""The image as a registry would give it: an OCI layout on disk."""

import json
import tarfile
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class Image:
    """The one image of a layout."""

    def __init__(self, layout: Path) -> None:
        self._layout = layout
        index = json.loads((layout / "index.json").read_text())
        (self.descriptor,) = index["manifests"]
        self.manifest = json.loads(self._blob(self.descriptor).read_text())
        self.config: Json = json.loads(self._blob(self.manifest["config"]).read_text())

    @property
    def compressed_bytes(self) -> int:
        """What a node downloads."""
        return sum(layer["size"] for layer in self.manifest["layers"])

    def unpack(self, root: Path) -> None:
        """Writes the root file system. White-outs do not occur: the image begins from scratch and only adds."""
        for layer in self.manifest["layers"]:
            with tarfile.open(self._blob(layer)) as archive:
                archive.extractall(root)

    def _blob(self, descriptor: Json) -> Path:
        algorithm, digest = descriptor["digest"].split(":")
        return self._layout / "blobs" / algorithm / digest
