import { HoldfastError } from '#contract/errors.ts';
import { type Image, listLeaves, resolveLeaf } from '#repository/image.ts';
import type { MapRun } from '#repository/leaf.ts';
import { remember } from '#repository/lru.ts';
import type { PackReader } from '#repository/pack-reader.ts';
import { PAGE_BYTES, SEGMENT_BYTES } from '#repository/parameters.ts';

/** Opened chunks kept: reads of neighbours hit the same chunk many times. */
const CHUNK_CACHE_BYTES = 64 * 1024 * 1024;
/** Maps kept: 4 GiB of disk. */
const MAP_CACHE_SEGMENTS = 256;

/** A range of a disk of a point and whether it holds data. */
export interface DiskRange {
  readonly length: number;
  readonly zero: boolean;
}

/** Random reads of one disk of a point, straight from the vault; every chunk is checked against its id. */
export class PointDisk {
  readonly sizeBytes: number;
  readonly #image: Image;
  readonly #reader: PackReader;
  readonly #maps = new Map<number, Promise<readonly MapRun[]>>();
  readonly #chunks = new Map<string, Promise<Buffer>>();
  #chunkBytes = 0;

  constructor(image: Image, reader: PackReader) {
    this.#image = image;
    this.#reader = reader;
    this.sizeBytes = image.sizeBytes;
  }

  /** Fills `into` from `offset`. Throws `damaged` or `missing` naming the offset; never gives wrong bytes. */
  async read(offset: number, into: Uint8Array): Promise<void> {
    const parts: Promise<void>[] = [];
    for await (const { run, at, from, length } of this.#pieces(offset, into.length)) {
      const target = into.subarray(at, at + length);
      if (run.chunk === null) target.fill(0);
      else parts.push(this.#copy(run, from, target, offset + at));
    }
    await Promise.all(parts);
  }

  /** Data and zero ranges from `offset` on, up to `length` bytes, neighbours of one kind joined. */
  async ranges(offset: number, length: number): Promise<DiskRange[]> {
    const ranges: { length: number; zero: boolean }[] = [];
    for await (const piece of this.#pieces(offset, length)) {
      const zero = piece.run.chunk === null;
      const last = ranges.at(-1);
      if (last?.zero === zero) last.length += piece.length;
      else ranges.push({ length: piece.length, zero });
    }
    return ranges;
  }

  /** The map runs that a byte range meets; `from` is the byte in the run at which the piece begins. */
  async *#pieces(
    offset: number,
    length: number,
  ): AsyncGenerator<{ readonly run: MapRun; readonly at: number; readonly from: number; readonly length: number }> {
    if (offset < 0 || offset + length > this.sizeBytes)
      throw new RangeError(`${offset}+${length} of ${this.sizeBytes} bytes`);
    for (let at = 0; at < length; ) {
      const segment = Math.floor((offset + at) / SEGMENT_BYTES);
      const inSegment = (offset + at) % SEGMENT_BYTES;
      const runs = await this.#map(segment);
      const run = runs[findRun(runs, Math.floor(inSegment / PAGE_BYTES))]!;
      const from = inSegment - run.firstPage * PAGE_BYTES;
      const piece = Math.min(run.pages * PAGE_BYTES - from, length - at);
      yield { run, at, from, length: piece };
      at += piece;
    }
  }

  async #copy(run: MapRun, from: number, target: Uint8Array, diskOffset: number): Promise<void> {
    try {
      const content = await this.#chunk(run.chunk!);
      const start = run.chunkPage * PAGE_BYTES + from;
      if (start + target.length > content.length)
        throw new HoldfastError('damaged', 'A map reaches beyond the end of a chunk');
      target.set(content.subarray(start, start + target.length));
    } catch (error) {
      if (!(error instanceof HoldfastError)) throw error;
      throw new HoldfastError(
        error.code,
        `Bytes ${diskOffset} to ${diskOffset + target.length - 1} cannot be read: ${error.message}`,
        {
          cause: error,
          data: { ...error.data, offset: diskOffset, length: target.length },
        },
      );
    }
  }

  #map(segment: number): Promise<readonly MapRun[]> {
    return remember(this.#maps, segment, MAP_CACHE_SEGMENTS, async () => {
      const readNode = (id: Buffer) => this.#reader.read(id);
      for await (const { id } of listLeaves(this.#image, readNode, segment, segment + 1)) {
        const { runs } = await resolveLeaf(id, readNode);
        const pages = runs.at(-1)!.firstPage + runs.at(-1)!.pages;
        if (pages * PAGE_BYTES < Math.min(SEGMENT_BYTES, this.sizeBytes - segment * SEGMENT_BYTES)) {
          throw new HoldfastError('damaged', 'A segment map does not cover its segment', {
            data: { offset: segment * SEGMENT_BYTES },
          });
        }
        return runs;
      }
      return [{ firstPage: 0, pages: SEGMENT_BYTES / PAGE_BYTES, chunk: null, chunkPage: 0 }];
    });
  }

  #chunk(id: Buffer): Promise<Buffer> {
    const key = id.toString('latin1');
    const made = remember(this.#chunks, key, Number.POSITIVE_INFINITY, async () => {
      const content = await this.#reader.read(id);
      this.#chunkBytes += content.length;
      for (const oldest of this.#chunks.keys()) {
        if (this.#chunkBytes <= CHUNK_CACHE_BYTES || oldest === key) break;
        void this.#chunks.get(oldest)!.then((dropped) => (this.#chunkBytes -= dropped.length));
        this.#chunks.delete(oldest);
      }
      return content;
    });
    return made;
  }
}

/** Index of the run that holds the page; runs are in order and without gaps. */
function findRun(runs: readonly MapRun[], page: number): number {
  let low = 0;
  let high = runs.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (runs[middle]!.firstPage <= page) low = middle;
    else high = middle - 1;
  }
  return low;
}
