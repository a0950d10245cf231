import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { temporaryFolder } from '#test/e2e/running-up.ts';
import { type Aim, describeAim, untilMoment } from './aim.ts';
import { type CampaignDisk, isIdentical } from './disk.ts';
import {
  brokenOff,
  filesBelow,
  leftovers,
  processesOn,
  segmentsOfVault,
  storedBytes,
  windowsDone,
} from './evidence.ts';
import { judgeStored, type KillRecord, Problems, type Work } from './record.ts';

const LAUNCHER = fileURLToPath(new URL('../../../holdfast', import.meta.url));
const WINDOW_BYTES = 512 * 2 ** 20;

export interface CommandRound {
  readonly round: number;
  readonly disk: CampaignDisk;
  readonly imagePath: string;
  /** When to kill; absent: never, to learn how long the work takes. */
  readonly aims?: Readonly<Record<Work, Aim>>;
  readonly usualMs: Readonly<Record<Work, number>>;
}

/** Kills `vault backup`, runs it again, kills `vault restore`, runs it again, and checks what that made. */
export async function commandRound(options: CommandRound): Promise<KillRecord[]> {
  await using folder = await temporaryFolder();
  const [repo, key, cache, target] = ['repo', 'key', 'cache', 'restored.img'].map((name) => join(folder.path, name));
  const temporary = join(folder.path, 'tmp');
  await mkdir(temporary);
  const vault = (...args: string[]) =>
    startCommand(['vault', ...args, '--repo', repo!, '--key-file', key!, '--json'], temporary);
  const cached = ['--cache-dir', cache!, '--machine', 'mail'];
  await vault('init').success();

  const look = async () => ({ windows: await windowsDone(cache!), lost: brokenOff(repo!) });
  const begin = { backup: ['--disk', options.imagePath], restore: ['--to', target!] };
  const backup = await withKill(options, 'backup', folder.path, look, () =>
    vault('backup', ...begin.backup, ...cached),
  );
  const restore = await withKill(options, 'restore', folder.path, look, () =>
    vault('restore', ...begin.restore, ...cached),
  );
  restore.problems.expect(await isIdentical(options.disk, target!, 'raw'), 'the disk differs');
  const resumedBytes = Number(restore.result?.stats?.resumedBytes ?? 0);
  restore.problems.expect(
    resumedBytes >= restore.seen.windows * WINDOW_BYTES,
    `${restore.seen.windows} windows were done, but only ${resumedBytes} bytes were taken over`,
  );
  const points = (await filesBelow(repo!)).filter((path) => path.includes('/points/'));
  // A backup that was killed after its commit had made its point; the second run made another.
  const expected = backup.seen.committed ? 2 : 1;
  backup.problems.expect(points.length === expected, `${points.length} points, not ${expected}`);
  const check = await vault('verify', '--read-data', '--cache-dir', cache!).success();
  restore.problems.expect(check.sound === true, 'the vault is not sound');
  const stored = await storedBytes(repo!, await segmentsOfVault(repo!));
  judgeStored(backup.problems, stored);
  for (const line of await processesOn(folder.path)) restore.problems.list.push(`still running: ${line}`);
  for (const path of await leftovers(folder.path)) restore.problems.list.push(`left behind: ${path}`);
  return [
    { ...backup.record, brokenOffBytes: backup.seen.lost, stored, problems: backup.problems.list },
    {
      ...restore.record,
      windowsDone: restore.seen.windows,
      resumedBytes,
      problems: restore.problems.list,
    },
  ];
}

async function withKill(
  options: CommandRound,
  work: Work,
  folder: string,
  look: () => Promise<{ readonly windows: number; readonly lost: number }>,
  start: () => Command,
) {
  const problems = new Problems();
  const aim = options.aims?.[work];
  const startMs = performance.now();
  let killMs = startMs;
  let afterTheEnd = false;
  let seen = { windows: 0, lost: 0, committed: false };
  if (aim !== undefined) {
    const first = start();
    await untilMoment(aim, options.usualMs[work], folder);
    killMs = performance.now();
    const ended = await first.kill();
    afterTheEnd = !ended.killed;
    problems.expect(ended.killed || ended.code === 0, `the first run failed: ${ended.said}`);
    const points = (await filesBelow(folder)).filter((path) => path.includes('/points/'));
    seen = { ...(await look()), committed: points.length > 0 };
  }
  const again = performance.now();
  const result = await start()
    .success()
    .catch((error: Error) => {
      problems.list.push(error.message);
      return undefined;
    });
  const record = {
    round: options.round,
    victim: 'command' as const,
    work,
    aim: aim === undefined ? 'never' : describeAim(aim),
    killedAfterMs: Math.round(killMs - startMs),
    afterTheEnd,
    resumedAfterMs: null,
    endedAfterMs: Math.round(performance.now() - again),
  };
  return { record, result, problems, seen };
}

interface Result {
  readonly sound?: boolean;
  readonly stats?: { readonly resumedBytes?: number };
}

interface Command {
  /** Resolves to the last line's object; rejects unless it ends with 0. */
  success(): Promise<Result>;
  kill(): Promise<{ readonly killed: boolean; readonly code: number | null; readonly said: string }>;
}

function startCommand(args: readonly string[], temporary: string): Command {
  const child = spawn(LAUNCHER, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, TMPDIR: temporary },
  });
  let [out, said] = ['', ''];
  child.stdout.on('data', (text) => {
    out += text;
  });
  child.stderr.on('data', (text) => {
    said += text;
  });
  const closed = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
  return {
    async success() {
      const [code] = await closed;
      if (code !== 0) throw new Error(`${args.slice(0, 2).join(' ')} ended with ${code}: ${out.slice(-500)} ${said}`);
      return JSON.parse(out.trim().split('\n').at(-1)!) as Result;
    },
    async kill() {
      child.kill('SIGKILL');
      const [code, signal] = await closed;
      return { killed: signal === 'SIGKILL', code, said: `${out.slice(-500)} ${said}` };
    },
  };
}
