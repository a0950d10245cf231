import { existsSync } from 'node:fs';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Id } from '#contract/ids.ts';
import type { Job } from '#contract/jobs.ts';
import { eventually, type RunningUp, startUp, temporaryFolder } from '#test/e2e/running-up.ts';
import { type Aim, describeAim, untilMoment } from './aim.ts';
import { type CampaignDisk, isIdentical } from './disk.ts';
import {
  brokenOff,
  committedSegments,
  leftovers,
  openJobs,
  processesOn,
  storedBytes,
  windowsDone,
} from './evidence.ts';
import { judgeStored, type KillRecord, Problems, type Work } from './record.ts';

const WINDOW_BYTES = 512 * 2 ** 20;
const JOB_LIMIT_MS = 120_000;

export interface ServiceRound {
  readonly round: number;
  readonly victim: 'proxy' | 'control plane';
  /** The raw disk, and the same as an image that needs a qemu-nbd to read. */
  readonly disk: CampaignDisk;
  readonly imagePath: string;
  readonly format: 'raw' | 'qcow2';
  /** When to kill; absent: never, to learn how long the work takes. */
  readonly aims?: Readonly<Record<Work, Aim>>;
  readonly usualMs: Readonly<Record<Work, number>>;
}

/** The control plane of one round, which may be another process after a kill. */
interface Stage {
  up: RunningUp;
  readonly folder: string;
  readonly data: string;
  readonly start: () => Promise<RunningUp>;
}

/** Backs a disk up and restores it through `holdfast up`, with one kill -9 in each, and gathers what that left. */
export async function serviceRound(options: ServiceRound): Promise<KillRecord[]> {
  await using folder = await temporaryFolder();
  const data = join(folder.path, 'data');
  const temporary = join(folder.path, 'tmp');
  await mkdir(temporary);
  let port = 0;
  const start = async () => {
    const up = await startUp(data, port, { TMPDIR: temporary });
    port = Number(new URL(up.url).port);
    return up;
  };
  const stage: Stage = { up: await start(), folder: folder.path, data, start };
  try {
    return await inStage(stage, options);
  } catch (error) {
    // The folder is about to go; what the proxy said is all there is to learn from.
    const log = await readFile(join(data, 'proxy.log'), 'utf8').catch(() => 'no log');
    const lines = [...(await processesOn(folder.path)), ...log.trim().split('\n').slice(-20)];
    throw new Error(`${(error as Error).message}\n${lines.join('\n')}`, { cause: error });
  } finally {
    await stage.up.stop('SIGKILL');
    for (const line of await processesOn(folder.path)) process.kill(Number.parseInt(line, 10), 'SIGKILL');
  }
}

