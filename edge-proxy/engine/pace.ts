import type { Clock } from '#ports/clock.ts';

/** Keeps an average rate: bytes may go when those before them are paid for. */
export class Pace {
  readonly #clock: Clock;
  readonly #bytesPerSecond: number | undefined;
  #paidUntilMs = 0;

  /** @param bytesPerSecond  `undefined`: no limit */
  constructor(clock: Clock, bytesPerSecond: number | undefined) {
    this.#clock = clock;
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** Waits until so many bytes may go. */
  async take(bytes: number, signal: AbortSignal): Promise<void> {
    if (this.#bytesPerSecond === undefined) return;
    const now = this.#clock.monotonicMs();
    const startMs = Math.max(now, this.#paidUntilMs);
    this.#paidUntilMs = startMs + (bytes / this.#bytesPerSecond) * 1000;
    if (startMs > now) await this.#clock.sleep(startMs - now, signal);
  }
}
