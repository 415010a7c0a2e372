"""Encryption at rest, behind the codec port.

* ``wrapping``: what a key that wraps data keys can do; ``local_keys`` and ``kms_keys`` are the two there are
* ``data_keys``: data keys in use, bounded by messages, bytes and age
* ``envelope_codec``: the codec; ``opening`` makes it, or the identity codec where there are no keys
* ``rewrapping``: stored bytes with their data keys wrapped by the current key
"""
