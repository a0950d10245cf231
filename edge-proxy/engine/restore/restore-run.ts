import { availableParallelism } from 'node:os';
import { type ErrorReport, errorFrom, HoldfastError } from '#contract/errors.ts';
import type { Blobs } from '#ports/blobs.ts';
import { encodeKeys, type VaultKeys } from '#repository/keys.ts';
import type { PackReader } from '#repository/pack-reader.ts';
import { isLoss } from '../loss.ts';
import type { Pace } from '../pace.ts';
import { allocateMeters } from '../stages.ts';
import { Crew } from '../worker-threads.ts';
import { type Fetch, type RestoreWindow, withRange } from './restore-plan.ts';
import type { FromRestoreWorker, RestoreWorkerData, ToRestoreWorker, WorkerTarget } from './restore-worker.ts';

const WORKERS_MAX = 8;
/** Fetched bytes on their way or waiting for a worker: how far a restore reads ahead. */
const AHEAD_BYTES = 48 * 1024 * 1024;

type Task<T> = T extends { readonly task: number } ? Omit<T, 'task'> : never;

/** The workers of one restore and the reads that feed them. */
export class RestoreRun {
  readonly meters: SharedArrayBuffer;
  readonly #blobs: Blobs;
  readonly #reader: PackReader;
  readonly #pace: Pace;
  readonly #signal: AbortSignal;
  readonly #crew: Crew<RestoreWorkerData, FromRestoreWorker>;
  readonly #load: number[];
  readonly #tasks = new Map<number, { readonly worker: number; readonly settle: (bad: BadChunks) => void }>();
  readonly #waiting: { readonly bytes: number; readonly go: () => void }[] = [];
  #nextTask = 0;
  #aheadBytes = 0;
  fetchedBytes = 0;

  constructor(
    blobs: Blobs,
    keys: VaultKeys,
    reader: PackReader,
    target: WorkerTarget,
    pace: Pace,
    workers: number | undefined,
    signal: AbortSignal,
  ) {
    const count = workers ?? Math.min(WORKERS_MAX, availableParallelism());
    this.#blobs = blobs;
    this.#reader = reader;
    this.#pace = pace;
    this.#signal = signal;
    this.meters = allocateMeters(count);
    this.#load = Array.from({ length: count }, () => 0);
    const datas = this.#load.map((_, worker) => ({ worker, keys: encodeKeys(keys), target, meters: this.meters }));
    this.#crew = new Crew(new URL('./restore-worker.ts', import.meta.url), datas, ({ task, bad }) => {
      const found = this.#tasks.get(task)!;
      this.#tasks.delete(task);
      this.#load[found.worker]!--;
      found.settle(bad);
    });
    signal.addEventListener('abort', () => this.#crew.fail(signal.reason), { once: true });
  }

  /**
   * Restores a window; resolves when every byte of it is written.
   * @param slot  which memory window, for targets in memory
   * @param base  the disk offset at which that memory begins
   */
  async window(plan: RestoreWindow, slot: number, base: number): Promise<void> {
    const place = { window: slot, base };
    const parts: Promise<unknown>[] = [];
    if (plan.zeros.length > 0) parts.push(this.#task({ type: 'zeros', ...place, zeros: plan.zeros }));
    for (const fetch of plan.fetches) {
      this.#signal.throwIfAborted();
      await this.#crew.unlessFailed(this.#reserve(fetch.length));
      const part = this.#fetch(fetch, place).finally(() => this.#release(fetch.length));
      part.catch((error: unknown) => this.#crew.fail(error));
      parts.push(part);
    }
    await this.#crew.unlessFailed(Promise.all(parts));
  }

  /** Ends the workers once all their work is done. */
  async finish(): Promise<void> {
    this.#crew.post({ type: 'end' } satisfies ToRestoreWorker);
    await this.#crew.finished();
  }

  async terminate(): Promise<void> {
    await this.#crew.terminate();
  }

  async #fetch(fetch: Fetch, place: { readonly window: number; readonly base: number }): Promise<void> {
    let bad: BadChunks;
    try {
      await this.#pace.take(fetch.length, this.#signal);
      const bytes = ownBuffer(await this.#blobs.getRange(fetch.key, fetch.offset, fetch.length, this.#signal));
      this.fetchedBytes += bytes.length;
      bad = await this.#task({ type: 'chunks', ...place, bytes, chunks: fetch.chunks }, [bytes.buffer]);
    } catch (error) {
      // A store that cannot be reached says nothing about the chunks in it.
      if (!isLoss(error)) throw error;
      bad = fetch.chunks.map((_, chunk) => ({ chunk, error: error as unknown as ErrorReport }));
    }
    for (const { chunk, error } of bad) await this.#readElsewhere(fetch, chunk, error, place);
  }

  /** A chunk that cannot be used may lie in another pack as well. */
  async #readElsewhere(
    fetch: Fetch,
    index: number,
    failure: ErrorReport,
    place: { readonly window: number; readonly base: number },
  ): Promise<void> {
    const chunk = fetch.chunks[index]!;
    const first = chunk.placements[0]!;
    let content: Buffer;
    try {
      content = await this.#reader.read(Buffer.from(chunk.id));
    } catch (error) {
      if (!isLoss(error)) throw error;
      throw withRange(
        new HoldfastError(
          failure.code,
          `${failure.message} (${fetch.key}, chunk ${Buffer.from(chunk.id).toString('hex').slice(0, 16)})`,
          {
            cause: errorFrom(failure),
            data: { key: fetch.key, chunk: Buffer.from(chunk.id).toString('hex') },
          },
        ),
        first.diskOffset,
        first.length,
      );
    }
    await this.#task({ type: 'plain', ...place, content, placements: chunk.placements });
  }

  #task(message: Task<ToRestoreWorker>, transfer: ArrayBuffer[] = []): Promise<BadChunks> {
    const task = this.#nextTask++;
    const worker = this.#load.indexOf(Math.min(...this.#load));
    this.#load[worker]!++;
    return new Promise((settle) => {
      this.#tasks.set(task, { worker, settle });
      this.#crew.postTo(worker, { ...message, task }, transfer);
    });
  }

  async #reserve(bytes: number): Promise<void> {
    if (this.#aheadBytes > 0 && this.#aheadBytes + bytes > AHEAD_BYTES)
      await new Promise<void>((go) => this.#waiting.push({ bytes, go }));
    else this.#aheadBytes += bytes;
  }

  #release(bytes: number): void {
    this.#aheadBytes -= bytes;
    while (
      this.#waiting.length > 0 &&
      (this.#aheadBytes === 0 || this.#aheadBytes + this.#waiting[0]!.bytes <= AHEAD_BYTES)
    ) {
      const next = this.#waiting.shift()!;
      this.#aheadBytes += next.bytes;
      next.go();
    }
  }
}

type BadChunks = readonly { readonly chunk: number; readonly error: ErrorReport }[];

/** The bytes in a buffer of their own, which can be handed to another thread without copying. */
function ownBuffer(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  if (bytes.buffer instanceof ArrayBuffer && bytes.byteLength === bytes.buffer.byteLength)
    return bytes as Uint8Array<ArrayBuffer>;
  return new Uint8Array(bytes);
}
