import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import {
  buildTree,
  decodeInner,
  encodeInner,
  type Image,
  listLeaves,
  resolveLeaf,
  segmentsOf,
  treeHeight,
} from './image.ts';
import { encodeLeaf, type Leaf, type MapRun } from './leaf.ts';
import { SEGMENT_BYTES } from './parameters.ts';
import { sha256 } from './sha256.ts';

const damaged = (error: unknown) => isHoldfastError(error, 'damaged');
const leafId = (segment: number) => sha256(Buffer.from(`leaf ${segment}`));

class Nodes {
  readonly contents = new Map<string, Buffer>();
  reads = 0;
  readonly store = async (content: Buffer) => {
    const id = sha256(content);
    this.contents.set(id.toString('hex'), Buffer.from(content));
    return id;
  };
  readonly read = async (id: Buffer) => {
    this.reads++;
    return this.contents.get(id.toString('hex'))!;
  };
}

async function tree(segments: number, isZero: (segment: number) => boolean): Promise<{ image: Image; nodes: Nodes }> {
  const nodes = new Nodes();
  const leaves = Buffer.alloc(segments * 32);
  for (let s = 0; s < segments; s++) if (!isZero(s)) leafId(s).copy(leaves, s * 32);
  return { image: { root: await buildTree(leaves, nodes.store), sizeBytes: segments * SEGMENT_BYTES }, nodes };
}

async function leavesOf(image: Image, nodes: Nodes, from?: number, to?: number): Promise<number[]> {
  const found: number[] = [];
  for await (const { segment, id } of listLeaves(image, nodes.read, from, to)) {
    if (!id.equals(leafId(segment))) assert.fail(`segment ${segment} has another leaf`);
    found.push(segment);
  }
  return found;
}

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);

describe('an image tree', () => {
  it('is as high as its segments need', () => {
    assert.deepEqual([0, 1, 2, 256, 257, 65_536, 65_537, 256 ** 3].map(treeHeight), [0, 0, 1, 1, 2, 2, 3, 3]);
    assert.deepEqual([0, 1, SEGMENT_BYTES, SEGMENT_BYTES + 1].map(segmentsOf), [0, 1, 1, 2]);
  });

  for (const segments of [1, 2, 255, 256, 257, 65_537]) {
    it(`over ${segments} segments lists every leaf in order, and leaves out zeros`, async () => {
      const isZero = (s: number) => s % 7 === 3 || (s > 300 && s < 1000);
      const { image, nodes } = await tree(segments, isZero);
      assert.deepEqual(
        await leavesOf(image, nodes),
        range(0, segments).filter((s) => !isZero(s)),
      );
    });
  }

  it('of zeros has no root', async () => {
    for (const segments of [0, 1, 256, 70_000]) assert.equal((await tree(segments, () => true)).image.root, null);
    assert.deepEqual(await leavesOf({ root: null, sizeBytes: 5 * SEGMENT_BYTES }, new Nodes()), []);
  });

  it('stores nothing for subtrees of zeros, and reads only what a range needs', async () => {
    const { image, nodes } = await tree(65_537, (s) => s < 60_000);
    assert.ok(nodes.contents.size <= 1 + 2 + 24);
    nodes.reads = 0;
    assert.deepEqual(await leavesOf(image, nodes, 65_000, 65_003), [65_000, 65_001, 65_002]);
    assert.equal(nodes.reads, 3);
    assert.deepEqual(await leavesOf(image, nodes, 0, 60_000), []);
    assert.deepEqual(await leavesOf(image, nodes, 65_535, 65_537), [65_535, 65_536]);
  });

  it('keeps to the range on a disk of one segment too', async () => {
    const { image, nodes } = await tree(1, () => false);
    assert.deepEqual(await leavesOf(image, nodes, 0, 1), [0]);
    assert.deepEqual(await leavesOf(image, nodes, 1, 2), []);
  });

  it('with a child too few is damaged, and not zero at its end', async () => {
    const nodes = new Nodes();
    const { content } = encodeInner(1, Buffer.concat(range(0, 9).map(leafId)));
    const image = { root: await nodes.store(content), sizeBytes: 10 * SEGMENT_BYTES };
    await assert.rejects(leavesOf(image, nodes), damaged);
    await assert.rejects(leavesOf({ ...image, sizeBytes: 8 * SEGMENT_BYTES }, nodes), damaged);
  });
});

