import type { Clock } from '#ports/clock.ts';
import type { Phase, Progress, Stage } from './request.ts';
import { readMeters } from './stages.ts';

const REPORT_MS = 500;
/** Rates are taken over about this long. */
const WINDOW_MS = 5_000;

export interface ProgressSource {
  readonly phase: () => Phase;
  readonly doneBytes: () => number;
  readonly totalBytes: number;
  readonly transferredBytes: () => number;
  readonly meters: SharedArrayBuffer;
}

/** Reports progress twice a second until the signal is aborted. */
export async function reportProgress(
  source: ProgressSource,
  clock: Clock,
  signal: AbortSignal,
  report: (progress: Progress) => void,
): Promise<void> {
  const samples: { readonly atMs: number; readonly done: number }[] = [];
  let before = readMeters(source.meters).seconds;
  while (!signal.aborted) {
    const atMs = clock.monotonicMs();
    const done = source.doneBytes();
    samples.push({ atMs, done });
    while (samples.length > 2 && samples[1]!.atMs < atMs - WINDOW_MS) samples.shift();
    const first = samples[0]!;
    const bytesPerSecond = atMs > first.atMs ? ((done - first.done) / (atMs - first.atMs)) * 1000 : 0;
    const now = readMeters(source.meters).seconds;
    const left = source.totalBytes - done;
    report({
      phase: source.phase(),
      doneBytes: done,
      totalBytes: source.totalBytes,
      transferredBytes: source.transferredBytes(),
      bytesPerSecond,
      secondsLeft: bytesPerSecond > 0 ? left / bytesPerSecond : null,
      bottleneck: busiest(before, now),
    });
    before = now;
    await clock.sleep(REPORT_MS, signal).catch(() => undefined);
  }
}

/** The stage that took most of the workers' time since the last report. */
function busiest(before: Record<Stage, number>, now: Record<Stage, number>): Stage | null {
  let most: Stage | null = null;
  let mostSeconds = 0.01;
  for (const [stage, seconds] of Object.entries(now) as [Stage, number][]) {
    const spent = seconds - before[stage];
    if (spent > mostSeconds) {
      most = stage;
      mostSeconds = spent;
    }
  }
  return most;
}
