import { type Cipheriv, createCipheriv } from 'node:crypto';
import {
  CHUNK_MAX_PAGES,
  CHUNK_MIN_PAGES,
  CUT_THRESHOLD,
  HASH_BYTES,
  SEGMENT_PAGES,
  ZERO_RUN_MIN_PAGES,
} from './parameters.ts';

/** A piece of a page sequence: a chunk of data, or a run of zero pages. */
export interface Piece {
  readonly zero: boolean;
  readonly firstPage: number;
  readonly pages: number;
}

/**
 * Decides where chunks end, page by page, from the pages' hashes and the vault's cut key alone.
 *
 * The rule is a pseudo-random function (AES-128 of the first half of the page's hash), so that the
 * lengths of chunks tell nothing about known files to whoever lacks the key; and it looks at content
 * only, never at position, so that equal data cuts equally wherever it lies.
 *
 * Use: `start()`, then `take()` as often as hashes become known, the last time with `final`.
 */
export class Cutter {
  readonly #cipher: Cipheriv;
  #chunkStart = 0;
  #next = 0;
  #zerosFrom = 0;
  #zerosTo = 0;

  /** @param cutKey  16 bytes */
  constructor(cutKey: Uint8Array) {
    this.#cipher = createCipheriv('aes-128-ecb', cutKey, null).setAutoPadding(false);
  }

  start(): void {
    this.#chunkStart = this.#next = this.#zerosFrom = this.#zerosTo = 0;
  }

  /**
   * Emits all pieces that the first `known` pages decide.
   *
   * @param hashes  32 bytes a page, of which the first `known` are valid
   * @param zero  1 for each page that is all zero
   * @param final  no more pages follow
   */
  take(hashes: Buffer, zero: Uint8Array, known: number, final: boolean, emit: (piece: Piece) => void): void {
    if (known > SEGMENT_PAGES) throw new RangeError('a sequence of at most one segment');
    const from = this.#next;
    if (known > from) {
      const marks = this.#cipher.update(hashes.subarray(from * HASH_BYTES, known * HASH_BYTES));
      while (this.#next < known) {
        const page = this.#next;
        if (zero[page] === 1) {
          const ended = this.#measureZeros(zero, page, known);
          const isRun = this.#zerosTo - this.#zerosFrom >= ZERO_RUN_MIN_PAGES;
          if (isRun) this.#close(page, emit);
          if (!ended && !final) break; // the run may go on: wait for more pages
          if (isRun) {
            emit({ zero: true, firstPage: page, pages: this.#zerosTo - page });
            this.#chunkStart = this.#next = this.#zerosTo;
            continue;
          }
        }
        this.#next = page + 1;
        const length = page + 1 - this.#chunkStart;
        const cut =
          length >= CHUNK_MAX_PAGES ||
          (length >= CHUNK_MIN_PAGES &&
            zero[page] !== 1 &&
            marks.readUInt32LE((page - from) * HASH_BYTES) < CUT_THRESHOLD);
        if (cut) this.#close(page + 1, emit);
      }
    }
    if (final) this.#close(this.#next, emit);
  }

  /** Finds the run of zero pages around `page`; false if it reaches the last known page. */
  #measureZeros(zero: Uint8Array, page: number, known: number): boolean {
    if (page >= this.#zerosTo || page < this.#zerosFrom) {
      this.#zerosFrom = page;
      this.#zerosTo = page + 1;
    }
    while (this.#zerosTo < known && zero[this.#zerosTo] === 1) this.#zerosTo++;
    return this.#zerosTo < known;
  }

  #close(end: number, emit: (piece: Piece) => void): void {
    if (end > this.#chunkStart) emit({ zero: false, firstPage: this.#chunkStart, pages: end - this.#chunkStart });
    this.#chunkStart = end;
  }
}
