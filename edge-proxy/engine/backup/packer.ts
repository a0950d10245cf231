import { PACK_HEADER_BYTES, PACK_TRAILER_BYTES } from '#repository/pack.ts';
import { PACK_MAX_SLOTS } from '#repository/parameters.ts';
import { sha256Into } from '#repository/sha256.ts';
import type { PackPool } from './pack-pool.ts';

/** What the footer takes of a pack for a chunk without children, and a reserve for its frame. */
const SLOT_RESERVE = 96;
const FRAME_RESERVE = PACK_HEADER_BYTES + PACK_TRAILER_BYTES + 64;

/** Sealed chunks that wait in a pack buffer to become a pack. Plain data: crosses threads. */
export interface FilledBuffer {
  readonly buffer: number;
  /** Offset and length of each sealed chunk in the buffer. */
  readonly places: Uint32Array;
  /** SHA-256 of each sealed chunk, 32 bytes each. */
  readonly hashes: Uint8Array;
}

/** Gathers a worker's sealed chunks in a buffer of the pool and hands it on when it is full. */
export class Packer {
  readonly #pool: PackPool;
  readonly #packBytes: number;
  readonly #emit: (filled: FilledBuffer) => void;
  readonly #stopped: () => boolean;
  readonly #places = new Uint32Array(PACK_MAX_SLOTS * 2);
  #hashes = Buffer.alloc(1024 * 32);
  #index = -1;
  #used = 0;
  #count = 0;

  constructor(pool: PackPool, packBytes: number, stopped: () => boolean, emit: (filled: FilledBuffer) => void) {
    this.#pool = pool;
    this.#packBytes = packBytes;
    this.#stopped = stopped;
    this.#emit = emit;
  }

  /** Room for a sealed chunk of `length` bytes; waits for a free buffer when all are on their way up. */
  reserve(length: number): Buffer {
    const needed = this.#used + length + (this.#count + 1) * SLOT_RESERVE + FRAME_RESERVE;
    if (this.#index >= 0 && (needed > this.#packBytes || this.#count === PACK_MAX_SLOTS)) this.flush();
    if (this.#index < 0) {
      this.#index = this.#pool.acquire(this.#stopped);
      if (this.#index < 0) throw new Error('stopped');
    }
    return this.#pool.buffer(this.#index).subarray(this.#used, this.#used + length);
  }

  /** Adds what was written to the room reserved last. */
  add(length: number): void {
    if (this.#count * 32 === this.#hashes.length) {
      const larger = Buffer.alloc(this.#hashes.length * 2);
      this.#hashes.copy(larger);
      this.#hashes = larger;
    }
    sha256Into(
      this.#pool.buffer(this.#index).subarray(this.#used, this.#used + length),
      this.#hashes,
      this.#count * 32,
    );
    this.#places[this.#count * 2] = this.#used;
    this.#places[this.#count * 2 + 1] = length;
    this.#used += length;
    this.#count++;
  }

  /** Hands on what is there. */
  flush(): void {
    if (this.#index < 0) return;
    this.#emit({
      buffer: this.#index,
      places: this.#places.slice(0, this.#count * 2),
      hashes: new Uint8Array(this.#hashes.subarray(0, this.#count * 32)),
    });
    this.#index = -1;
    this.#used = this.#count = 0;
  }
}
