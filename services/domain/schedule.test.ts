import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { isHoldfastError } from '#contract/errors.ts';
import { isoTime, msOfTime } from '#contract/time.ts';
import { checkSchedule, nextDue } from './schedule.ts';

const due = (expression: string, timeZone: string, after: string) => {
  const next = nextDue({ kind: 'cron', expression, timeZone }, 0, msOfTime(after));
  return next === undefined ? undefined : isoTime(next);
};

test('an interval is due at whole multiples from its anchor, strictly later', () => {
  fc.assert(
    fc.property(
      fc.nat(10 ** 12),
      fc.integer({ min: -(10 ** 9), max: 10 ** 12 }),
      fc.integer({ min: 1, max: 44_640 }),
      (anchor, late, minutes) => {
        const next = nextDue({ kind: 'interval', minutes }, anchor, anchor + late)!;
        assert.ok(next > anchor + late);
        assert.equal((next - anchor) % (minutes * 60_000), 0);
        if (late >= 0) assert.ok(next - (anchor + late) <= minutes * 60_000);
      },
    ),
  );
});

test('a cron time is meant in its time zone', () => {
  assert.equal(due('30 2 * * *', 'Asia/Seoul', '2026-03-01T00:00:00.000Z'), '2026-03-01T17:30:00.000Z');
  assert.equal(due('30 2 * * *', 'UTC', '2026-03-01T00:00:00.000Z'), '2026-03-01T02:30:00.000Z');
});

test('a run in the hour that the clocks skip happens once, right after the gap', () => {
  // Berlin, 29 March 2026: 02:00 → 03:00 local, at 01:00Z.
  const first = due('30 2 * * *', 'Europe/Berlin', '2026-03-28T12:00:00.000Z')!;
  assert.ok(first >= '2026-03-29T01:00:00.000Z' && first <= '2026-03-29T01:30:00.000Z', first);
  assert.equal(due('30 2 * * *', 'Europe/Berlin', first), '2026-03-30T00:30:00.000Z');
});

test('a run in the hour that occurs twice happens once', () => {
  // Berlin, 25 October 2026: 03:00 → 02:00 local, at 01:00Z.
  for (const expression of ['30 2 * * *', '30 2,14 * * *']) {
    const first = due(expression, 'Europe/Berlin', '2026-10-24T20:00:00.000Z')!;
    assert.equal(first, '2026-10-25T00:30:00.000Z');
    const second = due(expression, 'Europe/Berlin', first)!;
    assert.notEqual(second, '2026-10-25T01:30:00.000Z', expression);
  }
});

test('an expression that is none, or never comes due, is refused with what to do', () => {
  for (const expression of ['61 * * * *', 'every day', '* * * * * *', '0 0 31 2 *']) {
    assert.throws(
      () => checkSchedule({ kind: 'cron', expression, timeZone: 'UTC' }),
      (error) => isHoldfastError(error, 'usage') && error.remedy !== undefined,
      expression,
    );
  }
});
