"""How one backup is made, where its schedule wants it otherwise than the rest."""

from __future__ import annotations

from dataclasses import dataclass

from replicator.core.codec import CODEC_NONE, DEFAULT, Compression


@dataclass(frozen=True, slots=True)
class Making:
    """None is as usual. ``anew``: a full refers to no pack of an earlier one."""

    compress: bool | None = None
    verify: bool | None = None
    anew: bool = False

    def compression(self, usual: Compression) -> Compression:
        if self.compress is None or self.compress == (usual.codec != CODEC_NONE):
            return usual
        return DEFAULT if self.compress else Compression(CODEC_NONE, 0)

    def verification(self, usual: bool) -> bool:
        return usual if self.verify is None else self.verify


AS_USUAL = Making()
