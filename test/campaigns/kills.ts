/** `npm run campaign:kills -- --kills 50 --seed 1`: kill -9 at seeded moments of real backups and restores. */

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { temporaryFolder } from '#test/e2e/running-up.ts';
import { SeededRandom } from '#test/random.ts';
import { type Aim, aims } from './kills/aim.ts';
import { commandRound } from './kills/command-round.ts';
import { makeDisk } from './kills/disk.ts';
import type { KillRecord, Victim, Work } from './kills/record.ts';
import { serviceRound } from './kills/service-round.ts';

const WINDOW_BYTES = 512 * 2 ** 20;
/** Every so many rounds the disk is an image that needs a qemu-nbd, both to read and to write. */
const QCOW2_EVERY = 5;

export interface KillsOptions {
  /** Kills of each victim in each kind of work. */
  readonly kills: number;
  readonly seed: number;
  readonly victims: readonly Victim[];
  /** MiB of data in each stretch of the disk, and how many stretches of one restore window. */
  readonly dataMib: number;
  readonly stretches: number;
  /** How long the work takes without a kill; default: it is measured first. */
  readonly usualMs?: Readonly<Record<Work, number>>;
  /** No round begins after so many minutes. */
  readonly minutes?: number;
  readonly onRecord?: (record: KillRecord) => void;
}

/** Kills every victim `kills` times in a backup and as often in a restore, each time on a new vault. */
export async function kills(options: KillsOptions): Promise<KillRecord[]> {
  await using folder = await temporaryFolder();
  const { seed, stretches, dataMib } = options;
  const stretchBytes = stretches > 1 ? WINDOW_BYTES : 0;
  const disk = await makeDisk(join(folder.path, 'disk.img'), { seed, stretches, stretchBytes, dataMib });
  const qcow2Path = join(folder.path, 'disk.qcow2');
  await promisify(execFile)('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', disk.path, qcow2Path]);
  const records: KillRecord[] = [];
  const trains = options.victims.map((victim, number) => {
    const random = new SeededRandom(seed * 16 + number);
    const round = (round: number, usualMs: Record<Work, number>, aim?: Record<Work, Aim>) => {
      const format = round % QCOW2_EVERY === QCOW2_EVERY - 1 ? 'qcow2' : 'raw';
      const imagePath = format === 'raw' ? disk.path : qcow2Path;
      const parts = { round, disk, imagePath, usualMs, ...(aim && { aims: aim }) };
      return victim === 'command' ? commandRound(parts) : serviceRound({ ...parts, victim, format });
    };
    const moments = { backup: aims(options.kills, 'backup', random), restore: aims(options.kills, 'restore', random) };
    return { victim, round, moments, usualMs: { ...(options.usualMs ?? { backup: 0, restore: 0 }) } };
  });
  for (const train of options.usualMs ? [] : trains) {
    const [backup, restore] = await train.round(-1, train.usualMs);
    train.usualMs = { backup: backup!.endedAfterMs, restore: restore!.endedAfterMs };
  }
  const until = performance.now() + (options.minutes ?? Number.POSITIVE_INFINITY) * 60_000;
  for (let i = 0; i < options.kills && performance.now() < until; i++) {
    for (const { victim, round, moments, usualMs } of trains) {
      const aim = { backup: moments.backup[i]!, restore: moments.restore[i]! };
      const found = await round(i, usualMs, aim).catch((error: Error) => [failed(i, victim, error)]);
      for (const record of found) {
        records.push(record);
        options.onRecord?.(record);
        usualMs[record.work] *= correction(record);
      }
    }
  }
  return records;
}

/** The machine is faster and slower by the hour: kills that come too late draw the next ones nearer. */
function correction({ afterTheEnd, aim }: KillRecord): number {
  if (!aim.startsWith('at')) return 1;
  return afterTheEnd ? 0.85 : 1.04;
}

function failed(round: number, victim: Victim, error: Error): KillRecord {
  const none = { aim: '', killedAfterMs: 0, afterTheEnd: false, resumedAfterMs: null, endedAfterMs: 0 };
  return { round, victim, work: 'backup', ...none, problems: [error.stack ?? error.message] };
}

/** Figures of a campaign, one row for each victim and kind of work. */
export function summary(records: readonly KillRecord[]) {
  return Object.entries(Object.groupBy(records, ({ victim, work }) => `${victim}, ${work}`)).map(([what, group]) => {
    const numbers = (pick: (record: KillRecord) => number | null | undefined) =>
      group!
        .map(pick)
        .filter((value) => typeof value === 'number')
        .sort((a, b) => a - b);
    const median = (values: readonly number[]) => values[Math.floor(values.length / 2)] ?? null;
    const stored = group!.flatMap((record) => record.stored ?? []);
    return {
      what,
      kills: group!.length,
      withProblems: group!.filter(({ problems }) => problems.length > 0).length,
      afterTheEnd: group!.filter(({ afterTheEnd }) => afterTheEnd).length,
      medianKilledAfterMs: median(numbers((record) => record.killedAfterMs)),
      medianResumedAfterMs: median(numbers((record) => record.resumedAfterMs)),
      maxResumedAfterMs: numbers((record) => record.resumedAfterMs).at(-1) ?? null,
      medianEndedAfterMs: median(numbers((record) => record.endedAfterMs)),
      ...(stored.length > 0
        ? {
            packBytes: Math.max(...stored.map(({ packBytes }) => packBytes)),
            largestPackBytes: Math.max(...stored.map(({ largestPackBytes }) => largestPackBytes)),
            maxStoredTwiceBytes: Math.max(...stored.map((s) => s.orphanBytes + s.duplicateBytes)),
            maxBrokenOffBytes: numbers((record) => record.brokenOffBytes).at(-1),
          }
        : { restoresResumed: numbers((record) => record.resumedBytes).filter((bytes) => bytes > 0).length }),
    };
  });
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      kills: { type: 'string', default: '50' },
      seed: { type: 'string', default: '1' },
      victims: { type: 'string', default: 'proxy,control plane,command' },
      minutes: { type: 'string', default: '60' },
      'data-mib': { type: 'string', default: '24' },
    },
  });
  const started = performance.now();
  const records = await kills({
    kills: Number(values.kills),
    seed: Number(values.seed),
    victims: values.victims.split(',') as Victim[],
    dataMib: Number(values['data-mib']),
    stretches: 3,
    minutes: Number(values.minutes),
    onRecord: (record) => console.log(JSON.stringify(record)),
  });
  const seconds = Math.round((performance.now() - started) / 1000);
  const problems = records.filter((record) => record.problems.length > 0).length;
  console.log(JSON.stringify({ type: 'summary', seconds, kills: records.length, problems, of: summary(records) }));
  process.exitCode = problems === 0 ? 0 : 1;
}
