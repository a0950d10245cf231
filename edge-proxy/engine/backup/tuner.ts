import { readMeters } from '../stages.ts';

/** zstd levels in use, fastest first. */
const LEVELS = [1, 3, 6, 9] as const;
/** Opened again and compared, of a thousand chunks: while the processor is the bottleneck, and while it is idle. */
const CHECK_BUSY_PERMILLE = 30;
const CHECK_ALL_PERMILLE = 1000;
const LOOK_EVERY_MS = 1_000;
/** Shares of worker time spent waiting for the upload that move the level up and down. */
const IDLE_ABOVE = 0.3;
const BUSY_BELOW = 0.08;

/**
 * Spends the time that workers would wait for the upload on compressing harder and on checking more:
 * what is waited for anyway is then smaller.
 */
export class Tuner {
  readonly #meters: SharedArrayBuffer;
  readonly #workers: number;
  readonly #set: (level: number, checkPermille: number) => void;
  #step = 0;
  #lastMs = 0;
  #waited = 0;

  constructor(meters: SharedArrayBuffer, workers: number, set: (level: number, checkPermille: number) => void) {
    this.#meters = meters;
    this.#workers = workers;
    this.#set = set;
    set(LEVELS[0], CHECK_BUSY_PERMILLE);
  }

  adjust(nowMs: number): void {
    if (nowMs - this.#lastMs < LOOK_EVERY_MS) return;
    const waited = readMeters(this.#meters).seconds.upload;
    const share = ((waited - this.#waited) * 1000) / ((nowMs - this.#lastMs) * this.#workers);
    this.#lastMs = nowMs;
    this.#waited = waited;
    if (share > IDLE_ABOVE) this.#step = Math.min(LEVELS.length - 1, this.#step + 1);
    else if (share < BUSY_BELOW) this.#step = Math.max(0, this.#step - 1);
    this.#set(LEVELS[this.#step]!, this.#step > 0 ? CHECK_ALL_PERMILLE : CHECK_BUSY_PERMILLE);
  }
}
