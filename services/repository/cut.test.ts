import assert from 'node:assert/strict';
import { createCipheriv } from 'node:crypto';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Cutter, type Piece } from './cut.ts';
import { ZERO_PAGE_HASH } from './page.ts';
import { sha256 } from './sha256.ts';

const KEY = Buffer.alloc(16, 9);

/** Pages by the number of their content; 0 is a zero page. */
type Pages = readonly number[];

function hashesOf(pages: Pages): Buffer {
  return Buffer.concat(
    pages.map((page) => {
      const content = Buffer.alloc(4);
      content.writeUInt32LE(page);
      return page === 0 ? ZERO_PAGE_HASH : sha256(content);
    }),
  );
}

function cut(pages: Pages, splits: readonly number[] = [], key: Uint8Array = KEY): Piece[] {
  const cutter = new Cutter(key);
  const hashes = hashesOf(pages);
  const zero = Uint8Array.from(pages, (page) => (page === 0 ? 1 : 0));
  const pieces: Piece[] = [];
  cutter.start();
  for (const known of [...splits].sort((a, b) => a - b))
    cutter.take(hashes, zero, Math.min(known, pages.length), false, (piece) => void pieces.push(piece));
  cutter.take(hashes, zero, pages.length, true, (piece) => void pieces.push(piece));
  return pieces;
}

/** The rule as docs/format.md gives it. */
function cutByTheBook(pages: Pages): Piece[] {
  const hashes = hashesOf(pages);
  const cipher = createCipheriv('aes-128-ecb', KEY, null).setAutoPadding(false);
  const mark = (i: number) => cipher.update(hashes.subarray(i * 32, i * 32 + 16)).readUInt32LE(0);
  const pieces: Piece[] = [];
  let start = 0;
  for (let i = 0; i < pages.length; ) {
    if (pages[i] === 0 && (i === 0 || pages[i - 1] !== 0)) {
      let n = 0;
      while (pages[i + n] === 0) n++;
      if (n >= 16) {
        if (start < i) pieces.push({ zero: false, firstPage: start, pages: i - start });
        pieces.push({ zero: true, firstPage: i, pages: n });
        i = start = i + n;
        continue;
      }
    }
    i++;
    const length = i - start;
    if (length === 128 || (length >= 8 && pages[i - 1] !== 0 && mark(i - 1) < 178956970)) {
      pieces.push({ zero: false, firstPage: start, pages: length });
      start = i;
    }
  }
  if (start < pages.length) pieces.push({ zero: false, firstPage: start, pages: pages.length - start });
  return pieces;
}

/** Sequences in which zero runs of all lengths around the bound occur. */
const sequences = fc
  .array(
    fc.oneof(
      fc.integer({ min: 1, max: 40 }).map((n) => Array<number>(n).fill(0)),
      fc
        .tuple(fc.integer({ min: 1, max: 1e9 }), fc.integer({ min: 1, max: 300 }))
        .map(([first, n]) => Array.from({ length: n }, (_, i) => first + i)),
    ),
    { minLength: 1, maxLength: 8 },
  )
  .map((parts) => parts.flat());

const range = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i);

describe('the cut', () => {
  it('is what the document says', () => {
    fc.assert(
      fc.property(sequences, (pages) => assert.deepEqual(cut(pages), cutByTheBook(pages))),
      { seed: 2, numRuns: 150 },
    );
  });

  it('does not depend on how the pages were handed in', () => {
    fc.assert(
      fc.property(sequences, fc.array(fc.nat({ max: 2500 }), { maxLength: 12 }), (pages, splits) => {
        assert.deepEqual(cut(pages, splits), cut(pages));
      }),
      { seed: 3, numRuns: 150 },
    );
    const pages = [...range(1, 50), ...Array<number>(20).fill(0), ...range(100, 50)];
    assert.deepEqual(cut(pages, range(0, 121)), cut(pages), 'page by page');
  });

  it('covers all pages in order, without gaps, within the bounds', () => {
    fc.assert(
      fc.property(sequences, (pages) => {
        let at = 0;
        const pieces = cut(pages);
        pieces.forEach((piece, i) => {
          assert.equal(piece.firstPage, at);
          at += piece.pages;
          if (piece.zero) return;
          assert.ok(piece.pages >= 1 && piece.pages <= 128);
          // Only a zero run or the end may make a chunk shorter than the minimum.
          if (piece.pages < 8) assert.ok(i === pieces.length - 1 || pieces[i + 1]!.zero);
        });
        assert.equal(at, pages.length);
      }),
      { seed: 4, numRuns: 150 },
    );
  });

  it('makes runs of 16 zero pages or more into zero runs, and leaves shorter ones inside chunks', () => {
    fc.assert(
      fc.property(sequences, (pages) => {
        for (const piece of cut(pages)) {
          const inside = pages.slice(piece.firstPage, piece.firstPage + piece.pages);
          if (piece.zero) {
            assert.ok(piece.pages >= 16 && inside.every((page) => page === 0));
            assert.notEqual(pages[piece.firstPage - 1], 0, 'the run begins where the zeros begin');
            assert.notEqual(pages[piece.firstPage + piece.pages], 0, 'and ends where they end');
          } else assert.ok(!inside.join(',').includes(Array(16).fill('0').join(',')));
        }
      }),
      { seed: 5, numRuns: 150 },
    );
  });

  it('looks at content only: the same content elsewhere falls into step', () => {
    const shared = range(1000, 600);
    const ends = (pages: Pages) =>
      new Set(
        cut(pages)
          .map((piece) => pages[piece.firstPage + piece.pages - 1])
          .filter((page) => page! >= 1000),
      );
    const one = ends(shared);
    for (const before of [1, 7, 100, 333]) {
      const other = ends([...range(1, before), ...shared]);
      const common = [...other].filter((end) => one.has(end));
      assert.ok(
        common.length >= one.size * 0.7,
        `${common.length} of ${one.size} ends in common after ${before} pages`,
      );
    }
  });

  it('is another one under another key', () => {
    const pages = range(1, 2000);
    const ends = (key: Uint8Array) => new Set(cut(pages, [], key).map((piece) => piece.firstPage + piece.pages));
    const one = ends(KEY);
    const common = [...ends(Buffer.alloc(16, 10))].filter((end) => one.has(end));
    assert.ok(common.length < one.size * 0.2, `${common.length} of ${one.size} ends in common`);
  });

  it('makes chunks of 32 pages on average', () => {
    const lengths = range(0, 20).flatMap((i) => cut(range(1 + i * 4096, 4096)).map((piece) => piece.pages));
    const mean = lengths.reduce((sum, pages) => sum + pages, 0) / lengths.length;
    assert.ok(mean > 29 && mean < 34, `${mean} pages`);
    const atMaximum = lengths.filter((pages) => pages === 128).length / lengths.length;
    assert.ok(atMaximum < 0.02, `${atMaximum} of the chunks are cut by length alone`);
  });

  it('refuses more than a segment, and begins anew at start()', () => {
    const cutter = new Cutter(KEY);
    assert.throws(() => cutter.take(Buffer.alloc(0), new Uint8Array(0), 4097, true, () => undefined), RangeError);
    const pages = range(1, 200);
    const hashes = hashesOf(pages);
    const take = (known: number, final: boolean) => {
      const pieces: Piece[] = [];
      cutter.take(hashes, new Uint8Array(200), known, final, (piece) => void pieces.push(piece));
      return pieces;
    };
    cutter.start();
    take(77, false);
    cutter.start();
    assert.deepEqual(take(200, true), cut(pages));
  });
});
