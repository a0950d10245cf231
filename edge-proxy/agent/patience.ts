import { HoldfastError } from '#contract/errors.ts';
import type { Clock } from '#ports/clock.ts';
import type { Random } from '#ports/random.ts';

/** How long, and how often, something that fails is tried again. */
export interface Patience {
  readonly firstWaitMs: number;
  readonly maxWaitMs: number;
  /** No new attempt begins after this time. */
  readonly totalMs: number;
}

export interface PatienceContext {
  readonly clock: Clock;
  readonly random: Random;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Runs an act again, with jittered exponential waits, as long as it fails with a retryable error and the
 * patience lasts; throws the last error with what was tried.
 */
export async function persist<T>(
  patience: Patience,
  { clock, random, signal }: PatienceContext,
  act: (attempt: number) => Promise<T>,
): Promise<T> {
  const startMs = clock.monotonicMs();
  for (let attempt = 1; ; attempt++) {
    try {
      return await act(attempt);
    } catch (error) {
      signal?.throwIfAborted();
      // What was stopped for now may be retried by whoever comes next, not here.
      if (!(error instanceof HoldfastError) || !error.retryable || error.code === 'cancelled') throw error;
      const spentMs = clock.monotonicMs() - startMs;
      const ceilingMs = Math.min(patience.maxWaitMs, patience.firstWaitMs * 2 ** Math.min(attempt - 1, 20));
      // Half fixed, half random: a hundred proxies whose control plane comes back do not return in step.
      const waitMs = ceilingMs * (0.5 + 0.5 * random.fraction());
      if (spentMs + waitMs > patience.totalMs) {
        throw new HoldfastError(error.code, error.message, {
          cause: error,
          ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
          tried: `${attempt} attempts over ${Math.round(spentMs / 1000)} s`,
          retryable: true,
          data: error.data,
        });
      }
      await clock.sleep(waitMs, signal);
    }
  }
}
