"""The recovery kit: one page on which stands what a restore takes when everything else is gone."""

from __future__ import annotations

from collections.abc import Sequence

from replicator.core.key_ring import KeyRing
from replicator.core.operator_key import OperatorKey
from replicator.core.times import format_time

_KIT = """\
RECOVERY KIT FOR A REPLICATOR REPOSITORY                                  KEEP SECRET
====================================================================================

repository   {repository}
made         {made}
stores       {stores}

{key}

To restore on any machine with Python 3.11 or newer:

  1. In a copy of replicator's source (keep one where this page is): pip install '.[all]'
  2. Give access to the store, as its provider asks for (docs/OPERATIONS.md, Stores).
  3. {give}
  4. replicator ls {store}
  5. replicator restore {store} -o restored.db

The key ring lies in the store itself, in keys/, and is opened by the above. Without
either of the two nothing in there can be read, by anybody.
"""


def kit_text(ring: KeyRing, stores: Sequence[str], key: OperatorKey, now: int) -> str:
    if key.passphrase:
        shown = "passphrase   (the one you remember: it is not printed)\n\n             " + "_" * 60
        give = "export BACKUP_ENCRYPTION_PASSPHRASE='…'"
    else:
        text = key.secret.hex()
        groups = [text[i : i + 8] for i in range(0, len(text), 8)]
        shown = f"key          {' '.join(groups[:4])}\n             {' '.join(groups[4:])}\n"
        shown += f"fingerprint  {key.fingerprint}"
        give = "export BACKUP_ENCRYPTION_KEY='…'       (the key above, without blanks)"
    return _KIT.format(
        repository=ring.repository, made=format_time(now), stores="\n             ".join(stores),
        store=stores[0], key=shown, give=give,
    )  # fmt: skip
