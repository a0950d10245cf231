import { closeSync, openSync, readSync } from 'node:fs';
import { HoldfastError } from '#contract/errors.ts';
import { type ChunkLocation, type IndexedPack, type IndexHead, IndexSegmentReader } from '#repository/index-segment.ts';

/** A verified local copy of an index segment, as threads hand it to each other. */
export interface IndexCopy {
  readonly path: string;
  /** In shared memory. */
  readonly head: IndexHead;
}

/** Looks chunks up in the local copies of the index: in memory what the filter rejects, one page read for the rest. */
export class KnownChunks {
  readonly #segments: { readonly reader: IndexSegmentReader; readonly descriptor: number }[] = [];

  constructor(copies: readonly IndexCopy[]) {
    for (const copy of copies) this.add(copy);
  }

  add(copy: IndexCopy): void {
    const descriptor = openSync(copy.path, 'r');
    const reader = new IndexSegmentReader(copy.head, (offset, into) => {
      if (readSync(descriptor, into, 0, into.length, offset) !== into.length) {
        throw new HoldfastError('damaged', `The local index copy ${copy.path} ends early`, {
          remedy: 'Delete the cache folder; it is fetched again',
        });
      }
    });
    this.#segments.push({ reader, descriptor });
  }

  has(id: Buffer): boolean {
    return this.#segments.some(({ reader }) => reader.has(id));
  }

  /** Every place that holds the chunk, most recent segment first. */
  *locations(id: Buffer): Generator<ChunkLocation> {
    for (let i = this.#segments.length - 1; i >= 0; i--) {
      yield* this.#segments[i]!.reader.locateAll(id);
    }
  }

  /** Every pack that the index names. */
  *packs(): Generator<IndexedPack> {
    for (const { reader } of this.#segments)
      for (let ordinal = 0; ordinal < reader.packCount; ordinal++) yield reader.packAt(ordinal);
  }

  [Symbol.dispose](): void {
    for (const { descriptor } of this.#segments.splice(0)) closeSync(descriptor);
  }
}
