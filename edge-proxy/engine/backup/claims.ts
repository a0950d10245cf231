import { PREFIX_BYTES } from '#repository/parameters.ts';

const WORDS = 1 + PREFIX_BYTES / 4; // state, then the prefix
const EMPTY = 0;
const WRITING = 1;
const CLAIMED = 2;

/** Shared memory for a table of {@link ChunkClaims}; `slots` is a power of two. */
export function allocateClaims(slots: number): SharedArrayBuffer {
  return new SharedArrayBuffer((slots + 1) * WORDS * 4); // the last row counts
}

/**
 * The chunks that this session has stored or is about to, shared by all workers: of the threads that
 * meet a new chunk at once, exactly one claims it and seals it. Open addressing over 128-bit id
 * prefixes; the ids are codes, so their own bits spread them.
 */
export class ChunkClaims {
  readonly #words: Int32Array;
  readonly #mask: number;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory);
    this.#mask = this.#words.length / WORDS - 2;
  }

  get count(): number {
    return Atomics.load(this.#words, this.#words.length - 1);
  }

  get capacity(): number {
    return this.#mask + 1;
  }

  /** True if the caller is the first to name this chunk, and so must store it. */
  claim(id: Buffer): boolean {
    if (this.count >= this.capacity - 64) return true; // full: deduplication within the session lapses, nothing else
    const words = this.#words;
    for (let slot = id.readUInt32LE(4) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const at = slot * WORDS;
      const state = Atomics.compareExchange(words, at, EMPTY, WRITING);
      if (state === EMPTY) {
        for (let i = 0; i < WORDS - 1; i++) words[at + 1 + i] = id.readInt32LE(i * 4);
        Atomics.store(words, at, CLAIMED);
        Atomics.add(words, words.length - 1, 1);
        return true;
      }
      while (Atomics.load(words, at) === WRITING); // a few stores by another thread
      if (this.#matches(at, id)) return false;
    }
  }

  clear(): void {
    this.#words.fill(0);
  }

  #matches(at: number, id: Buffer): boolean {
    for (let i = 0; i < WORDS - 1; i++) if (this.#words[at + 1 + i] !== id.readInt32LE(i * 4)) return false;
    return true;
  }
}
