import type { Catcher, Retrier, State } from '#workflows/asl.ts';
import type { TaskError } from './task-error.ts';

/** Failures of the execution itself, which `States.ALL` does not cover (as on Step Functions). */
const TERMINAL = new Set(['States.Runtime', 'States.DataLimitExceeded']);

/** What becomes of a state that failed: tried again after a while, gone on from elsewhere, or failed for good. */
export type Recovery =
  | { readonly kind: 'retry'; readonly delayMs: number; readonly attempts: readonly number[] }
  | { readonly kind: 'catch'; readonly catcher: Catcher }
  | { readonly kind: 'none' };

/**
 * @param attempts  how often each retrier was used since the state was entered, by its index
 * @param fraction  a random number in [0, 1), for full jitter
 */
export function recover(
  state: State,
  failure: TaskError,
  attempts: readonly number[],
  fraction: () => number,
): Recovery {
  const retriers: readonly Retrier[] = ('Retry' in state ? state.Retry : undefined) ?? [];
  const index = retriers.findIndex((retrier) => matches(retrier.ErrorEquals, failure.error));
  const retrier = retriers[index];
  const used = attempts[index] ?? 0;
  if (retrier !== undefined && used < (retrier.MaxAttempts ?? 3)) {
    const counted = retriers.map((_, at) => (attempts[at] ?? 0) + (at === index ? 1 : 0));
    return { kind: 'retry', delayMs: delayMs(retrier, used, fraction), attempts: counted };
  }
  const catchers = ('Catch' in state ? state.Catch : undefined) ?? [];
  const catcher = catchers.find((candidate) => matches(candidate.ErrorEquals, failure.error));
  return catcher === undefined ? { kind: 'none' } : { kind: 'catch', catcher };
}

function delayMs(retrier: Retrier, used: number, fraction: () => number): number {
  const { IntervalSeconds = 1, BackoffRate = 2, MaxDelaySeconds = Number.POSITIVE_INFINITY } = retrier;
  const seconds = Math.min(IntervalSeconds * BackoffRate ** used, MaxDelaySeconds, 31_622_400);
  return seconds * 1000 * (retrier.JitterStrategy === 'FULL' ? fraction() : 1);
}

function matches(names: readonly string[], error: string): boolean {
  return names.some((name) => {
    if (name === error) return true;
    if (TERMINAL.has(error)) return false;
    if (name === 'States.ALL') return true;
    const isTimeout = error === 'States.Timeout' || error === 'States.HeartbeatTimeout';
    // A missed heartbeat is a kind of time-out; and everything but time-outs is a failed task.
    return name === 'States.TaskFailed' ? !isTimeout : name === 'States.Timeout' && isTimeout;
  });
}
