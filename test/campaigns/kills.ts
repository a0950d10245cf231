import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Id } from '#contract/ids.ts';
import type { Job } from '#contract/jobs.ts';
import { eventually, isAlive, type RunningUp, startUp, temporaryFolder } from '../e2e/running-up.ts';
import { SeededRandom } from '../random.ts';

const MIB = 1024 * 1024;
export type Victim = 'proxy' | 'control-plane';

export interface KillFigures {
  readonly kills: number;
  /** Kills that struck while the job was under way. */
  readonly struck: number;
  /** Most bytes of packs that one kill cost beyond the disk's own data. */
  readonly worstExcessBytes: number;
  readonly seconds: number;
}

/**
 * Kills the victim with SIGKILL once in each of `rounds` backups and once in each of their restores, at seeded moments, and
 * checks after each that the job ended once, well, that the disk is right and that nothing is left running.
 */
export async function killCampaign(
  victim: Victim,
  rounds: number,
  seed: number,
  dataMiB: number,
): Promise<KillFigures> {
  const startMs = performance.now();
  const random = new SeededRandom(seed);
  await using folder = await temporaryFolder();
  const data = join(folder.path, 'data');
  let up = await startUp(data);
  const port = Number(new URL(up.url).port);
  const ends = new Map<Id<'job'>, string>();
  let struck = 0;
  let worstExcessBytes = 0;

  /** Kills at a moment of the job and waits for its end. */
  const killDuring = async (job: Id<'job'>, withinMs: number): Promise<Job> => {
    await new Promise((resolve) => setTimeout(resolve, random.below(withinMs)));
    if (!('endedAt' in (await up.client.getJob(job)).state)) struck++;
    if (victim === 'proxy') {
      // The one killed before may not be back yet.
      await eventually('a proxy to kill', async () => kill(await up.proxyPid()));
    } else {
      const orphan = await up.proxyPid();
      await up.stop('SIGKILL');
      await eventually('the proxy notices that its parent is gone', () => !isAlive(orphan));
      up = await startUp(data, port);
    }
    return up.client.waitForJob(job, { signal: AbortSignal.timeout(120_000) });
  };
  try {
    const source = await up.client.createSource({ kind: 'image', name: 'files', proxy: up.proxy });
    const disk = join(folder.path, 'disk.img');
    const target = join(folder.path, 'restored.img');
    for (let round = 0; round < rounds; round++) {
      const label = `${victim}, round ${round}`;
      await writeFile(disk, random.fill(Buffer.alloc(dataMiB * MIB)));
      const machine = await up.client.createMachine({
        name: label,
        source: source.id,
        disks: [{ name: 'd', path: disk }],
      });
      const before = await packBytes(data);
      const backup = (await up.client.runNow([machine.id])).jobs[0]!.id;
      const saved = await killDuring(backup, dataMiB * 25);
      assert.equal(saved.state.status, 'succeeded', `${label}: ${JSON.stringify(saved.state)}`);
      assert.equal((await up.client.listPoints(machine.id)).length, 1, label);
      worstExcessBytes = Math.max(worstExcessBytes, (await packBytes(data)) - before - dataMiB * MIB);

      const restore = (await up.client.restore({ machine: machine.id, target: { path: target } })).id;
      const restored = await killDuring(restore, dataMiB * 12);
      assert.equal(restored.state.status, 'succeeded', `${label}: ${JSON.stringify(restored.state)}`);
      assert.equal(await hashOf(target), await hashOf(disk), label);
      await rm(target);
      for (const job of [saved, restored]) ends.set(job.id, JSON.stringify(job.state));
      process.stdout.write(`\r${label}: ${struck} struck, worst excess ${(worstExcessBytes / MIB).toFixed(1)} MiB   `);
    }
    for (const [job, end] of ends) assert.equal(JSON.stringify((await up.client.getJob(job)).state), end);
    await expectNothingLeft(up);
  } finally {
    await up.stop();
  }
  return { kills: rounds * 2, struck, worstExcessBytes, seconds: (performance.now() - startMs) / 1000 };
}

function kill(pid: number): boolean {
  try {
    return process.kill(pid, 'SIGKILL');
  } catch {
    return false;
  }
}

async function expectNothingLeft(up: RunningUp): Promise<void> {
  const pid = await up.proxyPid();
  assert.equal(await up.stop(), 0);
  assert.ok(!isAlive(pid), 'the proxy ends with its control plane');
}

async function packBytes(data: string): Promise<number> {
  const root = join(data, 'objects', 'v1');
  let bytes = 0;
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    if (entry.isFile() && entry.parentPath.includes('/packs/'))
      bytes += (await stat(join(entry.parentPath, entry.name))).size;
  }
  return bytes;
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  const file = createReadStream(path);
  file.on('data', (part) => hash.update(part));
  await once(file, 'close');
  return hash.digest('hex');
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '25' },
      seed: { type: 'string', default: '1' },
      data: { type: 'string', default: '64' },
      victim: { type: 'string', default: 'proxy,control-plane' },
    },
  });
  for (const victim of values.victim.split(',') as Victim[]) {
    const figures = await killCampaign(victim, Number(values.rounds), Number(values.seed), Number(values.data));
    process.stdout.write(`\n${JSON.stringify({ victim, ...figures })}\n`);
  }
}