describe('an inner node', () => {
  it('names its children that are not zero', () => {
    const { content, children } = encodeInner(2, Buffer.concat([leafId(1), Buffer.alloc(32), leafId(2)]));
    assert.deepEqual(decodeInner(content, 2), [leafId(1), null, leafId(2)]);
    assert.deepEqual(children, Buffer.concat([leafId(1), leafId(2)]));
  });

  it('is refused at another level, cut short, empty, or when it is a leaf', () => {
    const { content } = encodeInner(2, Buffer.concat([leafId(1), leafId(2)]));
    assert.throws(() => decodeInner(content, 1), damaged);
    for (let length = 0; length < content.length; length++)
      assert.throws(() => decodeInner(content.subarray(0, length), 2), damaged);
    assert.throws(() => decodeInner(Buffer.from([3, 2, 0, 0]), 2), damaged);
    const leaf = encodeLeaf({ type: 'full', depth: 0, patchChunks: 0, patchedPages: 0, runs: [] }).content;
    assert.throws(() => decodeInner(leaf, 1), damaged);
  });
});

describe('resolving a leaf', () => {
  const run = (firstPage: number, pages: number, chunk: number | null): MapRun => ({
    firstPage,
    pages,
    chunk: chunk === null ? null : Buffer.alloc(32, chunk),
    chunkPage: 0,
  });
  const whole: Leaf = { type: 'full', depth: 0, patchChunks: 1, patchedPages: 2, runs: [run(0, 4096, 1)] };
  const put = (nodes: Nodes, leaf: Leaf) => nodes.store(encodeLeaf(leaf).content);

  it('lays eight deltas over the whole map, the latest last', async () => {
    const nodes = new Nodes();
    let id = await put(nodes, whole);
    for (let depth = 1; depth <= 8; depth++)
      id = await put(nodes, {
        type: 'delta',
        depth,
        patchChunks: depth,
        patchedPages: depth * 2,
        base: id,
        runs: [run(depth * 2, 3, depth + 1)],
      });
    const { type, depth, patchChunks, patchedPages, runs } = await resolveLeaf(id, nodes.read);
    assert.deepEqual(
      { type, depth, patchChunks, patchedPages },
      { type: 'full', depth: 0, patchChunks: 8, patchedPages: 16 },
    );
    const owner = (page: number) => runs.find((r) => page >= r.firstPage && page < r.firstPage + r.pages)!.chunk![0];
    assert.deepEqual([0, 2, 3, 4, 16, 17, 18, 19, 4095].map(owner), [1, 2, 2, 3, 9, 9, 9, 1, 1]);
  });

  it('refuses a chain whose depth does not go down at each step', async () => {
    const nodes = new Nodes();
    const base = await put(nodes, whole);
    const one = await put(nodes, { ...whole, type: 'delta', depth: 4, base, runs: [] });
    const two = await put(nodes, { ...whole, type: 'delta', depth: 4, base: one, runs: [] });
    await assert.rejects(resolveLeaf(two, nodes.read), damaged);
    // A leaf that is its own base can exist only by forgery; it must end all the same.
    const forged = encodeLeaf({ ...whole, type: 'delta', depth: 8, base: Buffer.alloc(32, 5), runs: [] }).content;
    await assert.rejects(
      resolveLeaf(Buffer.alloc(32, 5), async () => forged),
      damaged,
    );
  });

  it('passes on what the store says', async () => {
    const missing = new Error('gone');
    await assert.rejects(
      resolveLeaf(leafId(0), () => Promise.reject(missing)),
      missing,
    );
  });
});
