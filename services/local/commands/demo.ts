import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import type { CommandIo } from '#contract/command.ts';
import { HoldfastError } from '#contract/errors.ts';
import { formatBytes, formatRate, formatSeconds, parseBytes } from '#contract/quantity.ts';
import { parseArguments } from '#edge/commands/arguments.ts';
import { type ProgressLine, progressLine } from '#edge/commands/progress-line.ts';
import { table } from '#edge/commands/vault/output.ts';
import { connectClient } from '../client.ts';
import { changeDisk } from '../demo/change.ts';
import { buildDisk, buildSibling } from '../demo/disk.ts';
import { type DemoMachine, type DemoStep, runDemo } from '../demo/run-demo.ts';
import { startControlPlane } from '../main.ts';
import { superviseProxy } from '../proxy-process.ts';
import { systemClock } from '../system-clock.ts';

export const summary = 'See real disks backed up, changed, restored and proven identical, in a temporary folder';
export const usage = `Usage: holdfast demo [--disk FILE…] [--size 2G] [--keep] [--json]

Builds a disk of this machine's own software and a sibling of it, starts the control plane and an edge proxy,
backs up: the disk, the same disk a day later, the sibling; then restores every point, as a raw file and (where
qemu-utils is installed) as qcow2, and compares hashes. Ends with 1 if anything differs.

  --disk FILE             use this disk instead (several: a machine with several disks); it is only read
  --size SIZE             size of the disk that is built (default 2G)
  --keep                  leave the temporary folder, and say where it is
  --json                  one JSON object a line; the last one is the result`;

const OPTIONS = {
  disk: { type: 'string', multiple: true },
  size: { type: 'string', default: '2G' },
  keep: { type: 'boolean' },
  json: { type: 'boolean' },
} as const;

const SEED = 'demo';

export async function run(argv: string[], io: CommandIo): Promise<number> {
  const { values } = parseArguments({ command: 'demo', options: OPTIONS }, argv);
  const sizeBytes = parseBytes(values.size);
  for (const path of values.disk ?? []) {
    if ((await stat(path).catch(() => undefined)) === undefined)
      throw new HoldfastError('not-found', `There is no disk ${path}`, { remedy: 'Check the path' });
  }
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-demo-'));
  const say = (text: string) => values.json || io.stdout.write(`${text}\n`);
  const line = progressLine(io, systemClock);
  try {
    const machines = values.disk ? givenMachine(values.disk) : await buildMachines(folder, sizeBytes, io, say);
    const { steps, seconds } = await inHouse(folder, machines, io, say, line, values.json ?? false);
    const identical = steps.every((step) => step.identical !== false);
    if (values.json) io.stdout.write(`${JSON.stringify({ type: 'result', identical, seconds, steps })}\n`);
    else for (const text of describe(steps, seconds, identical)) say(text);
    return identical ? 0 : 1;
  } finally {
    line.clear();
    if (values.keep) say(`Everything is still in ${folder}`);
    else await rm(folder, { recursive: true, force: true });
  }
}

