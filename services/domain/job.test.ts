import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { JobState } from '#contract/jobs.ts';
import { advance, isFinal, type JobEvent } from './job.ts';

const at = '2026-01-01T00:00:00.000Z';
const outcome = { kind: 'backup', point: 'pnt_01JD0000000000000000000000', disks: [], stats: {} } as const;
const events: JobEvent[] = [
  { event: 'held-back', why: 'the proxy is busy' },
  { event: 'dispatched' },
  { event: 'heard', at },
  { event: 'succeeded', at, outcome: { ...outcome, disks: [] } },
  { event: 'failed', at, error: { code: 'unreadable', message: 'it broke' } },
  { event: 'cancelled', at },
];
const start = { status: 'waiting' } as JobState;

test('whatever happens in whatever order, a job enters at most one final state and keeps it', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...events), { maxLength: 40 }), (history) => {
      let state = start;
      let final: JobState | undefined;
      for (const event of history) {
        state = advance(state, event);
        if (final !== undefined) assert.equal(state, final);
        else if (isFinal(state)) final = state;
      }
      const firstEnd = history.find((event) => ['succeeded', 'failed', 'cancelled'].includes(event.event));
      assert.equal(final?.status, firstEnd?.event);
    }),
  );
});

test('each dispatch counts one attempt, also after the proxy had begun', () => {
  let state = advance(start, { event: 'dispatched' });
  state = advance(state, { event: 'heard', at });
  assert.deepEqual(state, { status: 'running', attempt: 1, startedAt: at });
  state = advance(state, { event: 'dispatched' });
  assert.deepEqual(state, { status: 'dispatched', attempt: 2 });
});

test('a straggling sign of life does not wake a job that waits', () => {
  assert.deepEqual(advance(start, { event: 'heard', at }), start);
});
