import { formatBytes, formatRate, formatSeconds } from '#contract/quantity.ts';
import { ZSTD_FLOOR } from './floors.ts';
import type { Images } from './images.ts';
import type { Results } from './results.ts';
import type { Spread } from './statistics.ts';

/** One goal for the data path beside what was measured. */
export interface Goal {
  readonly text: string;
  readonly figure: string;
  /** Undefined if something that it compares was not measured. */
  readonly met: boolean | undefined;
}

const MiB = 2 ** 20;
const AVERAGE_CHUNK_BYTES = 128 * 1024;

/** The goals, in the order in which they were set. */
export function goals(results: Results, images: Images): Goal[] {
  const faster = (text: string, peer: string, scenario: string, least: number) =>
    goal(text, results.ratio(peer, 'ours', scenario, 'wall'), (ratio) => ratio >= least, times);
  const smaller = (text: string, peer: string, scenario: string, most: number) => {
    const inverse = results.ratio('ours', peer, scenario, 'grownBytes');
    return goal(text, inverse, (ratio) => ratio <= most, times);
  };
  const diskBytes = images.sizeBytes;
  const dirtyBytes = images.changes('oltp').bytes;
  return [
    faster('full: at least 3 × as fast as restic', 'restic', 'full', 3),
    faster('full: at least 2 × as fast as borg', 'borg', 'full', 2),
    goal(
      `full: at least 0.85 of the speed of ${ZSTD_FLOOR}`,
      results.ratio(ZSTD_FLOOR, 'ours', 'full', 'wall', 'floor'),
      (ratio) => ratio >= 0.85,
      times,
    ),
    smaller('full: stores no more than restic', 'restic', 'full', 1),
    faster('day by full read: at least 4 × as fast as restic', 'restic', 'day', 4),
    smaller('day by full read: stores at most 0.2 of what restic does', 'restic', 'day', 0.2),
    goal(
      'OLTP day by change list: grows by at most 1.25 × the dirty pages',
      scaled(results.spread('ours', 'oltp-list', 'grownBytes'), 1 / dirtyBytes),
      (ratio) => ratio <= 1.25,
      times,
    ),
    goal(
      '1 TiB by change list: under 1 s, and what changed',
      results.spread('ours', 'huge-list', 'wall'),
      (seconds) => seconds < 1 + images.changes('hugeDay').bytes / 50e6,
      formatSeconds,
    ),
    faster('sibling: at least 3 × as fast as restic', 'restic', 'sibling', 3),
    smaller('sibling: stores at most 0.75 of what restic does', 'restic', 'sibling', 0.75),
    faster('restore: at least 1.8 × as fast as restic', 'restic', 'restore', 1.8),
    faster('restore: at least 2.5 × as fast as borg', 'borg', 'restore', 2.5),
    goal(
      'restore: at least 1 GB/s of disk where the target takes it',
      rate(results.spread('ours', 'restore', 'wall'), diskBytes),
      (bytesPerSecond) => bytesPerSecond >= 1e9,
      formatRate,
    ),
    goal(
      'known data: at least 1 GB of disk a second and core',
      rate(results.spread('ours', 'known', 'cpu'), diskBytes),
      (bytesPerSecond) => bytesPerSecond >= 1e9,
      formatRate,
    ),
    memory('full: peak memory at most 400 MiB + 2 bytes a chunk', results, 'full', diskBytes),
    memory('1 TiB sparse: peak memory within the same bound', results, 'huge', diskBytes / 8),
  ];
}

function memory(text: string, results: Results, scenario: string, dataBytes: number): Goal {
  const bound = 400 * MiB + 2 * (dataBytes / AVERAGE_CHUNK_BYTES);
  return goal(text, results.spread('ours', scenario, 'peakBytes'), (bytes) => bytes <= bound, formatBytes);
}

function goal(
  text: string,
  measured: Spread | undefined,
  isMet: (value: number) => boolean,
  format: (value: number) => string,
): Goal {
  if (measured === undefined) return { text, figure: 'not measured', met: undefined };
  return { text, figure: withRange(measured, format), met: isMet(measured.median) };
}

/** A median, with its range where there was more than one round. */
export function withRange({ median, min, max }: Spread, format: (value: number) => string): string {
  return min === max ? format(median) : `${format(median)} (${format(min)} – ${format(max)})`;
}

function times(value: number): string {
  return `${value.toFixed(2)} ×`;
}

function scaled(spread: Spread | undefined, factor: number): Spread | undefined {
  return spread && { median: spread.median * factor, min: spread.min * factor, max: spread.max * factor };
}

function rate(seconds: Spread | undefined, bytes: number): Spread | undefined {
  return seconds && { median: bytes / seconds.median, min: bytes / seconds.max, max: bytes / seconds.min };
}
