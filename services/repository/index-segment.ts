import { HoldfastError } from '#contract/errors.ts';
import { addToFilter, filterBytes, filterMayHave } from './filter.ts';
import { PREFIX_BYTES } from './parameters.ts';
import { sha256, sha256Into } from './sha256.ts';

/** An entry: id prefix 16, pack ordinal 4, slot 2, reserved 2. */
export const ENTRY_BYTES = 24;
const MAGIC = Buffer.from('HFINDEX\x01', 'latin1');
const HEADER_BYTES = 64;
const PACK_BYTES = 24;
const FENCE_BYTES = 8;
/** Entries lie in pages of this size, so that a lookup reads one of them. */
const INDEX_PAGE_BYTES = 4096;
const ENTRIES_PER_PAGE = Math.floor(INDEX_PAGE_BYTES / ENTRY_BYTES);
const TRAILER_BYTES = 32;

/** A pack as the index names it. */
export interface IndexedPack {
  /** 16 bytes. */
  readonly id: Buffer;
  readonly sizeBytes: number;
  readonly footerOffset: number;
}

/** Where a chunk is: a pack and the number of its slot in the pack's footer. */
export interface ChunkLocation {
  readonly pack: IndexedPack;
  readonly slot: number;
}

/** Collects entries for {@link encodeIndexSegment}. Grows as needed, 24 bytes a chunk. */
export class IndexEntries {
  readonly packs: IndexedPack[] = [];
  #entries = Buffer.alloc(1024 * ENTRY_BYTES);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** Adds a pack; its chunks are added under the ordinal answered. */
  addPack(pack: IndexedPack): number {
    return this.packs.push(pack) - 1;
  }

