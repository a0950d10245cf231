import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { ChunkNamer } from '#repository/chunk.ts';
import { decodeInner, listLeaves } from '#repository/image.ts';
import {
  checkIndexSegment,
  INDEX_HEADER_BYTES,
  IndexSegmentReader,
  indexHeadLength,
  readIndexHead,
} from '#repository/index-segment.ts';
import { readKeyFile } from '#repository/key-file.ts';
import { decodeKeys } from '#repository/keys.ts';
import { decodeLeaf } from '#repository/leaf.ts';
import { machineIdOf } from '#repository/machine-id.ts';
import { PACK_TRAILER_BYTES, parsePackFooter, parsePackTrailer } from '#repository/pack.ts';
import { decodePoint, readPointFacts } from '#repository/point.ts';
import { Sealer } from '#repository/seal.ts';
import { sha256 } from '#repository/sha256.ts';
import { checkKeysFit, decodeVaultObject } from '#repository/vault-object.ts';
import {
  countingRandom,
  cutSpans,
  indexVectorIds,
  makeVectors,
  type PageSpan,
  patternPages,
  VECTOR_KEYS,
  VECTOR_LEAVES,
  VECTOR_POINT,
} from './vectors.ts';

// biome-ignore lint/suspicious/noExplicitAny: the shapes of the vectors are what the tests below say
const read = (name: string): any =>
  JSON.parse(readFileSync(new URL(`./vectors/${name}.json`, import.meta.url), 'utf8'));
const bytes = (text: string) => Buffer.from(text, 'hex');

