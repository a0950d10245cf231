import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import { append, decodeLeaf, encodeLeaf, type Leaf, type MapRun, overlayRuns } from './leaf.ts';

const damaged = (error: unknown) => isHoldfastError(error, 'damaged');
const ids = [1, 2, 3, 4].map((byte) => Buffer.alloc(32, byte));

/** Where a page comes from: chunk and page inside, or zeros. */
type Page = string;

const pageOf = (run: MapRun, i: number): Page => (run.chunk === null ? 'zero' : `${run.chunk[0]}:${run.chunkPage + i}`);

/** The naive model of a map: an array with one entry a page. */
function pagesOf(runs: readonly MapRun[], into: (Page | undefined)[] = []): (Page | undefined)[] {
  for (const run of runs) for (let i = 0; i < run.pages; i++) into[run.firstPage + i] = pageOf(run, i);
  return into;
}

const body = fc.record({
  pages: fc.integer({ min: 1, max: 60 }),
  gap: fc.integer({ min: 0, max: 30 }),
  chunk: fc.constantFrom(null, ...ids),
  chunkPage: fc.integer({ min: 0, max: 127 }),
});

/** Runs in order; with gaps between them if asked for. */
function runs(gaps: boolean, maxLength: number): fc.Arbitrary<MapRun[]> {
  return fc.array(body, { minLength: 1, maxLength }).map((bodies) => {
    let at = 0;
    return bodies.map(({ pages, gap, chunk, chunkPage }) => {
      const firstPage = gaps ? at + gap : at;
      at = firstPage + pages;
      return { firstPage, pages, chunk, chunkPage: chunk === null ? 0 : chunkPage };
    });
  });
}

const facts = fc.record({ patchChunks: fc.nat({ max: 65_535 }), patchedPages: fc.nat({ max: 65_535 }) });
const leaves: fc.Arbitrary<Leaf> = fc.oneof(
  fc.tuple(facts, runs(false, 40)).map(([f, r]): Leaf => ({ type: 'full', depth: 0, ...f, runs: r })),
  fc
    .tuple(facts, runs(true, 40), fc.integer({ min: 1, max: 8 }))
    .map(([f, r, depth]): Leaf => ({ type: 'delta', depth, ...f, base: Buffer.alloc(32, 9), runs: r })),
);

describe('a leaf', () => {
  it('decodes to what was encoded', () => {
    fc.assert(
      fc.property(leaves, (leaf) => {
        const { content, children } = encodeLeaf(leaf);
        assert.deepEqual(decodeLeaf(content), leaf);
        const named = [...new Set(leaf.runs.flatMap((run) => (run.chunk === null ? [] : [run.chunk.toString('hex')])))];
        if (leaf.type === 'delta') named.unshift(leaf.base.toString('hex'));
        assert.equal(children.toString('hex'), named.join(''), 'its children: the base, then each chunk once');
      }),
      { seed: 7, numRuns: 200 },
    );
  });

  it('holds a segment in which every page is a chunk of its own', () => {
    const all = Array.from({ length: 4096 }, (_, i) => {
      const chunk = Buffer.alloc(32);
      chunk.writeUInt32LE(i + 1);
      return { firstPage: i, pages: 1, chunk, chunkPage: 0 };
    });
    const leaf: Leaf = { type: 'full', depth: 0, patchChunks: 0, patchedPages: 0, runs: all };
    assert.deepEqual(decodeLeaf(encodeLeaf(leaf).content), leaf);
  });

  it('answers garbage with damaged and nothing else', () => {
    const check = (bytes: Uint8Array) => {
      try {
        decodeLeaf(Buffer.from(bytes));
      } catch (error) {
        assert.ok(damaged(error), String(error));
      }
    };
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), check), { seed: 8, numRuns: 500 });
    // Garbage that begins well, and good leaves with a byte changed or missing, get further.
    fc.assert(
      fc.property(leaves, fc.nat(), fc.nat({ max: 255 }), fc.boolean(), (leaf, at, value, cut) => {
        const { content } = encodeLeaf(leaf);
        content[at % Math.min(content.length, 80)] = value;
        check(cut ? content.subarray(0, at % content.length) : content);
      }),
      { seed: 9, numRuns: 500 },
    );
  });

  it('is refused where a run leaves the segment, goes back, is empty, or refers to no chunk', () => {
    const good: Leaf = {
      type: 'delta',
      depth: 1,
      patchChunks: 0,
      patchedPages: 0,
      base: ids[0]!,
      runs: [
        { firstPage: 10, pages: 2, chunk: ids[1]!, chunkPage: 0 },
        { firstPage: 20, pages: 2, chunk: null, chunkPage: 0 },
      ],
    };
    const { content } = encodeLeaf(good);
    const runsAt = content.length - 16;
    const wrong: readonly (readonly [at: number, value: number])[] = [
      [runsAt, 4095],
      [runsAt + 2, 0],
      [runsAt + 2, 4097],
      [runsAt + 4, 2],
      [runsAt + 8, 11],
      [8, 1],
      [8, 3],
      [6, 2],
      [0, 0x0009],
      [0, 0x0002],
      [0, 0x0902],
    ];
    for (const [at, value] of wrong) {
      const bad = Buffer.from(content);
      bad.writeUInt16LE(value, at);
      assert.throws(() => decodeLeaf(bad), damaged, `${value} at ${at}`);
    }
    assert.throws(() => decodeLeaf(Buffer.from('0101000000000000', 'hex')), HoldfastError, 'a whole leaf with a depth');
  });
});

describe('laying a delta over a map', () => {
  it('is what an array of pages would be', () => {
    fc.assert(
      fc.property(runs(false, 30), runs(true, 30), (base, over) => {
        const size = base.at(-1)!.firstPage + base.at(-1)!.pages;
        const inside = over.filter((run) => run.firstPage + run.pages <= size);
        const result = overlayRuns(base, inside);
        assert.deepEqual(pagesOf(result), pagesOf(inside, pagesOf(base)));
        let at = 0;
        for (const run of result) {
          assert.equal(run.firstPage, at, 'in order, without gaps');
          at += run.pages;
        }
        assert.equal(at, size);
      }),
      { seed: 10, numRuns: 300 },
    );
  });

  it('joins runs that go on where the last one ended, and no others', () => {
    const joined: MapRun[] = [];
    const push = (firstPage: number, pages: number, chunk: Buffer | null, chunkPage: number) =>
      append(joined, { firstPage, pages, chunk, chunkPage });
    push(0, 2, ids[0]!, 5);
    push(2, 1, Buffer.from(ids[0]!), 7); // goes on
    push(3, 1, ids[0]!, 7); // the same page again
    push(4, 1, ids[1]!, 8); // another chunk
    push(5, 1, null, 0);
    push(6, 3, null, 0); // zeros go on
    push(20, 1, null, 0); // a gap
    assert.deepEqual(
      joined.map((run) => [run.firstPage, run.pages]),
      [
        [0, 3],
        [3, 1],
        [4, 1],
        [5, 4],
        [20, 1],
      ],
    );
  });
});