  add(id: Uint8Array, packOrdinal: number, slot: number): void {
    const at = this.#count * ENTRY_BYTES;
    if (at === this.#entries.length) {
      const larger = Buffer.alloc(this.#entries.length * 2);
      this.#entries.copy(larger);
      this.#entries = larger;
    }
    this.#entries.set(id.subarray(0, PREFIX_BYTES), at);
    this.#entries.writeUInt32LE(packOrdinal, at + 16);
    this.#entries.writeUInt16LE(slot, at + 20);
    this.#count++;
  }

  /** The entries sorted by prefix. Of equal prefixes all are kept, in the order in which they were added. */
  sorted(): Buffer {
    const entries = this.#entries;
    const order = Uint32Array.from({ length: this.#count }, (_, i) => i).sort((a, b) => {
      const byId = entries.compare(
        entries,
        b * ENTRY_BYTES,
        b * ENTRY_BYTES + PREFIX_BYTES,
        a * ENTRY_BYTES,
        a * ENTRY_BYTES + PREFIX_BYTES,
      );
      return byId === 0 ? a - b : byId;
    });
    const out = Buffer.alloc(this.#count * ENTRY_BYTES);
    order.forEach(
      (entry, i) => void entries.copy(out, i * ENTRY_BYTES, entry * ENTRY_BYTES, (entry + 1) * ENTRY_BYTES),
    );
    return out;
  }
}

/** An index segment as an object's bytes: header, packs, filter, fences, entry pages, SHA-256 of all before. */
export function encodeIndexSegment(entries: IndexEntries): Buffer {
  const sorted = entries.sorted();
  const count = entries.count;
  const layout = layoutOf(entries.packs.length, filterBytes(count), count);
  const out = Buffer.alloc(layout.size);
  MAGIC.copy(out);
  out.writeUInt32LE(count, 8);
  out.writeUInt32LE(entries.packs.length, 12);
  out.writeUInt32LE(filterBytes(count), 16);
  entries.packs.forEach((pack, i) => {
    const at = layout.packs + i * PACK_BYTES;
    pack.id.copy(out, at);
    out.writeUInt32LE(pack.sizeBytes, at + 16);
    out.writeUInt32LE(pack.footerOffset, at + 20);
  });
  const filter = out.subarray(layout.filter, layout.fences);
  for (let i = 0; i < count; i++) {
    const page = Math.floor(i / ENTRIES_PER_PAGE);
    const inPage = i % ENTRIES_PER_PAGE;
    const from = i * ENTRY_BYTES;
    addToFilter(filter, sorted, from);
    if (inPage === 0) sorted.copy(out, layout.fences + page * FENCE_BYTES, from, from + FENCE_BYTES);
    sorted.copy(out, layout.pages + page * INDEX_PAGE_BYTES + inPage * ENTRY_BYTES, from, from + ENTRY_BYTES);
  }
  sha256Into(out.subarray(0, layout.size - TRAILER_BYTES), out, layout.size - TRAILER_BYTES);
  return out;
}

function layoutOf(packs: number, filter: number, count: number) {
  const pages = Math.ceil(count / ENTRIES_PER_PAGE);
  const filterAt = HEADER_BYTES + packs * PACK_BYTES;
  const fencesAt = filterAt + filter;
  const headEnd = fencesAt + pages * FENCE_BYTES;
  // Entry pages begin at a multiple of their size, so that each is one page of the disk's cache too.
  const pagesAt = Math.ceil(headEnd / INDEX_PAGE_BYTES) * INDEX_PAGE_BYTES;
  return {
    packs: HEADER_BYTES,
    filter: filterAt,
    fences: fencesAt,
    headEnd,
    pages: pagesAt,
    pageCount: pages,
    size: pagesAt + pages * INDEX_PAGE_BYTES + TRAILER_BYTES,
  };
}

/** The parts of a segment that lookups keep in memory: about 1.3 bytes a chunk. May be shared between threads. */
export interface IndexHead {
  readonly count: number;
  readonly packs: Uint8Array;
  readonly filter: Uint8Array;
  /** The first 6 bytes of each page's first prefix, as a number. */
  readonly fences: Float64Array;
  readonly pagesOffset: number;
}

/** Checks a whole segment against its hash and layout; throws `damaged`. */
export function checkIndexSegment(bytes: Buffer): void {
  if (bytes.length < HEADER_BYTES + TRAILER_BYTES || bytes.compare(MAGIC, 0, 8, 0, 8) !== 0)
    throw damaged('it does not begin as one');
  const layout = layoutOf(bytes.readUInt32LE(12), bytes.readUInt32LE(16), bytes.readUInt32LE(8));
  if (layout.size !== bytes.length) throw damaged('its size does not fit its header');
  const digest = sha256(bytes.subarray(0, bytes.length - TRAILER_BYTES));
  if (!digest.equals(bytes.subarray(bytes.length - TRAILER_BYTES))) throw damaged('it does not match its hash');
}

/** Bytes of SHA-256 at a segment's end. */
export const INDEX_TRAILER_BYTES = TRAILER_BYTES;

/** Bytes at the start of a segment's header that tell the length of its head. */
export const INDEX_HEADER_BYTES = HEADER_BYTES;

/** Bytes of a segment before its entry pages, from its first {@link INDEX_HEADER_BYTES}. */
export function indexHeadLength(header: Buffer): number {
  return layoutOf(header.readUInt32LE(12), header.readUInt32LE(16), header.readUInt32LE(8)).pages;
}

/** Reads the head of a segment that {@link checkIndexSegment} has passed. `allocate` may hand out shared memory. */
export function readIndexHead(bytes: Buffer, allocate: (bytes: number) => ArrayBufferLike): IndexHead {
  const count = bytes.readUInt32LE(8);
  const layout = layoutOf(bytes.readUInt32LE(12), bytes.readUInt32LE(16), count);
  const copy = (from: number, to: number) => {
    const out = new Uint8Array(allocate(to - from));
    out.set(bytes.subarray(from, to));
    return out;
  };
  const fences = new Float64Array(allocate(layout.pageCount * 8));
  for (let page = 0; page < layout.pageCount; page++)
    fences[page] = bytes.readUIntBE(layout.fences + page * FENCE_BYTES, 6);
  return {
    count,
    packs: copy(layout.packs, layout.filter),
    filter: copy(layout.filter, layout.fences),
    fences,
    pagesOffset: layout.pages,
  };
}

/** Bytes at the start of a segment that hold its list of packs, from its first {@link INDEX_HEADER_BYTES}; throws `damaged`. */
export function indexPacksLength(header: Buffer): number {
  if (header.length < HEADER_BYTES || header.compare(MAGIC, 0, 8, 0, 8) !== 0)
    throw damaged('it does not begin as one');
  return HEADER_BYTES + header.readUInt32LE(12) * PACK_BYTES;
}

/** The packs that a segment names, from its first {@link indexPacksLength} bytes; needs no keys. */
export function readIndexedPacks(bytes: Buffer): IndexedPack[] {
  const packs: IndexedPack[] = [];
  for (let at = HEADER_BYTES; at + PACK_BYTES <= bytes.length; at += PACK_BYTES) {
    const [sizeBytes, footerOffset] = [bytes.readUInt32LE(at + 16), bytes.readUInt32LE(at + 20)];
    packs.push({ id: bytes.subarray(at, at + 16), sizeBytes, footerOffset });
  }
  return packs;
}

/** Finds ids in one segment: one filter probe, and for what passes, one page. */
export class IndexSegmentReader {
  readonly head: IndexHead;
  readonly #readPage: (offset: number, into: Buffer) => void;
  readonly #page = Buffer.alloc(INDEX_PAGE_BYTES);
  #pageNumber = -1;

  /** @param readPage  fills `into` from an offset of the segment */
  constructor(head: IndexHead, readPage: (offset: number, into: Buffer) => void) {
    this.head = head;
    this.#readPage = readPage;
  }

  has(id: Buffer): boolean {
    return this.#find(id) >= 0;
  }

  /** One place of the chunk. */
  locate(id: Buffer): ChunkLocation | undefined {
    const at = this.#find(id);
    return at < 0 ? undefined : this.#locationAt(at);
  }

  /** Every place of the chunk: a merged segment may hold several. */
  locateAll(id: Buffer): ChunkLocation[] {
    const { fences, filter, count } = this.head;
    if (count === 0 || !filterMayHave(filter, id, 0)) return [];
    const key = id.readUIntBE(0, 6);
    const found: ChunkLocation[] = [];
    for (let page = this.#pagesUpTo(key) - 1; page >= 0; page--) {
      let first = this.#findInPage(page, id);
      while (first >= ENTRY_BYTES && this.#isAt(first - ENTRY_BYTES, id)) first -= ENTRY_BYTES;
      const inPage: ChunkLocation[] = [];
      const end = first < 0 ? first : this.#entriesIn(page) * ENTRY_BYTES;
      for (let at = first; at < end && this.#isAt(at, id); at += ENTRY_BYTES) inPage.push(this.#locationAt(at));
      found.unshift(...inPage);
      if (fences[page]! < key) break;
    }
    return found;
  }

  packAt(ordinal: number): IndexedPack {
    const packs = Buffer.from(this.head.packs.buffer, this.head.packs.byteOffset, this.head.packs.byteLength);
    const at = ordinal * PACK_BYTES;
    if (at + PACK_BYTES > packs.length) throw damaged(`an entry names pack ${ordinal} of ${packs.length / PACK_BYTES}`);
    return {
      id: packs.subarray(at, at + 16),
      sizeBytes: packs.readUInt32LE(at + 16),
      footerOffset: packs.readUInt32LE(at + 20),
    };
  }

  get packCount(): number {
    return this.head.packs.length / PACK_BYTES;
  }

  /** Offset of the entry in the page read last, or -1. */
  #find(id: Buffer): number {
    const { fences, filter, count } = this.head;
    if (count === 0 || !filterMayHave(filter, id, 0)) return -1;
    const key = id.readUIntBE(0, 6);
    // Prefixes that agree in 6 bytes may straddle pages: look back while the fence equals the key.
    for (let page = this.#pagesUpTo(key) - 1; page >= 0; page--) {
      const at = this.#findInPage(page, id);
      if (at >= 0 || fences[page]! < key) return at;
    }
    return -1;
  }

  /** Pages whose fence is not above the key. */
  #pagesUpTo(key: number): number {
    const { fences } = this.head;
    let low = 0;
    let high = fences.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (fences[middle]! > key) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #entriesIn(page: number): number {
    return Math.min(ENTRIES_PER_PAGE, this.head.count - page * ENTRIES_PER_PAGE);
  }

  #isAt(at: number, id: Buffer): boolean {
    return this.#page.compare(id, 0, PREFIX_BYTES, at, at + PREFIX_BYTES) === 0;
  }

  /** The entry at an offset of the page read last. */
  #locationAt(at: number): ChunkLocation {
    return { pack: this.packAt(this.#page.readUInt32LE(at + 16)), slot: this.#page.readUInt16LE(at + 20) };
  }

  #findInPage(page: number, id: Buffer): number {
    if (page !== this.#pageNumber) {
      this.#pageNumber = -1;
      this.#readPage(this.head.pagesOffset + page * INDEX_PAGE_BYTES, this.#page);
      this.#pageNumber = page;
    }
    let low = 0;
    let high = this.#entriesIn(page) - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const at = middle * ENTRY_BYTES;
      const order = this.#page.compare(id, 0, PREFIX_BYTES, at, at + PREFIX_BYTES);
      if (order === 0) return at;
      if (order < 0) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }
}

function damaged(why: string): HoldfastError {
  return new HoldfastError('damaged', `An index segment is damaged: ${why}`);
}
