import { Worker } from 'node:worker_threads';
import { type ErrorReport, errorFrom, HoldfastError } from '#contract/errors.ts';

/** Workers keep little on their heaps; a small young generation is collected often and stays in the cache. */
const YOUNG_GENERATION_MB = 8;

export interface WorkerMessage {
  readonly type: string;
}

/** A crew of worker threads on one job. The first failure ends the job. */
export class Crew<Data, From extends WorkerMessage> {
  readonly #workers: Worker[] = [];
  readonly #failed = Promise.withResolvers<never>();
  readonly #finished = Promise.withResolvers<void>();
  #unfinished: number;

  /** @param onMessage  called for all but `finished` and `failed` */
  constructor(
    script: URL,
    datas: readonly Data[],
    onMessage: (message: Exclude<From, { type: 'finished' | 'failed' }>, worker: number) => void,
  ) {
    this.#unfinished = datas.length;
    this.#failed.promise.catch(() => undefined);
    datas.forEach((workerData, index) => {
      const worker = new Worker(script, {
        workerData,
        name: `${index}`,
        resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MB },
      });
      worker.on('message', (message: From) => {
        if (message.type === 'failed') this.fail(errorFrom((message as unknown as { error: ErrorReport }).error));
        else if (message.type === 'finished') this.#end();
        else {
          try {
            onMessage(message as Exclude<From, { type: 'finished' | 'failed' }>, index);
          } catch (error) {
            this.fail(error);
          }
        }
      });
      worker.on('error', (error) => this.fail(error));
      worker.on(
        'exit',
        (code) => code !== 0 && this.fail(new HoldfastError('internal', `A worker thread ended with code ${code}`)),
      );
      this.#workers.push(worker);
    });
  }

  get unfinished(): number {
    return this.#unfinished;
  }

  fail(error: unknown): void {
    this.#failed.reject(error);
  }

  post(message: unknown): void {
    for (const worker of this.#workers) worker.postMessage(message);
  }

  postTo(worker: number, message: unknown, transfer: readonly ArrayBuffer[] = []): void {
    this.#workers[worker]!.postMessage(message, transfer);
  }

  /** Waits for `work`, or throws the crew's first failure. */
  async unlessFailed<T>(work: Promise<T>): Promise<T> {
    return await Promise.race([work, this.#failed.promise]);
  }

  /** Resolves when every worker has finished. */
  async finished(): Promise<void> {
    await this.unlessFailed(this.#finished.promise);
  }

  async terminate(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #end(): void {
    if (--this.#unfinished === 0) this.#finished.resolve();
  }
}
