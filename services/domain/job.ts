import type { JobState, Outcome } from '#contract/jobs.ts';
import type { WireErrorReport } from '#contract/problem.ts';

/** What can happen to a job. `at` is a wire time. */
export type JobEvent =
  | { readonly event: 'held-back'; readonly why: string }
  | { readonly event: 'dispatched' }
  | { readonly event: 'heard'; readonly at: string }
  | { readonly event: 'succeeded'; readonly at: string; readonly outcome: Outcome }
  | { readonly event: 'failed'; readonly at: string; readonly error: WireErrorReport }
  | { readonly event: 'cancelled'; readonly at: string };

/** True if the state is final. */
export function isFinal(state: JobState): boolean {
  return (
    state.status === 'succeeded' ||
    state.status === 'failed' ||
    state.status === 'cancelled' ||
    state.status === 'skipped'
  );
}

/** How often a job has been handed to its proxy. */
export function attemptOf(state: JobState): number {
  return state.status === 'dispatched' || state.status === 'running' ? state.attempt : 0;
}

/**
 * The state after an event. A final state answers itself to every event, and an event that does not
 * apply changes nothing: so duplicates and stragglers are harmless, in any order.
 */
export function advance(state: JobState, event: JobEvent): JobState {
  if (isFinal(state)) return state;
  switch (event.event) {
    case 'held-back':
      return state.status === 'waiting' ? { status: 'waiting', why: event.why } : state;
    case 'dispatched':
      return { status: 'dispatched', attempt: attemptOf(state) + 1 };
    case 'heard':
      return state.status === 'dispatched' ? { status: 'running', attempt: state.attempt, startedAt: event.at } : state;
    case 'succeeded':
      return { status: 'succeeded', endedAt: event.at, outcome: event.outcome };
    case 'failed':
      return { status: 'failed', endedAt: event.at, error: event.error };
    case 'cancelled':
      return { status: 'cancelled', endedAt: event.at };
  }
}
