import type { LeafFacts } from '#repository/leaf.ts';
import { ID_BYTES } from '#repository/parameters.ts';
import type { DiskLocator } from '../../sources/disk.ts';
import type { PageRanges } from './extents.ts';

/**
 * How a disk is read.
 * `whole`: nothing is known of it. `compare`: everything is read and compared with the page
 * fingerprints of the parent. `changes`: only the ranges given are read.
 */
export type ReadMode = 'whole' | 'compare' | 'changes';

/** One disk's part of a plan, in shared memory, the same for all workers. */
export interface DiskPlan {
  readonly locator: DiskLocator;
  readonly sizeBytes: number;
  readonly mode: ReadMode;
  /** Pages that may hold data. */
  readonly allocated: PageRanges;
  /** Pages that may differ from the parent; used in mode `changes`. */
  readonly changed: PageRanges;
  /** Pages that count as changed whatever their fingerprints say. */
  readonly forced: PageRanges;
  /** The parent's {@link LeafTable}, or absent. */
  readonly parent?: SharedArrayBuffer;
  /** The parent's page fingerprints, where the proxy holds them. */
  readonly fingerprints?: { readonly path: string; readonly sums: SharedArrayBuffer };
}

/** What became of a segment. Plain data: crosses threads. */
export type UnitOutcome =
  | { readonly kind: 'same' }
  | { readonly kind: 'zero' }
  /** A new map, whole or a delta on the parent's. */
  | {
      readonly kind: 'leaf';
      readonly content: Uint8Array;
      readonly children: Uint8Array;
      readonly facts: LeafFacts;
      readonly merge: boolean;
    };

export interface UnitResult {
  readonly disk: number;
  readonly segment: number;
  readonly outcome: UnitOutcome;
  /** Page fingerprints that changed, as a record of the fingerprint log; absent if none. */
  readonly fingerprints?: Uint8Array;
}

const ROW_BYTES = ID_BYTES + 8;
const NONE = 0;
const ZERO = 1;
const LEAF = 2;
/** A leaf of which only the id is known so far. */
const LEAF_BARE = 3;

/** A segment's entry in a parent's table. */
export type LeafEntry =
  | { readonly kind: 'none' }
  | { readonly kind: 'zero' }
  | { readonly kind: 'leaf'; readonly id: Buffer; readonly facts: LeafFacts | null };

/** Leaf ids and facts of all segments of a disk: 40 bytes each. */
export class LeafTable {
  readonly memory: SharedArrayBuffer;
  readonly segments: number;
  readonly #rows: Buffer;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.#rows = Buffer.from(memory);
    this.segments = memory.byteLength / ROW_BYTES;
  }

  /** A table in which nothing is known. */
  static allocate(segments: number): LeafTable {
    return new LeafTable(new SharedArrayBuffer(segments * ROW_BYTES));
  }

  get bytes(): Buffer {
    return this.#rows;
  }

  get(segment: number): LeafEntry {
    const at = segment * ROW_BYTES;
    const kind = this.#rows[at + ID_BYTES];
    if (kind === NONE) return { kind: 'none' };
    if (kind === ZERO) return { kind: 'zero' };
    const id = this.#rows.subarray(at, at + ID_BYTES);
    if (kind === LEAF_BARE) return { kind: 'leaf', id, facts: null };
    const facts = {
      depth: this.#rows[at + 33]!,
      patchChunks: this.#rows.readUInt16LE(at + 34),
      patchedPages: this.#rows.readUInt16LE(at + 36),
    };
    return { kind: 'leaf', id, facts };
  }

  /** @param facts  `null`: not known; they are read from the node when they are needed */
  setLeaf(segment: number, id: Uint8Array, facts: LeafFacts | null): void {
    const at = segment * ROW_BYTES;
    this.#rows.set(id, at);
    this.#rows[at + ID_BYTES] = facts === null ? LEAF_BARE : LEAF;
    if (facts === null) return;
    this.#rows[at + 33] = facts.depth;
    this.#rows.writeUInt16LE(Math.min(facts.patchChunks, 65_535), at + 34);
    this.#rows.writeUInt16LE(Math.min(facts.patchedPages, 65_535), at + 36);
  }

  setZero(segment: number): void {
    this.#clear(segment, ZERO);
  }

  setNone(segment: number): void {
    this.#clear(segment, NONE);
  }

  /** 32 bytes a segment, zero bytes for zero segments: what an image tree is built over. */
  ids(): Buffer {
    const ids = Buffer.alloc(this.segments * ID_BYTES);
    for (let segment = 0; segment < this.segments; segment++) {
      const at = segment * ROW_BYTES;
      if (this.#rows[at + ID_BYTES]! >= LEAF) this.#rows.copy(ids, segment * ID_BYTES, at, at + ID_BYTES);
    }
    return ids;
  }

  #clear(segment: number, kind: number): void {
    const at = segment * ROW_BYTES;
    this.#rows.fill(0, at, at + ROW_BYTES);
    this.#rows[at + ID_BYTES] = kind;
  }
}
