import { Cron } from 'croner';
import { HoldfastError } from '#contract/errors.ts';
import type { Schedule } from '#contract/policies.ts';

const MINUTE_MS = 60_000;

/**
 * The first moment strictly after `afterMs` at which the schedule is due, or `undefined` if there is none.
 * All times are milliseconds since 1970. An interval counts from `anchorMs`, so that a late run does not
 * shift the later ones. A cron time that the clocks skip is due at the first moment after the gap; one
 * that occurs twice is due once.
 */
export function nextDue(schedule: Schedule, anchorMs: number, afterMs: number): number | undefined {
  if (schedule.kind === 'interval') {
    const step = schedule.minutes * MINUTE_MS;
    if (afterMs < anchorMs) return anchorMs;
    return anchorMs + (Math.floor((afterMs - anchorMs) / step) + 1) * step;
  }
  return cronOf(schedule).nextRun(new Date(afterMs))?.getTime();
}

/** Throws `usage` if the schedule's cron expression is not valid or never comes due. */
export function checkSchedule(schedule: Schedule): void {
  if (schedule.kind === 'cron' && cronOf(schedule).nextRun(new Date(0)) === null) {
    throw new HoldfastError('usage', `The cron expression "${schedule.expression}" never comes due`, {
      remedy: 'Give five fields: minute, hour, day of month, month, day of week',
    });
  }
}

function cronOf(schedule: Extract<Schedule, { kind: 'cron' }>): Cron {
  try {
    // Lists and ranges of hours count as fixed times too: people who write "2,14" expect two runs a day,
    // also on the two days a year when the clocks change.
    return new Cron(schedule.expression, {
      paused: true,
      timezone: schedule.timeZone,
      mode: '5-part',
      fixedTimeRule: 'no-wildcard',
    });
  } catch (cause) {
    throw new HoldfastError('usage', `"${schedule.expression}" is not a cron expression`, {
      remedy: 'Give five fields: minute, hour, day of month, month, day of week, such as "30 2 * * *"',
      cause,
    });
  }
}
