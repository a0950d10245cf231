import { closeSync, openSync } from 'node:fs';
import type { Cutter, Piece } from '#repository/cut.ts';
import { append, encodeLeaf, FRESH_LEAF, type Leaf, type LeafFacts, type MapRun } from '#repository/leaf.ts';
import { isZeroPage, ZERO_PAGE_HASH } from '#repository/page.ts';
import {
  CHUNK_MAX_PAGES,
  FINGERPRINT_BYTES,
  HASH_BYTES,
  LEAF_DELTA_MAX_DEPTH,
  PAGE_BYTES,
  SEGMENT_BYTES,
  SEGMENT_PAGES,
  ZERO_RUN_MIN_PAGES,
} from '#repository/parameters.ts';
import { sha256Into } from '#repository/sha256.ts';
import type { DiskReader } from '../../sources/disk.ts';
import type { Meter } from '../stages.ts';
import type { ChunkWriter } from './chunk-writer.ts';
import { eachRange } from './extents.ts';
import { fingerprintMatches, readFingerprints, recordAll, recordSome } from './fingerprints.ts';
import { type DiskPlan, type LeafEntry, LeafTable, type UnitOutcome, type UnitResult } from './unit.ts';

/** Pages worked on at a time: they stay in the processor's cache from read to seal. */
const STRIPE_PAGES = CHUNK_MAX_PAGES;
/** A segment patched by more chunks than this since it was cut whole is cut whole again. */
const PATCH_CHUNKS_MAX = 64;
const KNOWN_ZERO = 1;
const IN_BUFFER = 2;
const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);

interface OpenDisk {
  readonly plan: DiskPlan;
  readonly reader: DiskReader;
  readonly table: LeafTable | undefined;
  readonly fingerprints: { readonly descriptor: number; readonly sums: Buffer } | undefined;
}

/**
 * Backs up one segment of a disk at a time, from read to sealed chunks and a map. Each worker has one,
 * with buffers that it uses again for every segment.
 */
export class SegmentBackup {
  readonly #disks: readonly OpenDisk[];
  readonly #cutter: Cutter;
  readonly #writer: ChunkWriter;
  readonly #meter: Meter;
  readonly #data = Buffer.alloc(SEGMENT_BYTES);
  readonly #hashes = Buffer.alloc(SEGMENT_PAGES * HASH_BYTES);
  readonly #zero = new Uint8Array(SEGMENT_PAGES);
  /** What is known of each page in this unit: nothing (0), KNOWN_ZERO or IN_BUFFER. */
  readonly #present = new Uint8Array(SEGMENT_PAGES);
  readonly #forced = new Uint8Array(SEGMENT_PAGES);
  readonly #fingerprints = Buffer.alloc(SEGMENT_PAGES * FINGERPRINT_BYTES);