async function inStage(stage: Stage, options: ServiceRound): Promise<KillRecord[]> {
  const { client } = stage.up;
  const source = await client.createSource({ kind: 'image', name: 'files', proxy: stage.up.proxy });
  const disks = [{ name: 'root', path: options.imagePath }];
  const machine = (await client.createMachine({ name: 'mail', source: source.id, disks })).id;
  const target = restoredPath(stage, options);

  const backup = await withKill(stage, options, 'backup', async () => (await client.runNow([machine])).jobs[0]!.id);
  const points = await stage.up.client.listPoints(machine);
  backup.problems.expect(points.length === 1, `${points.length} points of one run`);
  const restore = await withKill(stage, options, 'restore', async () => {
    return (await stage.up.client.restore({ machine, target: { path: target, format: options.format } })).id;
  });
  restore.problems.expect(await isIdentical(options.disk, target, options.format), 'the restored disk differs');
  const outcome = restore.job.state.status === 'succeeded' ? restore.job.state.outcome : undefined;
  const resumedBytes = outcome?.kind === 'restore' ? Number(outcome.stats.resumedBytes) : 0;
  const { windows } = restore;
  restore.problems.expect(
    windows === 0 || options.format !== 'raw' || resumedBytes >= windows * WINDOW_BYTES,
    `${windows} windows were done, but only ${resumedBytes} bytes were taken over`,
  );

  for (const { job, problems } of [backup, restore]) {
    const now = await stage.up.client.getJob(job.id);
    problems.expect(JSON.stringify(now.state) === JSON.stringify(job.state), 'the final state changed');
  }
  backup.problems.expect((await stage.up.client.listRuns()).length === 1, 'more than one run');
  const code = await stage.up.stop();
  restore.problems.expect(code === 0, `up ended with ${code}: ${stage.up.stderr()}`);
  const database = join(stage.data, 'control-plane.db');
  restore.problems.expect(openJobs(database) === 0, 'jobs are still open');
  for (const line of await processesOn(stage.folder)) restore.problems.list.push(`still running: ${line}`);
  for (const path of await leftovers(stage.folder)) {
    // A proxy killed between commit and clean-up has nothing more to do; its next backup tidies up.
    if (backup.resumedAfterMs === null && /\/(journal|disks)\//.test(path)) continue;
    restore.problems.list.push(`left behind: ${path}`);
  }
  const stored = await storedBytes(join(stage.data, 'objects'), committedSegments(database));
  judgeStored(backup.problems, stored);
  await rm(target, { force: true });
  return [
    { ...backup.record, stored, problems: backup.problems.list },
    { ...restore.record, windowsDone: windows, resumedBytes, problems: restore.problems.list },
  ];
}

async function withKill(stage: Stage, options: ServiceRound, work: Work, begin: () => Promise<Id<'job'>>) {
  const problems = new Problems();
  const startMs = performance.now();
  const id = await begin();
  const aim = options.aims?.[work];
  let [killMs, killWall, windows, lost] = [startMs, Number.POSITIVE_INFINITY, 0, 0];
  let [afterTheEnd, whole] = [false, false];
  if (aim !== undefined) {
    await untilMoment(aim, options.usualMs[work], stage.folder);
    const cache = join(stage.data, 'proxy', 'cache');
    if (options.victim === 'proxy') await killProxy(stage.up);
    else stage.up.process.kill('SIGKILL');
    killWall = Date.now();
    killMs = performance.now();
    if (options.victim === 'control plane') await stage.up.stop('SIGKILL');
    lost = brokenOff(join(stage.data, 'objects'));
    windows = await windowsDone(cache);
    if (options.victim === 'control plane') stage.up = await stage.start();
    whole = existsSync(restoredPath(stage, options));
  }
  const job = await stage.up.client.waitForJob(id, { signal: AbortSignal.timeout(JOB_LIMIT_MS) });
  const endMs = performance.now();
  problems.expect(job.state.status === 'succeeded', `the job ended as ${JSON.stringify(job.state)}`);
  if ('endedAt' in job.state) afterTheEnd = Date.parse(job.state.endedAt) < killWall;
  const resumedWall = await startAfter(join(stage.data, 'proxy.log'), id, killWall);
  const resumedAfterMs = resumedWall === undefined || aim === undefined ? null : resumedWall - killWall;
  const record = {
    round: options.round,
    victim: options.victim,
    work,
    aim: aim === undefined ? 'never' : describeAim(aim),
    killedAfterMs: Math.round(killMs - startMs),
    afterTheEnd,
    resumedAfterMs,
    endedAfterMs: Math.round(endMs - (aim === undefined ? startMs : killMs)),
    ...(work === 'backup' ? { brokenOffBytes: lost } : {}),
  };
  // A restore that was whole, but could not be reported any more, is made anew.
  return { record, job, problems, windows: afterTheEnd || whole ? 0 : windows, resumedAfterMs };
}

function restoredPath({ folder }: Stage, { format }: ServiceRound): string {
  return join(folder, `restored.${format === 'raw' ? 'img' : 'qcow2'}`);
}

/** Kills the proxy; one that is just being started again, as the control plane does, is waited for. */
async function killProxy(up: RunningUp): Promise<void> {
  await eventually('there is a proxy to kill', async () => {
    try {
      return process.kill(await up.proxyPid(), 'SIGKILL');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
      throw error;
    }
  });
}

/** When the proxy's log says that the job was begun again; `undefined` if it was not. */
async function startAfter(log: string, job: Job['id'], wallMs: number): Promise<number | undefined> {
  for (const line of (await readFile(log, 'utf8')).split('\n')) {
    if (!line.includes('"job-started"') || !line.includes(job)) continue;
    const at = Date.parse((JSON.parse(line) as { at: string }).at);
    if (at >= wallMs) return at;
  }
  return undefined;
}
