import type { Random } from '#ports/random.ts';
import { ChunkNamer } from '#repository/chunk.ts';
import { Cutter, type Piece } from '#repository/cut.ts';
import { buildTree, encodeInner } from '#repository/image.ts';
import { encodeIndexSegment, IndexEntries } from '#repository/index-segment.ts';
import { writeKeyFile } from '#repository/key-file.ts';
import { KeyedHash } from '#repository/keyed-hash.ts';
import { encodeKeys, rotateVaultKeys, type VaultKeys } from '#repository/keys.ts';
import { encodeLeaf, type Leaf } from '#repository/leaf.ts';
import { machineIdOf } from '#repository/machine-id.ts';
import { assemblePack, type SealedChunk } from '#repository/pack.ts';
import { ZERO_PAGE_HASH } from '#repository/page.ts';
import { encodePoint, type Point, publicSigningKey } from '#repository/point.ts';
import { SEAL_OVERHEAD_BYTES, Sealer } from '#repository/seal.ts';
import { sha256 } from '#repository/sha256.ts';
import { describeVault, encodeVaultObject } from '#repository/vault-object.ts';

/** Stands for every random choice in the vectors: the bytes 00 01 02 … ff 00 01 …, from the start for each vector. */
export function countingRandom(): Random {
  let next = 0;
  return { bytes: (length) => Uint8Array.from({ length }, () => next++ & 255), fraction: () => 0 };
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const filled = (byte: number, length = 32) => Buffer.alloc(length, byte);

const FIRST_KEYS: VaultKeys = {
  vault: 'vlt_01KDWPVNG0S3MF4F3TX3YRXCD8',
  idKey: filled(0x11),
  cutKey: filled(0x22, 16),
  sealKeys: [filled(0x33)],
  signSeed: filled(0x55),
};

/** The keys of all vectors; two epochs. */
export const VECTOR_KEYS: VaultKeys = rotateVaultKeys(FIRST_KEYS, {
  bytes: (length) => filled(0x44, length),
  fraction: () => 0,
});

export const VECTOR_PASSPHRASE = 'pa\u0308sse wohl';

/** A sequence of pages for the cut rule: numbered pages whose hash is the SHA-256 of the number as u32, or zero pages. */
export type PageSpan = { readonly numberedFrom: number; readonly pages: number } | { readonly zeroPages: number };

/** The pieces into which today's code cuts the pages. */
export function cutSpans(cutKey: Uint8Array, spans: readonly PageSpan[]): Piece[] {
  const hashes: Buffer[] = [];
  for (const span of spans) {
    if ('zeroPages' in span) for (let i = 0; i < span.zeroPages; i++) hashes.push(ZERO_PAGE_HASH);
    else for (let i = 0; i < span.pages; i++) hashes.push(sha256(u32(span.numberedFrom + i)));
  }
  const zero = Uint8Array.from(hashes, (hash) => (hash === ZERO_PAGE_HASH ? 1 : 0));
  const cutter = new Cutter(cutKey);
  const pieces: Piece[] = [];
  cutter.start();
  cutter.take(Buffer.concat(hashes), zero, hashes.length, true, (piece) => void pieces.push(piece));
  return pieces;
}

function u32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value);
  return out;
}

/** A page of content that is easily made anywhere: byte i is (seed + 7 i) mod 251. */
export function patternPages(seed: number, length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, i) => (seed + 7 * i) % 251));
}

/** Leaves and the point of the vectors, as values. */
export const VECTOR_LEAVES: Readonly<Record<string, Leaf>> = {
  whole: {
    type: 'full',
    depth: 0,
    patchChunks: 0,
    patchedPages: 0,
    runs: [
      { firstPage: 0, pages: 20, chunk: filled(0xaa), chunkPage: 0 },
      { firstPage: 20, pages: 4000, chunk: null, chunkPage: 0 },
      { firstPage: 4020, pages: 5, chunk: filled(0xbb), chunkPage: 7 },
    ],
  },
  delta: {
    type: 'delta',
    depth: 3,
    patchChunks: 4,
    patchedPages: 300,
    base: filled(0xcc),
    runs: [
      { firstPage: 5, pages: 1, chunk: filled(0xdd), chunkPage: 0 },
      { firstPage: 9, pages: 2, chunk: filled(0xdd), chunkPage: 1 },
      { firstPage: 4095, pages: 1, chunk: null, chunkPage: 0 },
    ],
  },
};

