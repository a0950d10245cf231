import { PAGE_BYTES, SEGMENT_BYTES } from '#repository/parameters.ts';
import type { Extent } from '../../sources/disk.ts';

/**
 * Page ranges of a disk: sorted, merged, without overlap; pairs of first page and end page in one
 * array, which may be shared between threads.
 */
export type PageRanges = Float64Array;

/**
 * Byte extents as page ranges, widened to whole pages and cut to the disk.
 * @param allocate  may hand out shared memory
 */
export function toPageRanges(
  extents: readonly Extent[],
  sizeBytes: number,
  allocate: (bytes: number) => ArrayBufferLike,
): PageRanges {
  const lastPage = Math.ceil(sizeBytes / PAGE_BYTES);
  const sorted = extents
    .filter((extent) => extent.length > 0 && extent.offset < sizeBytes)
    .sort((a, b) => a.offset - b.offset);
  const merged: number[] = [];
  for (const { offset, length } of sorted) {
    const from = Math.floor(offset / PAGE_BYTES);
    const to = Math.min(lastPage, Math.ceil((offset + length) / PAGE_BYTES));
    if (merged.length > 0 && from <= merged.at(-1)!) merged[merged.length - 1] = Math.max(merged.at(-1)!, to);
    else merged.push(from, to);
  }
  const ranges = new Float64Array(allocate(merged.length * 8));
  ranges.set(merged);
  return ranges;
}

/** Calls `take` with the parts of the ranges that lie in the pages `from` ≤ p < `to`. */
export function eachRange(
  ranges: PageRanges,
  from: number,
  to: number,
  take: (first: number, end: number) => void,
): void {
  let low = 0;
  let high = ranges.length / 2; // the first range that ends after `from`
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ranges[middle * 2 + 1]! <= from) low = middle + 1;
    else high = middle;
  }
  for (let i = low; i * 2 < ranges.length && ranges[i * 2]! < to; i++)
    take(Math.max(from, ranges[i * 2]!), Math.min(to, ranges[i * 2 + 1]!));
}

/** Ascending numbers of the segments that the ranges touch. */
export function segmentsTouched(ranges: PageRanges): number[] {
  const segments: number[] = [];
  const pages = SEGMENT_BYTES / PAGE_BYTES;
  for (let i = 0; i < ranges.length; i += 2) {
    for (let segment = Math.floor(ranges[i]! / pages); segment * pages < ranges[i + 1]!; segment++) {
      if (segments.at(-1) !== segment) segments.push(segment);
    }
  }
  return segments;
}

/** Pages in the ranges. */
export function countPages(ranges: PageRanges): number {
  let pages = 0;
  for (let i = 0; i < ranges.length; i += 2) pages += ranges[i + 1]! - ranges[i]!;
  return pages;
}

/** The ranges that are in both. */
export function intersect(a: PageRanges, b: PageRanges, allocate: (bytes: number) => ArrayBufferLike): PageRanges {
  const both: number[] = [];
  for (let i = 0; i < a.length; i += 2) eachRange(b, a[i]!, a[i + 1]!, (first, end) => void both.push(first, end));
  const ranges = new Float64Array(allocate(both.length * 8));
  ranges.set(both);
  return ranges;
}
