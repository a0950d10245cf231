import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import type { CommandIo } from '#contract/command.ts';
import { HoldfastError } from '#contract/errors.ts';
import { MACHINE_MAX_DISKS } from '#contract/limits.ts';
import { formatBytes, formatRate, formatSeconds } from '#contract/quantity.ts';
import { machineIdOf } from '#repository/machine-id.ts';
import { runBackup } from '../../engine/backup/backup.ts';
import type { BackupDisk, BackupResult } from '../../engine/request.ts';
import type { Extent } from '../../sources/disk.ts';
import { type OpenedImage, openImage } from '../../sources/image/image.ts';
import { parseArguments } from '../arguments.ts';
import { engineContext, openVault, VAULT_OPTIONS, VAULT_OPTIONS_HELP } from './open-vault.ts';
import { printResult } from './output.ts';

export const summary = 'Back up disks of a machine as one point';
export const usage = `Usage: holdfast vault backup --repo DIR --key-file F --machine NAME --disk PATH|URI [--disk …]
                            [--changed FILE.json] [--limit RATE] [--json]

A disk is a raw file, a block device, a qcow2, vmdk, vhdx or vdi image, or an NBD export
(nbd+unix:///NAME?socket=S, nbd://HOST:PORT/NAME). Give the disks of a machine in the same order each time.

  --machine NAME          the machine's name; its points are kept under it
  --disk PATH|URI         a disk; several make one point
  --changed FILE.json     what may have changed since the machine's latest point, a list a disk:
                          {"disks":[[{"offset":n,"length":n},…],…]}; nothing else is read
  --limit RATE            bytes a second to the vault, such as 20M
${VAULT_OPTIONS_HELP}`;

const OPTIONS = {
  ...VAULT_OPTIONS,
  machine: { type: 'string' },
  disk: { type: 'string', multiple: true },
  changed: { type: 'string' },
  limit: { type: 'string' },
} as const;

export async function run(argv: string[], io: CommandIo): Promise<number> {
  const { values } = parseArguments(
    { command: 'vault backup', options: OPTIONS, required: ['repo', 'key-file', 'machine', 'disk'] },
    argv,
  );
  const paths = values.disk!;
  if (paths.length > MACHINE_MAX_DISKS)
    throw new HoldfastError('usage', `${paths.length} disks; a machine has at most ${MACHINE_MAX_DISKS}`);
  const changed = values.changed === undefined ? undefined : await readChanges(values.changed, paths.length);
  const vault = await openVault(values, 'write');
  const name = values.machine!;
  const { context, done } = engineContext(values, io, name);
  const images: OpenedImage[] = [];
  try {
    for (const path of paths) images.push(await openImage(path, { signal: io.signal }));
    changed?.forEach((extents, i) => void checkInside(extents, i, images[i]!.sizeBytes));
    const disks = images.map(
      (image, i): BackupDisk => ({
        name: paths[i]!,
        locator: image.locator,
        sizeBytes: image.sizeBytes,
        ...(image.allocated && { allocated: image.allocated }),
        ...(changed && { changed: changed[i]! }),
      }),
    );
    const result = await runBackup({ vault, machine: { id: machineIdOf(vault.keys, name), name }, disks }, context);
    done();
    printResult(io, values.json, { machine: name, ...result }, describe(name, result));
    return 0;
  } finally {
    done();
    await Promise.allSettled(images.map((image) => image.close()));
  }
}

const changeList = z.object({
  disks: z.array(z.array(z.object({ offset: z.number().int().nonnegative(), length: z.number().int().nonnegative() }))),
});

async function readChanges(path: string, disks: number): Promise<readonly (readonly Extent[])[]> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new HoldfastError(
      'unreadable',
      `The change list ${path} cannot be read (${(cause as NodeJS.ErrnoException).code})`,
      { cause, remedy: 'Check the path, or leave out --changed to read everything' },
    );
  }
  try {
    const list = changeList.parse(JSON.parse(text)).disks;
    if (list.length === disks) return list;
    throw new HoldfastError(
      'usage',
      `The change list ${path} speaks of ${list.length} disk(s), the command of ${disks}`,
      { remedy: 'Give one list for each --disk, in the same order' },
    );
  } catch (cause) {
    if (cause instanceof HoldfastError) throw cause;
    throw new HoldfastError('usage', `The change list ${path} is not {"disks":[[{"offset":n,"length":n},…],…]}`, {
      cause,
      remedy: 'Offsets and lengths are bytes, 0 or more',
    });
  }
}

/** A list that speaks of bytes which the disk does not have was made for another disk. */
function checkInside(extents: readonly Extent[], disk: number, sizeBytes: number): void {
  const outside = extents.find(({ offset, length }) => offset + length > sizeBytes);
  if (outside === undefined) return;
  throw new HoldfastError(
    'usage',
    `The change list reaches beyond the end of disk ${disk}: ${outside.offset}+${outside.length} of ${sizeBytes} bytes`,
    { remedy: 'Give the list that belongs to these disks, in their order, or leave out --changed to read everything' },
  );
}

function describe(name: string, { point, kind, disks, stats }: BackupResult): string[] {
  return [
    `${name}: ${kind} point ${point}`,
    ...disks.map((disk) => `  ${disk.name}: ${formatBytes(disk.sizeBytes)}; ${disk.why}`),
    `  read ${formatBytes(stats.readBytes)}, new ${formatBytes(stats.newBytes)}, sent ${formatBytes(stats.sentBytes)} in ${formatSeconds(stats.seconds)} (${formatRate(stats.readBytes / Math.max(stats.seconds, 0.001))})`,
  ];
}