  constructor(
    disks: readonly { readonly plan: DiskPlan; readonly reader: DiskReader }[],
    cutter: Cutter,
    writer: ChunkWriter,
    meter: Meter,
  ) {
    this.#disks = disks.map(({ plan, reader }) => ({
      plan,
      reader,
      table: plan.parent && new LeafTable(plan.parent),
      fingerprints: plan.fingerprints && {
        descriptor: openSync(plan.fingerprints.path, 'r'),
        sums: Buffer.from(plan.fingerprints.sums),
      },
    }));
    this.#cutter = cutter;
    this.#writer = writer;
    this.#meter = meter;
  }

  async run(diskIndex: number, segment: number): Promise<UnitResult> {
    const disk = this.#disks[diskIndex]!;
    const { plan } = disk;
    const bytes = Math.min(SEGMENT_BYTES, plan.sizeBytes - segment * SEGMENT_BYTES);
    const unit = { disk, segment, bytes, pages: Math.ceil(bytes / PAGE_BYTES) };
    const parent: LeafEntry = disk.table?.get(segment) ?? { kind: 'none' };
    const result = (outcome: UnitOutcome, fingerprints?: Uint8Array): UnitResult => ({
      disk: diskIndex,
      segment,
      outcome,
      ...(fingerprints === undefined ? {} : { fingerprints }),
    });
    this.#meter.start();
    this.#present.fill(0, 0, unit.pages);

    if (parent.kind === 'none' || plan.mode === 'whole') {
      return result(
        ...(await this.#cutWhole(unit, (take) =>
          eachRange(plan.allocated, unit.segment * SEGMENT_PAGES, this.#endPage(unit), take),
        )),
      );
    }
    if (parent.kind === 'zero' && plan.mode === 'changes') {
      // What did not change is zero: only the changed pages need to be read.
      return result(...(await this.#cutWhole(unit, (take) => this.#eachToRead(unit, take))));
    }

    // Find out which pages changed.
    await this.#readAndHash(unit, (take) => this.#eachToRead(unit, take));
    const dirty = this.#dirtyPages(unit, parent);
    this.#meter.mark('hash');
    if (dirty.length === 0) return result({ kind: 'same' });
    const facts = parent.kind === 'leaf' ? parent.facts : null;
    if (parent.kind === 'zero' || facts === null || this.#deservesNewCut(unit, facts, dirty.length)) {
      await this.#readAndHash(unit, (take) =>
        eachRange(plan.allocated, unit.segment * SEGMENT_PAGES, this.#endPage(unit), take),
      );
      return result(...this.#cutPresent(unit));
    }
    return result(...this.#patch(unit, { id: parent.id, facts }, dirty));
  }

  close(): void {
    for (const { fingerprints } of this.#disks) if (fingerprints) closeSync(fingerprints.descriptor);
  }

  #endPage(unit: Unit): number {
    return unit.segment * SEGMENT_PAGES + unit.pages;
  }

  #eachToRead(unit: Unit, take: (first: number, end: number) => void): void {
    const { plan } = unit.disk;
    const from = unit.segment * SEGMENT_PAGES;
    const end = this.#endPage(unit);
    if (plan.mode !== 'changes') {
      eachRange(plan.allocated, from, end, take);
      return;
    }
    eachRange(plan.changed, from, end, (first, last) => {
      // Changed but not allocated: it reads as zeros, and that is news.
      this.#markZero(unit, first - from, last - from);
      eachRange(plan.allocated, first, last, take);
    });
  }

  #markZero(unit: Unit, from: number, to: number): void {
    for (let page = from; page < to; page++) {
      if (this.#present[page] !== 0) continue;
      this.#present[page] = KNOWN_ZERO;
      this.#noteZero(unit, page);
    }
  }

  #noteZero(unit: Unit, page: number): void {
    this.#zero[page] = 1;
    const length = unit.bytes - page * PAGE_BYTES;
    if (length >= PAGE_BYTES) ZERO_PAGE_HASH.copy(this.#hashes, page * HASH_BYTES);
    else sha256Into(ZERO_PAGE.subarray(0, length), this.#hashes, page * HASH_BYTES);
  }

  /** Reads and hashes the ranges that are not present yet, stripe by stripe. */
  async #readAndHash(unit: Unit, ranges: (take: (first: number, end: number) => void) => void): Promise<void> {
    const stripes: { readonly first: number; readonly end: number; readonly read?: Promise<void> }[] = [];
    const base = unit.segment * SEGMENT_PAGES;
    const pipelined = unit.disk.reader.style === 'pipelined';
    ranges((first, end) => {
      for (let at = first - base; at < end - base; at += STRIPE_PAGES) {
        const stripe = { first: at, end: Math.min(at + STRIPE_PAGES, end - base) };
        // The read of a stripe that was read before (to find changes) is not repeated.
        if (this.#allRead(stripe.first, stripe.end)) continue;
        if (!pipelined) stripes.push(stripe);
        else {
          const read = Promise.resolve(this.#read(unit, stripe.first, stripe.end));
          read.catch(() => undefined); // reported when its turn comes
          stripes.push({ ...stripe, read });
        }
      }
    });
    try {
      for (const stripe of stripes) {
        const read = pipelined ? stripe.read : this.#read(unit, stripe.first, stripe.end);
        if (read) await read;
        this.#meter.mark('read');
        this.#hash(unit, stripe.first, stripe.end);
        this.#meter.mark('hash');
      }
    } catch (error) {
      await Promise.allSettled(stripes.map((stripe) => stripe.read)); // none may write to the buffer later
      throw error;
    }
  }

  #allRead(first: number, end: number): boolean {
    for (let page = first; page < end; page++) if (this.#present[page] !== IN_BUFFER) return false;
    return true;
  }

  #read(unit: Unit, first: number, end: number): Promise<void> | void {
    const to = Math.min(end * PAGE_BYTES, unit.bytes);
    this.#meter.count('read', to - first * PAGE_BYTES);
    return unit.disk.reader.read(
      unit.segment * SEGMENT_BYTES + first * PAGE_BYTES,
      this.#data.subarray(first * PAGE_BYTES, to),
    );
  }

  #hash(unit: Unit, first: number, end: number): void {
    for (let page = first; page < end; page++) {
      const at = page * PAGE_BYTES;
      const length = Math.min(PAGE_BYTES, unit.bytes - at);
      if (isZeroPage(this.#data, at, length)) this.#noteZero(unit, page);
      else {
        this.#zero[page] = 0;
        sha256Into(this.#data.subarray(at, at + length), this.#hashes, page * HASH_BYTES);
      }
      this.#present[page] = IN_BUFFER;
    }
  }

  /** Makes pages that are in no range what they are: zeros. */
  #fillZeros(unit: Unit, from: number, to: number): void {
    for (let page = from; page < to; page++) {
      if (this.#present[page] === IN_BUFFER) continue;
      const first = page;
      while (page < to && this.#present[page] !== IN_BUFFER) page++;
      this.#zero.fill(1, first, page);
      this.#hashes.fill(ZERO_PAGE_HASH, first * HASH_BYTES, page * HASH_BYTES);
      if (page === unit.pages) this.#noteZero(unit, page - 1); // may be a short page with a hash of its own
      this.#present.fill(KNOWN_ZERO, first, page);
      // A long run never lies inside a chunk: only short ones must be in the buffer too.
      if (page - first >= ZERO_RUN_MIN_PAGES) continue;
      this.#data.fill(0, first * PAGE_BYTES, Math.min(page * PAGE_BYTES, unit.bytes));
      this.#present.fill(IN_BUFFER, first, page);
    }
  }

  /** Reads, hashes, cuts and stores in one pass, each stripe while it is hot. */
  async #cutWhole(
    unit: Unit,
    ranges: (take: (first: number, end: number) => void) => void,
  ): Promise<[UnitOutcome, Uint8Array?]> {
    const base = unit.segment * SEGMENT_PAGES;
    const runs: MapRun[] = [];
    const emit = (piece: Piece) => append(runs, this.#store(unit, piece));
    const parts: { first: number; end: number }[] = [];
    ranges((first, end) => void parts.push({ first: first - base, end: end - base }));
    const pipelined = unit.disk.reader.style === 'pipelined';
    if (pipelined) await this.#readAndHash(unit, ranges);
    this.#cutter.start();
    let known = 0;
    for (const { first, end } of pipelined ? [] : parts) {
      this.#fillZeros(unit, known, first);
      for (let at = first; at < end; at = known) {
        known = Math.min(at + STRIPE_PAGES, end);
        const read = this.#read(unit, at, known);
        if (read) await read;
        this.#meter.mark('read');
        this.#hash(unit, at, known);
        this.#cutter.take(this.#hashes, this.#zero, known, false, emit);
        this.#meter.mark('hash');
      }
    }
    this.#fillZeros(unit, known, unit.pages);
    this.#cutter.take(this.#hashes, this.#zero, unit.pages, true, emit);
    return this.#fresh(unit, runs);
  }

  /** Cuts a segment that lies in the buffer, read and hashed already. */
  #cutPresent(unit: Unit): [UnitOutcome, Uint8Array?] {
    const runs: MapRun[] = [];
    this.#fillZeros(unit, 0, unit.pages);
    this.#cutter.start();
    this.#cutter.take(this.#hashes, this.#zero, unit.pages, true, (piece) => append(runs, this.#store(unit, piece)));
    return this.#fresh(unit, runs);
  }

  #fresh(unit: Unit, runs: readonly MapRun[]): [UnitOutcome, Uint8Array?] {
    if (runs.every((run) => run.chunk === null)) return [{ kind: 'zero' }];
    const outcome: UnitOutcome = {
      kind: 'leaf',
      ...encodeLeaf({ type: 'full', ...FRESH_LEAF, runs }),
      facts: FRESH_LEAF,
      merge: false,
    };
    return [outcome, recordAll(unit.segment, unit.pages, this.#hashes, this.#zero)];
  }

  #store(unit: Unit, piece: Piece): MapRun {
    const { firstPage, pages } = piece;
    if (piece.zero) {
      this.#meter.count('zero', pages * PAGE_BYTES);
      return { firstPage, pages, chunk: null, chunkPage: 0 };
    }
    const end = firstPage + pages;
    const data = this.#data.subarray(firstPage * PAGE_BYTES, Math.min(end * PAGE_BYTES, unit.bytes));
    return {
      firstPage,
      pages,
      chunk: this.#writer.write(data, this.#hashes.subarray(firstPage * HASH_BYTES, end * HASH_BYTES)),
      chunkPage: 0,
    };
  }

  /** Numbers of the present pages that differ from the parent, as far as the fingerprints can tell. */
  #dirtyPages(unit: Unit, parent: LeafEntry): number[] {
    const dirty: number[] = [];
    const all = unit.disk.plan.mode === 'compare';
    if (all) this.#fillZeros(unit, 0, unit.pages);
    const stored = unit.disk.fingerprints;
    const known =
      parent.kind === 'leaf' &&
      stored !== undefined &&
      readFingerprints(stored.descriptor, stored.sums, unit.segment, this.#fingerprints);
    this.#forced.fill(0);
    const base = unit.segment * SEGMENT_PAGES;
    eachRange(
      unit.disk.plan.forced,
      base,
      base + unit.pages,
      (first, end) => void this.#forced.fill(1, first - base, end - base),
    );
    for (let page = 0; page < unit.pages; page++) {
      if (this.#present[page] === 0) continue;
      const same =
        parent.kind === 'zero'
          ? this.#zero[page] === 1
          : known && this.#forced[page] === 0 && fingerprintMatches(this.#fingerprints, page, this.#hashes, this.#zero);
      if (!same) dirty.push(page);
    }
    this.#meter.count('unchanged', (unit.pages - dirty.length) * PAGE_BYTES);
    return dirty;
  }

  #deservesNewCut(unit: Unit, facts: LeafFacts, dirtyPages: number): boolean {
    return dirtyPages + facts.patchedPages >= unit.pages / 2 || facts.patchChunks >= PATCH_CHUNKS_MAX;
  }

  /** Stores the changed pages alone, one behind the other, and maps them over the parent. */
  #patch(
    unit: Unit,
    parent: { readonly id: Buffer; readonly facts: LeafFacts },
    dirty: readonly number[],
  ): [UnitOutcome, Uint8Array] {
    const fingerprints = recordSome(unit.segment, dirty, this.#hashes, this.#zero);
    this.#gather(unit, dirty);
    const bytes = (dirty.length - 1) * PAGE_BYTES + Math.min(PAGE_BYTES, unit.bytes - dirty.at(-1)! * PAGE_BYTES);
    const runs: MapRun[] = [];
    let chunks = 0;
    this.#cutter.start();
    this.#cutter.take(this.#hashes, this.#zero, dirty.length, true, (piece) => {
      const stored = this.#store({ ...unit, bytes }, piece);
      if (stored.chunk !== null) chunks++;
      for (let i = 0; i < piece.pages; i++) {
        append(runs, {
          firstPage: dirty[piece.firstPage + i]!,
          pages: 1,
          chunk: stored.chunk,
          chunkPage: stored.chunk === null ? 0 : i,
        });
      }
    });
    const merge = parent.facts.depth === LEAF_DELTA_MAX_DEPTH;
    const facts: LeafFacts = {
      depth: merge ? LEAF_DELTA_MAX_DEPTH : parent.facts.depth + 1,
      patchChunks: parent.facts.patchChunks + chunks,
      patchedPages: parent.facts.patchedPages + dirty.length,
    };
    const delta: Leaf = { type: 'delta', ...facts, base: Buffer.from(parent.id), runs };
    return [{ kind: 'leaf', ...encodeLeaf(delta), facts, merge }, fingerprints];
  }

  /** Moves the changed pages, their hashes and marks to the front of the buffers. */
  #gather(unit: Unit, dirty: readonly number[]): void {
    dirty.forEach((page, to) => {
      const at = page * PAGE_BYTES;
      if (this.#present[page] !== IN_BUFFER) this.#data.fill(0, to * PAGE_BYTES, (to + 1) * PAGE_BYTES);
      else this.#data.copyWithin(to * PAGE_BYTES, at, Math.min(at + PAGE_BYTES, unit.bytes));
      this.#hashes.copyWithin(to * HASH_BYTES, page * HASH_BYTES, (page + 1) * HASH_BYTES);
      this.#zero[to] = this.#zero[page]!;
    });
  }
}

interface Unit {
  readonly disk: OpenDisk;
  readonly segment: number;
  /** Bytes and pages of disk in the segment. */
  readonly bytes: number;
  readonly pages: number;
}
