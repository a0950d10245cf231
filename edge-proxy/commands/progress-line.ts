import type { CommandIo } from '#contract/command.ts';
import { formatBytes, formatRate, formatSeconds } from '#contract/quantity.ts';
import type { Clock } from '#ports/clock.ts';
import type { Progress } from '../engine/request.ts';

/** Redraws a second: enough to look alive, too few to cost anything. */
const DRAWS_PER_SECOND = 5;

export interface ProgressLine {
  /** Shows the progress now, unless the line was drawn less than a fifth of a second ago. */
  show(progress: Progress): void;
  /** Wipes the line, so that other output can follow; the next `show` draws it again. */
  clear(): void;
}

/** One line on stderr that says what is being done, how far it is and how long it will take; silent if that is no terminal. */
export function progressLine(io: Pick<CommandIo, 'stderr' | 'isTty'>, clock: Clock, label = ''): ProgressLine {
  let drawnAtMs = Number.NEGATIVE_INFINITY;
  let drawn = false;
  const width = (io.stderr as { columns?: number }).columns ?? 100;
  return {
    show(progress) {
      if (!io.isTty) return;
      const nowMs = clock.monotonicMs();
      if (nowMs - drawnAtMs < 1000 / DRAWS_PER_SECOND) return;
      drawnAtMs = nowMs;
      drawn = true;
      const text = `${label === '' ? '' : `${label}: `}${describeProgress(progress)}`;
      // One column stays free: filling the last one makes some terminals wrap, and the line would climb.
      io.stderr.write(`\r\x1b[2K${text.slice(0, Math.max(width - 1, 1))}`);
    },
    clear() {
      if (drawn) io.stderr.write('\r\x1b[2K');
      drawn = false;
      drawnAtMs = Number.NEGATIVE_INFINITY;
    },
  };
}

/** The progress as one line of text: phase, percent, bytes, rate, time left, bottleneck. */
export function describeProgress(progress: Progress): string {
  const { doneBytes, totalBytes, transferredBytes, bytesPerSecond, secondsLeft, bottleneck } = progress;
  const moved = progress.phase === 'restoring' ? 'fetched' : 'sent';
  return [
    progress.phase,
    totalBytes > 0 ? `${Math.min(100, Math.floor((doneBytes / totalBytes) * 100))} %` : '',
    `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`,
    transferredBytes > 0 ? `${formatBytes(transferredBytes)} ${moved}` : '',
    bytesPerSecond > 0 ? formatRate(bytesPerSecond) : '',
    secondsLeft === null
      ? ''
      : `${formatSeconds(Math.ceil(secondsLeft)).replace('.0 s', ' s').replace('.00 s', ' s')} left`,
    bottleneck === null ? '' : `limited by ${bottleneck}`,
  ]
    .filter((part) => part !== '')
    .join(' · ');
}
