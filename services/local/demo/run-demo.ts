import { createHash } from 'node:crypto';
import { mkdir, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errorFrom, HoldfastError } from '#contract/errors.ts';
import type { Id } from '#contract/ids.ts';
import type { Job, Outcome } from '#contract/jobs.ts';
import { openImage } from '#edge/sources/image/image.ts';
import { openDiskReader } from '#edge/sources/open-disk.ts';
import type { ApiClient } from '../client.ts';
import { systemClock } from '../system-clock.ts';

const HASH_STEP_BYTES = 4 * 1024 * 1024;

/** One line of the demo's table. */
export interface DemoStep {
  readonly what: string;
  readonly diskBytes: number;
  readonly readBytes: number;
  readonly newBytes: number;
  /** Over the wire: up for backups, down for restores. */
  readonly sentBytes: number;
  /** By how much the vault grew, all its objects counted. */
  readonly storedBytes: number;
  readonly seconds: number;
  /** Restores: whether the hash equals that of the disk when it was backed up. */
  readonly identical?: boolean;
}

/** A disk of a machine in the demo, and what is to be done to it between backups. */
export interface DemoMachine {
  readonly name: string;
  readonly paths: readonly string[];
  /** What happens before each backup; the first entry before the first. */
  readonly days: readonly { readonly title: string; readonly change?: () => Promise<void> }[];
}

export interface DemoParts {
  readonly client: ApiClient;
  readonly proxy: Id<'proxy'>;
  readonly machines: readonly DemoMachine[];
  /** The vault's objects, and where restores go. */
  readonly objectsFolder: string;
  readonly restoreFolder: string;
  /** Whether each restore is made as a qcow2 image too. */
  readonly qcow2: boolean;
  readonly signal: AbortSignal;
  readonly onProgress: (label: string, job: Job) => void;
  readonly onStep: (step: DemoStep) => void;
}

/** Protects every machine day by day through the control plane, then restores every point and compares hashes. */
export async function runDemo(parts: DemoParts): Promise<readonly DemoStep[]> {
  const { client, machines } = parts;
  const steps: DemoStep[] = [];
  const add = (step: DemoStep) => {
    steps.push(step);
    parts.onStep(step);
  };
  const source = await client.createSource({ kind: 'image', name: 'disks of this machine', proxy: parts.proxy });
  const taken: {
    readonly machine: DemoMachine;
    readonly id: Id<'machine'>;
    readonly point: Id<'point'>;
    readonly title: string;
    readonly hashes: readonly string[];
  }[] = [];
  for (const machine of machines) {
    const { id } = await client.createMachine({
      name: machine.name,
      source: source.id,
      disks: machine.paths.map((path, i) => ({ name: `disk ${i}`, path })),
    });
    for (const { title, change } of machine.days) {
      await change?.();
      const hashes: string[] = [];
      for (const path of machine.paths) hashes.push(await hashImage(path, parts.signal));
      const run = await client.runNow([id]);
      const { outcome, seconds, storedBytes } = await follow(parts, `${machine.name}: ${title}`, run.jobs[0]!.id);
      if (outcome.kind !== 'backup') throw new HoldfastError('internal', 'A backup job ended as something else');
      add({ what: `backup   ${machine.name}, ${title}`, ...backupFigures(outcome), storedBytes, seconds });
      taken.push({ machine, id, point: outcome.point, title, hashes });
    }
  }
  await mkdir(parts.restoreFolder, { recursive: true });
  for (const { machine, id, point, title, hashes } of taken) {
    for (const [diskIndex, expected] of hashes.entries()) {
      for (const format of parts.qcow2 ? (['raw', 'qcow2'] as const) : (['raw'] as const)) {
        const label = `${machine.name}, ${title}${hashes.length > 1 ? `, disk ${diskIndex}` : ''}, as ${format}`;
        const path = join(parts.restoreFolder, `${point}-${diskIndex}.${format}`);
        const job = await client.restore({ machine: id, point, diskIndex, target: { path, format } });
        const { outcome, seconds } = await follow(parts, label, job.id);
        if (outcome.kind !== 'restore') throw new HoldfastError('internal', 'A restore job ended as something else');
        const identical = (await hashImage(path, parts.signal)) === expected;
        add({
          what: `restore  ${label}`,
          diskBytes: outcome.sizeBytes,
          readBytes: 0,
          newBytes: 0,
          sentBytes: Number(outcome.stats.fetchedBytes),
          storedBytes: 0,
          seconds,
          identical,
        });
      }
    }
  }
  return steps;
}

async function follow(
  parts: DemoParts,
  label: string,
  id: Id<'job'>,
): Promise<{ readonly outcome: Outcome; readonly seconds: number; readonly storedBytes: number }> {
  const before = await folderBytes(parts.objectsFolder);
  const startMs = systemClock.monotonicMs();
  const job = await parts.client.waitForJob(id, {
    signal: parts.signal,
    onProgress: (now) => parts.onProgress(label, now),
  });
  const seconds = (systemClock.monotonicMs() - startMs) / 1000;
  if (job.state.status === 'failed') throw errorFrom(job.state.error as Parameters<typeof errorFrom>[0]);
  if (job.state.status !== 'succeeded')
    throw new HoldfastError('internal', `${label}: the job ended ${job.state.status}`);
  return { outcome: job.state.outcome, seconds, storedBytes: (await folderBytes(parts.objectsFolder)) - before };
}

function backupFigures({
  disks,
  stats,
}: Outcome & { readonly kind: 'backup' }): Pick<DemoStep, 'diskBytes' | 'readBytes' | 'newBytes' | 'sentBytes'> {
  return {
    diskBytes: disks.reduce((sum, disk) => sum + disk.sizeBytes, 0),
    readBytes: Number(stats.readBytes),
    newBytes: Number(stats.newBytes),
    sentBytes: Number(stats.sentBytes),
  };
}

/** SHA-256 of the bytes that a machine would see on the disk, whatever the image's format. */
async function hashImage(path: string, signal: AbortSignal): Promise<string> {
  await using image = await openImage(path, { signal });
  const reader = await openDiskReader(image.locator);
  try {
    const hash = createHash('sha256');
    const buffer = Buffer.alloc(HASH_STEP_BYTES);
    for (let at = 0; at < image.sizeBytes; at += buffer.length) {
      signal.throwIfAborted();
      const part = buffer.subarray(0, Math.min(buffer.length, image.sizeBytes - at));
      await reader.read(at, part);
      hash.update(part);
    }
    return hash.digest('hex');
  } finally {
    await reader.close();
  }
}

async function folderBytes(folder: string): Promise<number> {
  let bytes = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) bytes += (await stat(join(entry.parentPath, entry.name)).catch(() => ({ size: 0 }))).size;
  }
  return bytes;
}