export const VECTOR_POINT: Point = {
  facts: {
    vault: VECTOR_KEYS.vault,
    machine: 'vm_697AMSK6R85QTP919HE4D9W4J6',
    point: 'pnt_01KDZ98CG0SHEFWV4EV4YYF5M3',
    parent: null,
    takenAtMs: 1767355200000,
    disks: [
      { root: hex(filled(0xee)), sizeBytes: 33_706_450 },
      { root: null, sizeBytes: 1_000_000 },
    ],
    labels: ['daily'],
    sealEpoch: 1,
  },
  secrets: {
    machineName: 'Bücher-Server',
    diskNames: ['system', 'data'],
    changeMarkers: { system: '52 3c/17' },
    config: { cpus: 2 },
    stats: { seconds: 1.5 },
  },
};

function sealed(kind: 'data' | 'node', content: Buffer, stored: Buffer, keys: VaultKeys, random: Random): Buffer {
  const id = new ChunkNamer(keys.idKey).ofContent(kind, content);
  const out = Buffer.alloc(stored.length + SEAL_OVERHEAD_BYTES);
  new Sealer(keys, random).seal(kind, id, stored, content.length, out);
  return out;
}

function sealedVectors(compressed: Buffer) {
  const raw = patternPages(1, 5000);
  const even = filled(0x61, 8192);
  const node = encodeLeaf(VECTOR_LEAVES.whole!).content;
  return {
    note: 'A data chunk of two pages, the last of 904 bytes, stored raw under the first key; 8,192 bytes "a" as one zstd frame under the second; the whole leaf of leaf.json.',
    chunks: [
      {
        kind: 'data',
        content: hex(raw),
        stored: hex(raw),
        sealed: hex(sealed('data', raw, raw, FIRST_KEYS, countingRandom())),
      },
      {
        kind: 'data',
        content: hex(even),
        stored: hex(compressed),
        sealed: hex(sealed('data', even, compressed, VECTOR_KEYS, countingRandom())),
      },
      {
        kind: 'node',
        content: hex(node),
        stored: hex(node),
        sealed: hex(sealed('node', node, node, VECTOR_KEYS, countingRandom())),
      },
    ],
  };
}

function packVector() {
  const random = countingRandom();
  const leaf = encodeLeaf(VECTOR_LEAVES.whole!);
  const contents = [patternPages(1, 300), patternPages(2, 400)];
  const chunks: SealedChunk[] = contents.map((content) => {
    const bytes = sealed('data', content, content, VECTOR_KEYS, random);
    return { bytes, sha256: sha256(bytes), children: new Uint8Array(0) };
  });
  const bytes = sealed('node', leaf.content, leaf.content, VECTOR_KEYS, random);
  chunks.push({ bytes, sha256: sha256(bytes), children: leaf.children });
  const pack = assemblePack(chunks, random);
  return {
    note: 'Two data chunks of 300 and 400 bytes and the whole leaf of leaf.json; slotOf: the slot of each, in this order.',
    contents: [...contents, leaf.content].map(hex),
    pack: hex(Buffer.concat(pack.parts)),
    footerOffset: pack.footerOffset,
    slotOf: [...pack.slotOf],
  };
}

/** The prefixes of the index vector: SHA-256 of the number as u32; number 7 occurs twice. */
export function indexVectorIds(): Buffer[] {
  return [...Array.from({ length: 200 }, (_, i) => sha256(u32(i))), sha256(u32(7))];
}

function indexVector() {
  const entries = new IndexEntries();
  entries.addPack({ id: filled(0x01, 16), sizeBytes: 1_000_000, footerOffset: 990_000 });
  entries.addPack({ id: filled(0x02, 16), sizeBytes: 60_000_000, footerOffset: 59_000_000 });
  indexVectorIds().forEach((id, i) => void entries.add(id, i % 2, i));
  const segment = encodeIndexSegment(entries);
  return {
    note: 'Entry i (0 to 199) is the SHA-256 of i as u32, in pack i mod 2, slot i; entry 200 is the id of entry 7 again.',
    segment: segment.toString('base64'),
    sha256: hex(sha256(segment)),
  };
}

