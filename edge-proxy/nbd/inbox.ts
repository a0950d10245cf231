import type { HoldfastError } from '#contract/errors.ts';

/**
 * Bytes that have arrived and wait for a reader that asks for exact counts. One reader at a time.
 * The feeder is told to stop (`onFull`) while far more waits than was asked for, so that a peer that
 * only sends cannot fill the memory.
 */
export class Inbox {
  #chunks: Buffer[] = [];
  #waiting = 0;
  #wanted:
    | { readonly count: number; readonly resolve: (b: Buffer) => void; readonly reject: (e: unknown) => void }
    | undefined;
  #failure: HoldfastError | undefined;
  #full = false;
  readonly #capacityBytes: number;
  readonly #flow: { readonly onFull?: () => void; readonly onRoom?: () => void };

  constructor(capacityBytes: number, flow: { readonly onFull?: () => void; readonly onRoom?: () => void } = {}) {
    this.#capacityBytes = capacityBytes;
    this.#flow = flow;
  }

  /** Bytes that have arrived and nobody has taken. */
  get waitingBytes(): number {
    return this.#waiting;
  }

  /** Keeps the chunk (not a copy of it). */
  push(chunk: Buffer): void {
    if (chunk.length === 0 || this.#failure) return;
    this.#chunks.push(chunk);
    this.#waiting += chunk.length;
    this.#serve();
    this.#balance();
  }

  /** The next `count` bytes; rejects with the failure once it is known that they cannot come. */
  take(count: number): Promise<Buffer> {
    if (this.#wanted) throw new Error('two readers of one inbox');
    return new Promise((resolve, reject) => {
      this.#wanted = { count, resolve, reject };
      this.#serve();
      this.#balance();
    });
  }

  /** No more bytes will come. */
  fail(error: HoldfastError): void {
    this.#failure ??= error;
    this.#serve();
  }

  /** Everything that waits. */
  drain(): Buffer {
    const all = Buffer.concat(this.#chunks);
    this.#chunks = [];
    this.#waiting = 0;
    return all;
  }

  #serve(): void {
    const wanted = this.#wanted;
    if (!wanted) return;
    if (this.#waiting >= wanted.count) {
      this.#wanted = undefined;
      wanted.resolve(this.#cut(wanted.count));
    } else if (this.#failure) {
      this.#wanted = undefined;
      wanted.reject(this.#failure);
    }
  }

  #cut(count: number): Buffer {
    this.#waiting -= count;
    const first = this.#chunks[0];
    if (first && first.length >= count) {
      if (first.length === count) this.#chunks.shift();
      else this.#chunks[0] = first.subarray(count);
      return first.subarray(0, count);
    }
    const bytes = Buffer.allocUnsafe(count);
    let at = 0;
    let used = 0;
    for (const chunk of this.#chunks) {
      const n = Math.min(chunk.length, count - at);
      chunk.copy(bytes, at, 0, n);
      at += n;
      if (n < chunk.length) {
        this.#chunks[used] = chunk.subarray(n);
        break;
      }
      used++;
      if (at === count) break;
    }
    this.#chunks.splice(0, used);
    return bytes;
  }

  #balance(): void {
    const full = this.#waiting > this.#capacityBytes + (this.#wanted?.count ?? 0);
    if (full === this.#full) return;
    this.#full = full;
    if (full) this.#flow.onFull?.();
    else this.#flow.onRoom?.();
  }
}
