import { HoldfastError } from '#contract/errors.ts';
import type { Image, ReadNode } from '#repository/image.ts';
import { listLeaves, resolveLeaf, segmentsOf } from '#repository/image.ts';
import type { MapRun } from '#repository/leaf.ts';
import { packKey } from '#repository/names.ts';
import type { PackReader } from '#repository/pack-reader.ts';
import { PAGE_BYTES, SEGMENT_BYTES } from '#repository/parameters.ts';

/** Stored bytes fetched at once: large enough that a store's latency hardly counts, small enough to keep several in memory. */
const FETCH_MAX_BYTES = 4 * 1024 * 1024;
/** Bytes that are fetched in vain rather than asking twice. */
const GAP_MAX_BYTES = 64 * 1024;

/** Where a part of a chunk goes: bytes of disk ← bytes of the chunk. */
export interface Placement {
  readonly diskOffset: number;
  readonly chunkOffset: number;
  readonly length: number;
}

/** A sealed chunk inside a fetched range, and all places that want it. */
export interface WantedChunk {
  /** Offset in the fetched range. */
  readonly at: number;
  readonly length: number;
  readonly id: Uint8Array;
  readonly placements: readonly Placement[];
}

/** One ranged read of a pack. */
export interface Fetch {
  readonly key: string;
  readonly offset: number;
  readonly length: number;
  readonly chunks: readonly WantedChunk[];
}

/** A stretch of disk that is restored as a whole: its zero ranges and the reads that bring the rest. */
export interface RestoreWindow {
  readonly offset: number;
  readonly length: number;
  readonly zeros: readonly { readonly offset: number; readonly length: number }[];
  readonly fetches: readonly Fetch[];
}

/**
 * Plans the restore of segments `from` ≤ s < `to`: finds every chunk they need and orders the reads by
 * pack, so that the store sees few large reads instead of one a chunk. Memory: about 300 bytes a chunk.
 */
export async function planWindow(image: Image, from: number, to: number, reader: PackReader): Promise<RestoreWindow> {
  const readNode: ReadNode = (id) => reader.read(id);
  const offset = from * SEGMENT_BYTES;
  const end = Math.min(to * SEGMENT_BYTES, image.sizeBytes);
  const zeros: { offset: number; length: number }[] = [];
  const wanted = new Map<string, { readonly id: Buffer; readonly placements: Placement[] }>();
  const zero = (at: number, until: number) => {
    const last = zeros.at(-1);
    if (last && last.offset + last.length === at) last.length += until - at;
    else if (until > at) zeros.push({ offset: at, length: until - at });
  };
  let settled = offset;
  for await (const leaf of listLeaves(image, readNode, from, to)) {
    const base = leaf.segment * SEGMENT_BYTES;
    zero(settled, base);
    const size = Math.min(SEGMENT_BYTES, image.sizeBytes - base);
    const runs = await atSegment(base, size, () => resolveLeaf(leaf.id, readNode));
    checkCover(runs.runs, base, size);
    for (const run of runs.runs) {
      const start = base + run.firstPage * PAGE_BYTES;
      const length = Math.min(run.pages * PAGE_BYTES, base + size - start);
      if (length <= 0) continue; // the disk shrank to the middle of a segment
      if (run.chunk === null) zero(start, start + length);
      else want(wanted, run, start, length);
    }
    settled = base + size;
  }
  zero(settled, end);
  return { offset, length: end - offset, zeros, fetches: await planFetches(wanted, reader) };
}

/** The number of segments in each window, so that all windows but the last have about this many bytes. */
export function* windowsOf(
  image: Image,
  windowBytes: number,
): Generator<{ readonly from: number; readonly to: number }> {
  const step = Math.max(1, Math.floor(windowBytes / SEGMENT_BYTES));
  const segments = segmentsOf(image.sizeBytes);
  for (let from = 0; from < segments; from += step) yield { from, to: Math.min(from + step, segments) };
}

function want(
  wanted: Map<string, { readonly id: Buffer; readonly placements: Placement[] }>,
  run: MapRun,
  diskOffset: number,
  length: number,
): void {
  const key = run.chunk!.toString('latin1');
  const chunk = wanted.get(key) ?? { id: run.chunk!, placements: [] };
  wanted.set(key, chunk);
  chunk.placements.push({ diskOffset, chunkOffset: run.chunkPage * PAGE_BYTES, length });
}

/** A map must say of every page what it is; one that does not is damaged, and must not become a hole. */
function checkCover(runs: readonly MapRun[], offset: number, length: number): void {
  let page = 0;
  for (const run of runs) {
    if (run.firstPage !== page) break;
    page += run.pages;
  }
  if (page * PAGE_BYTES < length)
    throw new HoldfastError('damaged', 'A segment map does not cover its segment', { data: { offset, length } });
}

async function atSegment<T>(offset: number, length: number, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw withRange(error, offset, length);
  }
}

/** The same error with the bytes of disk that it concerns, unless it names some already. */
export function withRange(error: unknown, offset: number, length: number): unknown {
  if (!(error instanceof HoldfastError) || error.data.offset !== undefined) return error;
  return new HoldfastError(error.code, error.message, {
    ...error,
    cause: error,
    data: { ...error.data, offset, length },
  });
}

async function planFetches(
  wanted: ReadonlyMap<string, { readonly id: Buffer; readonly placements: readonly Placement[] }>,
  reader: PackReader,
): Promise<Fetch[]> {
  const packs = new Map<
    string,
    {
      readonly offset: number;
      readonly length: number;
      readonly id: Buffer;
      readonly placements: readonly Placement[];
    }[]
  >();
  for (const { id, placements } of wanted.values()) {
    const first = placements[0]!;
    const { pack, slot } = await atSegment(first.diskOffset, first.length, () => reader.find(id));
    const key = packKey(pack.id);
    const chunks = packs.get(key) ?? [];
    packs.set(key, chunks);
    chunks.push({ offset: slot.offset, length: slot.length, id, placements });
  }
  const fetches: Fetch[] = [];
  for (const [key, chunks] of packs) {
    chunks.sort((a, b) => a.offset - b.offset);
    for (let i = 0; i < chunks.length; ) {
      const { offset } = chunks[i]!;
      let end = offset;
      const first = i;
      for (; i < chunks.length; i++) {
        const chunk = chunks[i]!;
        if (i > first && (chunk.offset > end + GAP_MAX_BYTES || chunk.offset + chunk.length - offset > FETCH_MAX_BYTES))
          break;
        end = chunk.offset + chunk.length;
      }
      const inside = chunks.slice(first, i).map((chunk) => ({
        at: chunk.offset - offset,
        length: chunk.length,
        id: chunk.id,
        placements: chunk.placements,
      }));
      fetches.push({ key, offset, length: end - offset, chunks: inside });
    }
  }
  return fetches;
}
