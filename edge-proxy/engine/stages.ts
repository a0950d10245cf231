import type { Stage } from './request.ts';

export const STAGES: readonly Stage[] = [
  'read',
  'hash',
  'compress',
  'seal',
  'check',
  'upload',
  'fetch',
  'open',
  'write',
];

/** What a worker counts besides its stages. All in bytes but the last two. */
export const COUNTERS = [
  'done',
  'read',
  'new',
  'written',
  'zero',
  'unchanged',
  'fetched',
  'newChunks',
  'knownChunks',
] as const;
export type Counter = (typeof COUNTERS)[number];

const ROW = STAGES.length + COUNTERS.length;

export function allocateMeters(workers: number): SharedArrayBuffer {
  return new SharedArrayBuffer(workers * ROW * 8);
}

/** Where a worker's time goes and how much it has done; written by one worker, read by the main thread at any time. */
export class Meter {
  readonly #row: Float64Array;
  readonly #nowMs: () => number;
  #last: number;

  constructor(memory: SharedArrayBuffer, worker: number, nowMs: () => number) {
    this.#row = new Float64Array(memory, worker * ROW * 8, ROW);
    this.#nowMs = nowMs;
    this.#last = nowMs();
  }

  /** Starts the clock without counting what went before. */
  start(): void {
    this.#last = this.#nowMs();
  }

  /** Counts the time since the last mark to the stage. */
  mark(stage: Stage): void {
    const now = this.#nowMs();
    this.#row[STAGES.indexOf(stage)]! += now - this.#last;
    this.#last = now;
  }

  count(counter: Counter, amount: number): void {
    this.#row[STAGES.length + COUNTERS.indexOf(counter)]! += amount;
  }
}

/** The sum of all workers' meters. */
export function readMeters(memory: SharedArrayBuffer): {
  readonly seconds: Record<Stage, number>;
  readonly counters: Record<Counter, number>;
} {
  const rows = new Float64Array(memory);
  const sum = (column: number) => {
    let total = 0;
    for (let at = column; at < rows.length; at += ROW) total += rows[at]!;
    return total;
  };
  return {
    seconds: Object.fromEntries(STAGES.map((stage, i) => [stage, sum(i) / 1000])) as Record<Stage, number>,
    counters: Object.fromEntries(COUNTERS.map((counter, i) => [counter, sum(STAGES.length + i)])) as Record<
      Counter,
      number
    >,
  };
}
