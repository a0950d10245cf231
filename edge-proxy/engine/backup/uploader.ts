import type { Blobs } from '#ports/blobs.ts';
import type { Random } from '#ports/random.ts';
import { IndexEntries } from '#repository/index-segment.ts';
import { packKey } from '#repository/names.ts';
import { assemblePack, type SealedChunk } from '#repository/pack.ts';
import type { Pace } from '../pace.ts';
import type { Journal } from './journal.ts';

/** Packs on their way up at once. More would be lost, in part, by a crash. */
export const UPLOADS_AT_ONCE = 2;

/** Sends packs: lays them out, writes them down, sends them, and collects the index of what arrived. */
export class Uploader {
  readonly #blobs: Blobs;
  readonly #journal: Journal;
  readonly #random: Random;
  readonly #pace: Pace;
  readonly #signal: AbortSignal;
  readonly #waiting: (() => void)[] = [];
  readonly #running = new Set<Promise<void>>();
  #active = 0;
  #failure: unknown;
  entries = new IndexEntries();
  sentBytes = 0;

  constructor(blobs: Blobs, journal: Journal, random: Random, pace: Pace, signal: AbortSignal) {
    this.#blobs = blobs;
    this.#journal = journal;
    this.#random = random;
    this.#pace = pace;
    this.#signal = signal;
  }

  /** Sends one pack; `done` is called when its memory is free again. Failures come out of {@link settle} and `onFailure`. */
  send(chunks: readonly SealedChunk[], done: () => void, onFailure: (error: unknown) => void): void {
    const running = this.#send(chunks)
      .catch((error: unknown) => {
        this.#failure ??= error;
        onFailure(error);
      })
      .finally(() => {
        this.#running.delete(running);
        done();
      });
    this.#running.add(running);
  }

  /** Resolves when nothing is on its way; throws the first failure. */
  async settle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #send(chunks: readonly SealedChunk[]): Promise<void> {
    await this.#takeTurn();
    try {
      this.#signal.throwIfAborted();
      const pack = assemblePack(chunks, this.#random);
      const id = Buffer.from(this.#random.bytes(16));
      const named = { id, sizeBytes: pack.sizeBytes, footerOffset: pack.footerOffset };
      this.#journal.add({ pack: named, footer: pack.footer });
      await this.#pace.take(pack.sizeBytes, this.#signal);
      await this.#blobs.putIfAbsent(packKey(id), pack.parts, { signal: this.#signal });
      this.sentBytes += pack.sizeBytes;
      const ordinal = this.entries.addPack(named);
      chunks.forEach((chunk, i) => void this.entries.add(chunk.bytes.subarray(12, 44), ordinal, pack.slotOf[i]!));
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#active--;
    }
  }

  async #takeTurn(): Promise<void> {
    if (this.#active < UPLOADS_AT_ONCE) this.#active++;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve)); // takes over the turn of one that ends
  }
}