describe('the test vectors of format version 1', () => {
  it('are what today’s code writes, byte by byte', async () => {
    const compressed = bytes(read('sealed-chunk').chunks[1].stored);
    for (const [name, value] of Object.entries(await makeVectors(compressed)))
      assert.deepEqual(read(name), JSON.parse(JSON.stringify(value)), name);
  });

  it('open: keys, key files and the vault object', async () => {
    const { json, keyFile, lockedKeyFile, passphrase, publicSigningKey, vaultObject } = read('keys');
    const keys = decodeKeys(Buffer.from(json));
    assert.deepEqual(
      keys.sealKeys.map((key) => Buffer.from(key)),
      VECTOR_KEYS.sealKeys.map((key) => Buffer.from(key)),
    );
    assert.deepEqual(await readKeyFile(keyFile, undefined), keys);
    assert.deepEqual(await readKeyFile(lockedKeyFile, passphrase), keys);
    assert.deepEqual(await readKeyFile(lockedKeyFile, 'p\u00e4sse wohl'), keys, 'the same passphrase, composed');
    const vault = decodeVaultObject(Buffer.from(vaultObject));
    checkKeysFit(vault, keys);
    assert.equal(vault.publicSigningKey, bytes(publicSigningKey).toString('base64'));
  });

  it('name chunks, keys and machines as HMAC-SHA-256 with its tags does', () => {
    const { contentLength, pageHashes, dataId, nodeId, chunkKeys, pointKey, machineIds } = read('ids');
    const content = patternPages(3, contentLength);
    const hmac = (key: Uint8Array, tag: number, message: Uint8Array) =>
      createHmac('sha256', key)
        .update(Buffer.from([tag]))
        .update(message)
        .digest('hex');
    assert.equal(dataId, hmac(VECTOR_KEYS.idKey, 1, bytes(pageHashes.join(''))));
    assert.equal(nodeId, hmac(VECTOR_KEYS.idKey, 2, content));
    assert.deepEqual(
      chunkKeys,
      VECTOR_KEYS.sealKeys.map((key) => hmac(key, 0, bytes(dataId))),
    );
    assert.equal(pointKey, hmac(VECTOR_KEYS.sealKeys[1]!, 1, Buffer.from(VECTOR_POINT.facts.point)));
    assert.ok(new ChunkNamer(VECTOR_KEYS.idKey).matches('data', content, bytes(dataId)));
    for (const { name, id } of machineIds) assert.equal(machineIdOf(VECTOR_KEYS, name), id);
    assert.equal(machineIds[1].id, machineIds[2].id, 'composed and decomposed names are one name');
  });

  it('cut as they did', () => {
    const { cutKey, cases } = read('cut') as { cutKey: string; cases: { spans: PageSpan[]; pieces: string[] }[] };
    for (const { spans, pieces } of cases) {
      const now = cutSpans(bytes(cutKey), spans).map((p) => `${p.zero ? 'z' : 'c'} ${p.firstPage} ${p.pages}`);
      assert.deepEqual(now, pieces);
    }
  });

  it('open: sealed chunks, raw and compressed, under both keys', () => {
    const sealer = new Sealer(VECTOR_KEYS, countingRandom());
    const namer = new ChunkNamer(VECTOR_KEYS.idKey);
    const opened = read('sealed-chunk').chunks.map((chunk: { kind: string; content: string; sealed: string }) => {
      const { header, content } = sealer.open(bytes(chunk.sealed));
      assert.equal(content.toString('hex'), chunk.content);
      assert.equal(header.kind, chunk.kind);
      assert.ok(namer.matches(header.kind, content, header.id));
      return `${header.codec} ${header.epoch}`;
    });
    assert.deepEqual(opened, ['raw 0', 'zstd 1', 'raw 1']);
  });

  it('open: a pack, each chunk in the slot that was told', () => {
    const { pack: text, contents, footerOffset, slotOf } = read('pack');
    const pack = bytes(text);
    const trailer = parsePackTrailer(pack.subarray(-PACK_TRAILER_BYTES), pack.length);
    assert.equal(trailer.offset, footerOffset);
    const footer = pack.subarray(trailer.offset, trailer.offset + trailer.length);
    const slots = parsePackFooter(footer, trailer.offset, trailer.sha256);
    const sealer = new Sealer(VECTOR_KEYS, countingRandom());
    contents.forEach((content: string, i: number) => {
      const slot = slots[slotOf[i]]!;
      const sealed = pack.subarray(slot.offset, slot.offset + slot.length);
      assert.deepEqual(sha256(sealed), slot.sha256);
      assert.equal(sealer.open(sealed).content.toString('hex'), content);
    });
    assert.equal(slots[slotOf[2]]!.children.length, 64, 'the leaf’s two chunks');
  });

  it('open: an index segment, in which every id is found', () => {
    const segment = Buffer.from(read('index-segment').segment, 'base64');
    checkIndexSegment(segment);
    const head = readIndexHead(
      segment.subarray(0, indexHeadLength(segment.subarray(0, INDEX_HEADER_BYTES))),
      (length) => new ArrayBuffer(length),
    );
    const reader = new IndexSegmentReader(head, (offset, into) => void segment.copy(into, 0, offset));
    indexVectorIds().forEach((id, i) => {
      const slot = reader.locate(id)!.slot;
      assert.ok(slot === i || [7, 200].includes(slot));
    });
  });

  it('open: leaves, inner nodes and a tree over 300 segments', async () => {
    const leaves = read('leaf');
    for (const [name, leaf] of Object.entries(VECTOR_LEAVES))
      assert.deepEqual(decodeLeaf(bytes(leaves[name].content)), leaf);
    const { nodes, root, small } = read('image');
    assert.deepEqual(
      decodeInner(bytes(small), 1).map((id) => id !== null),
      [true, false, true],
    );
    const contents = new Map<string, Buffer>(
      nodes.map((node: { id: string; content: string }) => [node.id, bytes(node.content)]),
    );
    const image = { root: bytes(root), sizeBytes: 300 * 16 * 1024 * 1024 };
    const found: number[] = [];
    for await (const { segment } of listLeaves(image, async (id) => contents.get(id.toString('hex'))!))
      found.push(segment);
    assert.deepEqual(
      found,
      Array.from({ length: 300 }, (_, i) => i).filter((i) => i !== 9),
    );
  });

  it('open: a point, its facts without the keys', () => {
    const point = bytes(read('point').point);
    assert.deepEqual(decodePoint(point, VECTOR_KEYS), VECTOR_POINT);
    assert.deepEqual(readPointFacts(point, bytes(read('keys').publicSigningKey)), VECTOR_POINT.facts);
  });
});
