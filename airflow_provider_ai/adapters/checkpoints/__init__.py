"""Checkpoints: what was paid for stays paid for.

* ``storage``: named blobs, append-only logs and locks; on a file system and on an object store
* ``segments``: outcome logs turned into compact, checksummed Arrow segments and back
* ``documents``: small JSON files that carry a checksum
* ``partition``: the checkpoint of one partition, from the first record to the seal
* ``plans``: manifests, and which pass (epoch, round) over them is current
"""