async function treeVector() {
  const leafIds = Buffer.concat(Array.from({ length: 300 }, (_, i) => (i === 9 ? Buffer.alloc(32) : sha256(u32(i)))));
  const namer = new ChunkNamer(VECTOR_KEYS.idKey);
  const nodes: { id: string; content: string }[] = [];
  const root = await buildTree(leafIds, async (content) => {
    const id = namer.ofContent('node', content);
    nodes.push({ id: hex(id), content: hex(content) });
    return id;
  });
  return {
    note: 'Leaf id s of 300 segments is the SHA-256 of s as u32, but segment 9 is zeros.',
    small: hex(encodeInner(1, leafIds.subarray(8 * 32, 11 * 32)).content),
    nodes,
    root: hex(root!),
  };
}

function idVectors() {
  const namer = new ChunkNamer(VECTOR_KEYS.idKey);
  const content = patternPages(3, 10_000);
  const id = namer.ofContent('data', content);
  const pages = [0, 4096, 8192].map((at) => sha256(content.subarray(at, Math.min(at + 4096, content.length))));
  const chunkKey = (epoch: number) => new KeyedHash(VECTOR_KEYS.sealKeys[epoch]!).digest(0, id);
  return {
    note: 'Content: byte i is (3 + 7 i) mod 251.',
    contentLength: content.length,
    pageHashes: pages.map(hex),
    dataId: hex(id),
    nodeId: hex(namer.ofContent('node', content)),
    chunkKeys: [hex(chunkKey(0)), hex(chunkKey(1))],
    pointKey: hex(new KeyedHash(VECTOR_KEYS.sealKeys[1]!).digest(1, Buffer.from(VECTOR_POINT.facts.point))),
    machineIds: ['alpha', 'Bücher-Server', 'Bu\u0308cher-Server', ''].map((name) => ({
      name,
      id: machineIdOf(VECTOR_KEYS, name),
    })),
  };
}

const CUT_CASES: readonly (readonly PageSpan[])[] = [
  [{ numberedFrom: 0, pages: 1 }],
  [{ numberedFrom: 0, pages: 600 }],
  [{ numberedFrom: 100, pages: 500 }],
  [{ zeroPages: 15 }],
  [{ zeroPages: 16 }],
  [{ numberedFrom: 0, pages: 3 }, { zeroPages: 15 }, { numberedFrom: 3, pages: 100 }],
  [{ numberedFrom: 0, pages: 3 }, { zeroPages: 16 }, { numberedFrom: 3, pages: 100 }],
  [{ zeroPages: 200 }, { numberedFrom: 1000, pages: 200 }, { zeroPages: 20 }],
];

function cutVectors() {
  return {
    note: 'Numbered pages have the SHA-256 of their number, as u32, for a hash. Pieces: z zero run, c chunk; first page, pages.',
    cutKey: hex(VECTOR_KEYS.cutKey),
    cases: CUT_CASES.map((spans) => ({
      spans,
      pieces: cutSpans(VECTOR_KEYS.cutKey, spans).map(
        ({ zero, firstPage, pages }) => `${zero ? 'z' : 'c'} ${firstPage} ${pages}`,
      ),
    })),
  };
}

function leafVectors() {
  return Object.fromEntries(
    Object.entries(VECTOR_LEAVES).map(([name, leaf]) => {
      const { content, children } = encodeLeaf(leaf);
      return [name, { content: hex(content), children: hex(children) }];
    }),
  );
}

/**
 * All vectors by file name, made by today's code.
 * @param compressed  a zstd frame of 8,192 bytes "a": compressors may change, so it is kept and not made again
 */
export async function makeVectors(compressed: Buffer): Promise<Record<string, unknown>> {
  return {
    keys: {
      note: 'Keys of all vectors. Where randomness is called for, it is the bytes 00 01 02 … ff 00 …, from the start in each file.',
      json: Buffer.from(encodeKeys(VECTOR_KEYS)).toString(),
      publicSigningKey: hex(publicSigningKey(VECTOR_KEYS)),
      passphrase: VECTOR_PASSPHRASE,
      keyFile: await writeKeyFile(VECTOR_KEYS, undefined, countingRandom()),
      lockedKeyFile: await writeKeyFile(VECTOR_KEYS, VECTOR_PASSPHRASE, countingRandom()),
      vaultObject: encodeVaultObject(describeVault(VECTOR_KEYS, 1_767_268_800_000)).toString(),
    },
    ids: idVectors(),
    cut: cutVectors(),
    'sealed-chunk': sealedVectors(compressed),
    pack: packVector(),
    'index-segment': indexVector(),
    leaf: leafVectors(),
    image: await treeVector(),
    point: { value: VECTOR_POINT, point: hex(encodePoint(VECTOR_POINT, VECTOR_KEYS, countingRandom())) },
  };
}
