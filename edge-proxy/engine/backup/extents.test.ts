import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { countPages, eachRange, intersect, type PageRanges, segmentsTouched, toPageRanges } from './extents.ts';

const PAGES = 12_000;
const SIZE = PAGES * 4096 - 100; // the last page is short
const allocate = (bytes: number) => new ArrayBuffer(bytes);

const extents = fc.array(
  fc.record({
    offset: fc.nat({ max: SIZE + 50_000 }),
    length: fc.oneof(fc.nat({ max: 20_000 }), fc.nat({ max: 20_000_000 })),
  }),
  { maxLength: 12 },
);

/** The naive model: one bit a page. */
function pagesOf(list: readonly { readonly offset: number; readonly length: number }[]): Uint8Array {
  const pages = new Uint8Array(PAGES);
  for (const { offset, length } of list)
    if (length > 0)
      pages.fill(1, Math.floor(offset / 4096), Math.max(0, Math.ceil(Math.min(offset + length, SIZE) / 4096)));
  return pages;
}

function bits(ranges: PageRanges): Uint8Array {
  const pages = new Uint8Array(PAGES);
  for (let i = 0; i < ranges.length; i += 2) pages.fill(1, ranges[i]!, ranges[i + 1]!);
  return pages;
}

describe('page ranges', () => {
  it('are the pages that the extents touch, sorted, merged, and cut to the disk', () => {
    fc.assert(
      fc.property(extents, (list) => {
        const ranges = toPageRanges(list, SIZE, allocate);
        assert.deepEqual(bits(ranges), pagesOf(list));
        for (let i = 1; i < ranges.length; i++)
          assert.ok(ranges[i]! > ranges[i - 1]!, 'none is empty, none touches the next');
        assert.equal(
          countPages(ranges),
          pagesOf(list).reduce((sum, bit) => sum + bit, 0),
        );
      }),
      { seed: 11, numRuns: 200 },
    );
  });

  it('hand out exactly their part of any stretch', () => {
    fc.assert(
      fc.property(extents, fc.nat({ max: PAGES }), fc.nat({ max: PAGES }), (list, a, b) => {
        const [from, to] = a < b ? [a, b] : [b, a];
        const got = new Uint8Array(PAGES);
        eachRange(toPageRanges(list, SIZE, allocate), from, to, (first, end) => {
          assert.ok(from <= first && first < end && end <= to);
          got.fill(1, first, end);
        });
        const expected = pagesOf(list).map((bit, page) => (page >= from && page < to ? bit : 0));
        assert.deepEqual(got, expected);
      }),
      { seed: 12, numRuns: 200 },
    );
  });

  it('intersect as sets do', () => {
    fc.assert(
      fc.property(extents, extents, (one, other) => {
        const both = intersect(toPageRanges(one, SIZE, allocate), toPageRanges(other, SIZE, allocate), allocate);
        const model = pagesOf(other);
        assert.deepEqual(
          bits(both),
          pagesOf(one).map((bit, page) => bit & model[page]!),
        );
      }),
      { seed: 13, numRuns: 200 },
    );
  });

  it('name each segment they touch once, in order', () => {
    fc.assert(
      fc.property(extents, (list) => {
        const pages = pagesOf(list);
        const expected = [0, 1, 2].filter((segment) =>
          pages.subarray(segment * 4096, (segment + 1) * 4096).includes(1),
        );
        assert.deepEqual(segmentsTouched(toPageRanges(list, SIZE, allocate)), expected);
      }),
      { seed: 14, numRuns: 200 },
    );
  });
});
