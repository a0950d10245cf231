import { performance } from 'node:perf_hooks';
import type { Clock } from '#ports/clock.ts';

/** Longest wait that one timer can hold (2^31 − 1 ms); longer ones are slept in pieces. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/** The machine's own time. Only composition roots hand it out. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  async sleep(ms, signal) {
    for (let left = Math.max(0, ms); ; left -= TIMER_MAX_MS) {
      await once(Math.min(left, TIMER_MAX_MS), signal);
      if (left <= TIMER_MAX_MS) return;
    }
  },
};

function once(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', abort, { once: true });
  });
}
