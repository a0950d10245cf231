#!/usr/bin/env python3
"""A second reader of vaults, written from docs/format.md alone, in another language on purpose.

    reader.py STORE KEY_FILE [--passphrase P] [--no-index]

Restores every disk of every point into memory and prints a JSON list: machine, name, point, and the size and
SHA-256 of each disk. With --no-index it finds chunks by the packs' footers instead of the index.
It favours being readable over being fast, and it trusts nothing that it can check.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import struct
import sys
import unicodedata

import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PAGE = 4096
SEGMENT_PAGES = 4096
SEGMENT = PAGE * SEGMENT_PAGES
MAX_RAW = 1024 * 1024
DATA, NODE = 1, 2


class Damaged(Exception):
    pass


def check(condition, what):
    if not condition:
        raise Damaged(what)


def code(key, tag, message):
    return hmac.new(key, bytes([tag]) + message, hashlib.sha256).digest()


def sha256(data):
    return hashlib.sha256(data).digest()


def crockford(body):
    value = int.from_bytes(body, "big")
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    return "".join(digits[(value >> (5 * i)) & 31] for i in reversed(range(26)))


# Keys


class Keys:
    def __init__(self, text):
        value = json.loads(text)
        self.vault = value["vault"]
        self.id_key = base64.b64decode(value["idKey"])
        self.seal_keys = [base64.b64decode(key) for key in value["sealKeys"]]
        self.signer = Ed25519PrivateKey.from_private_bytes(base64.b64decode(value["signSeed"]))

    def chunk_key(self, epoch, chunk_id):
        check(epoch < len(self.seal_keys), "sealed with a key that the key file does not have")
        return code(self.seal_keys[epoch], 0, chunk_id)

    def point_key(self, epoch, point):
        check(epoch < len(self.seal_keys), "sealed with a key that the key file does not have")
        return code(self.seal_keys[epoch], 1, point.encode("ascii"))


def read_key_file(path, passphrase):
    with open(path, encoding="utf-8") as file:
        value = json.load(file)
    check(value["holdfast"] == "key-file-1", "no key file")
    wrapped = base64.b64decode(value["keys"])
    if value["protection"] == "none":
        return Keys(wrapped)
    check(value["protection"] == "passphrase" and passphrase is not None, "the key file wants a passphrase")
    n, r, p = (value["scrypt"][name] for name in ("n", "r", "p"))
    check(2**14 <= n <= 2**20 and n & (n - 1) == 0 and r == 8 and p == 1, "unknown scrypt parameters")
    key = hashlib.scrypt(
        unicodedata.normalize("NFC", passphrase).encode("utf-8"),
        salt=base64.b64decode(value["scrypt"]["salt"]),
        n=n, r=r, p=p, dklen=32, maxmem=256 * n * r,
    )  # fmt: skip
    return Keys(AESGCM(key).decrypt(wrapped[:12], wrapped[12:], value["vault"].encode("ascii")))


# Objects


class Store:
    """A vault in a folder."""

    def __init__(self, folder, vault):
        self.root = os.path.join(folder, "v1", vault)

    def get(self, key):
        with open(os.path.join(self.root, *key.split("/")), "rb") as file:
            return file.read()

    def get_range(self, key, offset, length):
        with open(os.path.join(self.root, *key.split("/")), "rb") as file:
            file.seek(offset)
            data = file.read(length)
        check(len(data) == length, f"{key} ends early")
        return data

    def has(self, key):
        return os.path.exists(os.path.join(self.root, *key.split("/")))

    def size(self, key):
        return os.path.getsize(os.path.join(self.root, *key.split("/")))

    def list(self, prefix):
        for folder, _, names in os.walk(os.path.join(self.root, prefix)):
            for name in names:
                yield os.path.relpath(os.path.join(folder, name), self.root).replace(os.sep, "/")


def check_vault(store, keys):
    value = json.loads(store.get("vault"))
    check(value["holdfast"] == "vault", "no vault")
    check(value["formatVersion"] <= 1, f"format version {value['formatVersion']} is newer than this reader")
    check(value["vault"] == keys.vault, "the key file belongs to another vault")
    expected = {"pageBytes": PAGE, "segmentPages": SEGMENT_PAGES}
    check(all(value["parameters"][name] == size for name, size in expected.items()), "unknown parameters")


# Packs


def read_footer(store, key):
    size = store.size(key)
    trailer = store.get_range(key, size - 48, 48)
    digest, offset, length, magic = struct.unpack("<32sII8s", trailer)
    check(magic == b"HFPKEND\x01" and offset + length + 48 == size, f"{key} does not end as a pack")
    footer = store.get_range(key, offset, length)
    check(sha256(footer) == digest, f"the footer of {key} does not match its hash")
    (count,) = struct.unpack_from("<I", footer, 0)
    at, slots = 4, []
    for _ in range(count):
        chunk_at, chunk_length, chunk_hash = struct.unpack_from("<II32s", footer, at)
        header = footer[at + 40 : at + 80]
        (children,) = struct.unpack_from("<H", footer, at + 80)
        check(chunk_at >= 8 and chunk_length >= 72 and chunk_at + chunk_length <= offset, "a slot is out of bounds")
        slots.append({"at": chunk_at, "length": chunk_length, "sha256": chunk_hash, "id": header[8:40]})
        at += 82 + 32 * children
    check(at == len(footer), f"the footer of {key} does not end where it should")
    return slots


def pack_key(pack_id):
    return f"packs/{pack_id.hex()[:2]}/{pack_id.hex()}"


# The index


def index_entries(data):
    """Yields (prefix of 16 bytes, pack key, slot) for each entry of an index segment."""
    check(data[:8] == b"HFINDEX\x01" and sha256(data[:-32]) == data[-32:], "an index segment is damaged")
    count, packs, filter_bytes = struct.unpack_from("<III", data, 8)
    pages = (count + 169) // 170
    fences_at = 64 + 24 * packs + filter_bytes
    pages_at = (fences_at + 8 * pages + 4095) // 4096 * 4096
    check(pages_at + 4096 * pages + 32 == len(data), "an index segment has a wrong size")
    check(filter_bytes == 64 * max(1, (10 * count + 511) // 512), "the filter has a wrong size")
    names = [pack_key(data[64 + 24 * i : 80 + 24 * i]) for i in range(packs)]
    previous = b""
    for i in range(count):
        at = pages_at + i // 170 * 4096 + i % 170 * 24
        prefix, pack, slot = struct.unpack_from("<16sIH", data, at)
        check(previous <= prefix, "the index is not sorted")
        if i % 170 == 0:
            fence_at = fences_at + 8 * (i // 170)
            check(data[fence_at : fence_at + 8] == prefix[:8], "a fence is not its page's first prefix")
        check(passes_filter(data[64 + 24 * packs : fences_at], prefix), "an entry does not pass the filter")
        previous = prefix
        yield prefix, names[pack], slot


def passes_filter(bits, prefix):
    block = int.from_bytes(prefix[4:8], "little") * (len(bits) // 64) >> 32
    value = int.from_bytes(prefix[8:16], "little")
    probes = [(value >> (9 * i)) & 511 for i in range(7)]
    return all(bits[block * 64 + (bit >> 3)] >> (bit & 7) & 1 for bit in probes)


# Chunks


class Chunks:
    def __init__(self, store, keys, use_index):
        self.store = store
        self.keys = keys
        self.footers = {}
        self.places = {}
        if use_index:
            for data in live_segments(store):
                for prefix, key, slot in index_entries(data):
                    self.places.setdefault(prefix, []).append((key, slot))
        else:
            for key in store.list("packs"):
                for number, slot in enumerate(self.footer(key)):
                    self.places.setdefault(slot["id"][:16], []).append((key, number))

    def footer(self, key):
        if key not in self.footers:
            self.footers[key] = read_footer(self.store, key)
        return self.footers[key]

    def read(self, kind, chunk_id):
        failure = Damaged(f"chunk {chunk_id.hex()} is in no pack")
        for key, number in self.places.get(chunk_id[:16], []):
            try:
                slot = self.footer(key)[number]
                check(slot["id"] == chunk_id, "the index and a footer disagree")
                sealed = self.store.get_range(key, slot["at"], slot["length"])
                check(sha256(sealed) == slot["sha256"], "a sealed chunk does not match the footer's hash")
                return open_chunk(self.keys, kind, chunk_id, sealed)
            except Exception as error:  # the next place may be better
                failure = error
        raise failure


def live_segments(store):
    if store.has("state/vault.json"):
        keys = [segment["key"] for segment in json.loads(store.get("state/vault.json"))["generation"]["segments"]]
    else:
        keys = sorted(store.list("index"))
    return (store.get(key) for key in keys)


def open_chunk(keys, kind, chunk_id, sealed):
    magic, has_kind, codec, epoch, raw, has_id = struct.unpack_from("<4sBBHI32s", sealed, 0)
    check(magic == b"HFC1" and has_kind == kind and codec in (0, 1), "no sealed chunk of this kind")
    check(has_id == chunk_id and 1 <= raw <= MAX_RAW, "a sealed chunk's header does not fit")
    content = AESGCM(keys.chunk_key(epoch, chunk_id)).decrypt(sealed[44:56], sealed[56:], sealed[:44])
    if codec == 1:
        content = zstandard.ZstdDecompressor().decompress(content, max_output_size=raw)
    check(len(content) == raw, "a chunk has a wrong length")
    if kind == DATA:
        hashes = b"".join(sha256(content[at : at + PAGE]) for at in range(0, raw, PAGE))
        check(code(keys.id_key, DATA, hashes) == chunk_id, "a chunk is not what its id names")
    else:
        check(code(keys.id_key, NODE, content) == chunk_id, "a node is not what its id names")
    return content


# Images


def leaves(chunks, root, size):
    """Yields (segment, leaf id) for each segment that has a leaf."""
    segments = -(-size // SEGMENT)
    height = 0
    while 256**height < segments:
        height += 1

    def walk(node_id, level, first):
        if level == 0:
            yield first, node_id
            return
        node = chunks.read(NODE, node_id)
        kind, has_level, count = struct.unpack_from("<BBH", node, 0)
        reach = 256 ** (level - 1)
        check(kind == 3 and has_level == level and len(node) == 4 + 32 * count, "an inner node is damaged")
        check(count == min(256, -(-(segments - first) // reach)), "an inner node has a wrong number of children")
        for i in range(count):
            child = node[4 + 32 * i : 36 + 32 * i]
            if child != bytes(32):
                yield from walk(child, level - 1, first + i * reach)

    if root is not None:
        yield from walk(root, height, 0)


def resolve(chunks, leaf_id, depth=9):
    """A segment's pages as a list of (chunk id or None for zeros, page inside the chunk)."""
    leaf = chunks.read(NODE, leaf_id)
    kind, has_depth, _, _, table_size = struct.unpack_from("<BBHHH", leaf, 0)
    check(kind in (1, 2) and has_depth < depth, "a leaf is damaged, or its bases do not end")
    table_at = 8 if kind == 1 else 44
    runs_at = table_at + 32 * table_size
    table = [leaf[at : at + 32] for at in range(table_at, runs_at, 32)]
    run_bytes = 6 if kind == 1 else 8
    count, rest = divmod(len(leaf) - runs_at, run_bytes)
    check(count >= 0 and rest == 0, "a leaf has a wrong length")
    if kind == 1:
        check(has_depth == 0, "a whole leaf with a depth")
        pages = []
    else:
        check(has_depth >= 1 and struct.unpack_from("<H", leaf, 8)[0] == count, "a delta is damaged")
        pages = resolve(chunks, leaf[12:44], has_depth)
    settled = 0
    for i in range(count):
        fields = struct.unpack_from("<HHH" if kind == 1 else "<HHHH", leaf, runs_at + i * run_bytes)
        first, length, reference, inside = (settled, *fields) if kind == 1 else fields
        check(first >= settled and length > 0 and first + length <= SEGMENT_PAGES, "a run is out of bounds")
        check(reference <= table_size, "a run refers to no chunk")
        settled = first + length
        chunk = table[reference - 1] if reference else None
        if kind == 1:
            pages.extend((chunk, inside + k) for k in range(length))
        else:
            check(settled <= len(pages), "a delta reaches beyond its base")
            pages[first:settled] = [(chunk, inside + k) for k in range(length)]
    return pages


