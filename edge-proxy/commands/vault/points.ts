import type { CommandIo } from '#contract/command.ts';
import { formatBytes } from '#contract/quantity.ts';
import { listPoints } from '../../engine/list-points.ts';
import { parseArguments } from '../arguments.ts';
import { findMachine } from './find-machine.ts';
import { openVault, VAULT_OPTIONS, VAULT_OPTIONS_HELP } from './open-vault.ts';
import { printResult, table } from './output.ts';

export const summary = 'List the points of a vault';
export const usage = `Usage: holdfast vault points --repo DIR --key-file F [--machine NAME] [--json]

  --machine NAME          only this machine's points
${VAULT_OPTIONS_HELP}`;

export async function run(argv: string[], io: CommandIo): Promise<number> {
  const { values } = parseArguments(
    {
      command: 'vault points',
      options: { ...VAULT_OPTIONS, machine: { type: 'string' } },
      required: ['repo', 'key-file'],
    },
    argv,
  );
  const vault = await openVault(values, 'read');
  const machine = values.machine === undefined ? undefined : await findMachine(vault, values.machine);
  const points = [];
  let damaged = 0;
  for await (const listed of listPoints(vault, machine)) {
    if ('damage' in listed) {
      damaged++;
      points.push({ point: listed.id, machine: listed.machine, damaged: listed.damage.message });
      continue;
    }
    const { facts, secrets } = listed.point;
    points.push({
      point: listed.id,
      machine: secrets.machineName,
      machineId: listed.machine,
      takenAt: new Date(facts.takenAtMs).toISOString(),
      parent: facts.parent,
      disks: facts.disks.map(({ sizeBytes }, i) => ({ name: secrets.diskNames[i] ?? '', sizeBytes })),
      stats: secrets.stats,
    });
  }
  const rows = points.map((point) =>
    'disks' in point && point.disks
      ? [
          point.machine,
          point.point,
          point.takenAt,
          String(point.disks.length),
          formatBytes(point.disks.reduce((sum, disk) => sum + disk.sizeBytes, 0)),
          formatBytes(point.stats.sentBytes ?? 0),
        ]
      : [point.machine, point.point, 'damaged', '', '', ''],
  );
  printResult(
    io,
    values.json,
    { points },
    points.length === 0
      ? ['The vault has no points yet.']
      : table(['machine', 'point', 'taken at', 'disks', 'size', 'sent'], rows),
  );
  return damaged === 0 ? 0 : 1;
}
