import type { Clock } from '#ports/clock.ts';

/** A clock that stands still until a test moves it; sleepers wake when their time has come. */
export interface ManualClock extends Clock {
  advance(ms: number): void;
  /** How many are asleep now. */
  sleepers(): number;
}

/** A clock that starts at the given time and moves only by `advance`. */
export function manualClock(startMs = Date.UTC(2030, 0, 1)): ManualClock {
  let elapsedMs = 0;
  const asleep = new Set<{ readonly untilMs: number; readonly wake: () => void }>();
  return {
    nowMs: () => startMs + elapsedMs,
    monotonicMs: () => elapsedMs,
    sleepers: () => asleep.size,
    advance(ms) {
      elapsedMs += ms;
      const due = [...asleep].filter((sleeper) => sleeper.untilMs <= elapsedMs);
      for (const sleeper of due.sort((a, b) => a.untilMs - b.untilMs)) sleeper.wake();
    },
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason);
        const end = () => {
          asleep.delete(sleeper);
          signal?.removeEventListener('abort', abort);
        };
        const abort = () => {
          end();
          reject(signal?.reason);
        };
        const sleeper = {
          untilMs: elapsedMs + ms,
          wake: () => {
            end();
            resolve();
          },
        };
        if (ms <= 0) return resolve();
        asleep.add(sleeper);
        signal?.addEventListener('abort', abort, { once: true });
      }),
  };
}