/** A control plane and a proxy in the folder, and the demo in them. */
async function inHouse(
  folder: string,
  machines: readonly DemoMachine[],
  io: CommandIo,
  say: (text: string) => void,
  line: ProgressLine,
  json: boolean,
) {
  const data = join(folder, 'holdfast');
  const log = (entry: { event: string; level: string; data?: object }) => {
    if (entry.level !== 'info') io.stderr.write(`${JSON.stringify(entry)}\n`);
  };
  await using plane = await startControlPlane({ folder: data, port: 0, log });
  await using proxy = await superviseProxy({
    plane,
    folder: join(data, 'proxy'),
    logFile: join(data, 'proxy.log'),
    log: (text) => io.stderr.write(`${text}\n`),
  });
  const id = await proxy.online(io.signal);
  if (id === undefined) throw new HoldfastError('cancelled', 'Interrupted');
  say(`The control plane is at ${plane.url}; proxy ${id} has enrolled.`);
  const startMs = systemClock.monotonicMs();
  const steps = await runDemo({
    client: connectClient(plane.url, await readFile(plane.apiKeyFile, 'utf8')),
    proxy: id,
    machines,
    objectsFolder: join(data, 'objects'),
    restoreFolder: join(folder, 'restored'),
    qcow2: spawnSync('qemu-nbd', ['--version']).status === 0 && spawnSync('qemu-img', ['--version']).status === 0,
    signal: io.signal,
    onProgress: (label, job) => {
      if (!job.progress) return;
      if (json) io.stdout.write(`${JSON.stringify({ type: 'progress', label, ...job.progress })}\n`);
      else line.show(job.progress);
    },
    onStep: (step) => {
      line.clear();
      if (json) io.stdout.write(`${JSON.stringify({ type: 'step', ...step })}\n`);
      else
        say(
          `${step.what}: ${formatSeconds(step.seconds)}${step.identical === undefined ? '' : step.identical ? ', identical' : ', DIFFERENT'}`,
        );
    },
  });
  return { steps, seconds: (systemClock.monotonicMs() - startMs) / 1000 };
}

async function buildMachines(
  folder: string,
  sizeBytes: number,
  io: CommandIo,
  say: (text: string) => void,
): Promise<readonly DemoMachine[]> {
  const path = join(folder, 'server.img');
  const plan = { path, sizeBytes, seed: SEED, signal: io.signal };
  say(`Building a disk of ${formatBytes(sizeBytes)} from this machine's own files …`);
  await buildDisk(plan);
  say('Building a sibling: a second machine with mostly the same files, laid out differently …');
  const sibling = join(folder, 'sibling.img');
  await buildSibling({ ...plan, path: sibling });
  return [
    {
      name: 'server',
      paths: [path],
      days: [
        { title: 'first backup' },
        {
          title: 'a day later',
          change: async () =>
            void (await changeDisk({
              path,
              seed: 'tuesday',
              bytes: Math.min(32 * 1024 * 1024, sizeBytes / 64),
              signal: io.signal,
            })),
        },
      ],
    },
    { name: 'sibling', paths: [sibling], days: [{ title: 'first backup' }] },
  ];
}

function givenMachine(disks: readonly string[]): readonly DemoMachine[] {
  const paths = disks.map((disk) => resolve(disk));
  return [{ name: basename(paths[0]!), paths, days: [{ title: 'first backup' }, { title: 'again, unchanged' }] }];
}

function describe(steps: readonly DemoStep[], seconds: number, identical: boolean): string[] {
  const blank = (bytes: number) => (bytes === 0 ? '' : formatBytes(bytes));
  const rows = steps.map((step) => {
    const isBackup = step.identical === undefined;
    return [
      step.what,
      formatBytes(step.diskBytes),
      blank(step.readBytes),
      blank(step.newBytes),
      blank(step.sentBytes),
      blank(step.storedBytes),
      isBackup ? ratio(step.readBytes, step.newBytes) : '',
      isBackup ? ratio(step.newBytes, step.sentBytes) : '',
      formatRate((isBackup ? step.readBytes : step.diskBytes) / Math.max(step.seconds, 0.001)),
      formatSeconds(step.seconds),
      isBackup ? '' : step.identical ? 'yes' : 'NO',
    ];
  });
  const backups = steps.filter((step) => step.identical === undefined);
  const sum = (pick: (step: DemoStep) => number) => backups.reduce((total, step) => total + pick(step), 0);
  return [
    '',
    ...table(['what', 'disk', 'read', 'new', 'sent', 'stored', 'dedupe', 'zstd', 'speed', 'time', 'identical'], rows),
    '',
    `${formatBytes(sum((step) => step.readBytes))} of disk data in ${backups.length} points take ${formatBytes(sum((step) => step.storedBytes))}; everything took ${formatSeconds(seconds)}.`,
    `Restored disks identical to what was backed up: ${identical ? 'yes' : 'NO'}`,
  ];
}

function ratio(from: number, to: number): string {
  if (from === 0) return '';
  return to === 0 ? 'all known' : `${(from / to).toFixed(1)} : 1`;
}