def restore(chunks, root, size):
    """A disk's bytes."""
    disk = bytearray(size)
    for segment, leaf_id in leaves(chunks, root, size):
        base = segment * SEGMENT
        length = min(SEGMENT, size - base)
        pages = resolve(chunks, leaf_id)
        check(len(pages) * PAGE >= length, "a leaf does not cover its segment")
        opened = {}
        for number in range(-(-length // PAGE)):
            chunk_id, inside = pages[number]
            if chunk_id is None:
                continue
            if chunk_id not in opened:
                opened[chunk_id] = chunks.read(DATA, chunk_id)
            want = min(PAGE, length - number * PAGE)
            page = opened[chunk_id][inside * PAGE : inside * PAGE + want]
            check(len(page) == want, "a leaf reaches beyond the end of a chunk")
            disk[base + number * PAGE : base + number * PAGE + want] = page
    return disk


# Points


def read_point(keys, key, data):
    check(data[:8] == b"HFPOINT\x01", f"{key} is no point")
    keys.signer.public_key().verify(data[-64:], data[:-64])
    (length,) = struct.unpack_from("<I", data, 8)
    facts_bytes = data[12 : 12 + length]
    (sealed_length,) = struct.unpack_from("<I", data, 12 + length)
    sealed = data[16 + length : -64]
    check(len(sealed) == sealed_length, f"{key} has wrong lengths")
    facts = json.loads(facts_bytes)
    check(facts["vault"] == keys.vault, f"{key} belongs to another vault")
    check(key == f"points/{facts['machine']}/{facts['point']}", f"{key} holds another point")
    point_key = keys.point_key(facts["sealEpoch"], facts["point"])
    secrets = json.loads(AESGCM(point_key).decrypt(sealed[:12], sealed[12:], facts_bytes))
    return facts, secrets


def all_points(store):
    found = {key: store.get(key) for key in store.list("points")}
    if store.has("state/vault.json"):
        for pending in json.loads(store.get("state/vault.json"))["pending"]:
            found.setdefault(pending["key"], base64.b64decode(pending["content"]))
    return found


def main():
    arguments = argparse.ArgumentParser(description="Restores every point of a vault and prints the disks' hashes.")
    arguments.add_argument("store")
    arguments.add_argument("key_file")
    arguments.add_argument("--passphrase")
    arguments.add_argument("--no-index", action="store_true")
    given = arguments.parse_args()
    keys = read_key_file(given.key_file, given.passphrase)
    store = Store(given.store, keys.vault)
    check_vault(store, keys)
    chunks = Chunks(store, keys, not given.no_index)
    out = []
    for key, data in sorted(all_points(store).items()):
        facts, secrets = read_point(keys, key, data)
        name = unicodedata.normalize("NFC", secrets["machineName"])
        named = "vm_" + crockford(code(keys.id_key, 3, name.encode("utf-8"))[:16])
        disks = []
        for image in facts["disks"]:
            root = None if image["root"] is None else bytes.fromhex(image["root"])
            disk = restore(chunks, root, image["sizeBytes"])
            disks.append({"sizeBytes": len(disk), "sha256": hashlib.sha256(disk).hexdigest()})
        point = {"machine": facts["machine"], "machineName": name, "point": facts["point"], "disks": disks}
        out.append({**point, "machineIsKnownByName": named == facts["machine"]})
    json.dump(out, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
