import type { CommandIo } from '#contract/command.ts';
import { formatBytes } from '#contract/quantity.ts';
import { listPoints } from '../../engine/list-points.ts';
import { openReading } from '../../engine/vault-reading.ts';
import { parseArguments } from '../arguments.ts';
import { engineContext, openVault, VAULT_OPTIONS, VAULT_OPTIONS_HELP } from './open-vault.ts';
import { printResult, table } from './output.ts';

export const summary = 'Tell how much is protected and how much it takes';
export const usage = `Usage: holdfast vault stats --repo DIR --key-file F [--json]

${VAULT_OPTIONS_HELP}`;

export async function run(argv: string[], io: CommandIo): Promise<number> {
  const { values } = parseArguments(
    { command: 'vault stats', options: VAULT_OPTIONS, required: ['repo', 'key-file'] },
    argv,
  );
  const vault = await openVault(values, 'read');
  const stored: Record<string, { objects: number; bytes: number }> = {};
  let cursor: string | undefined;
  do {
    const page = await vault.blobs.list('', cursor);
    for (const { key, sizeBytes } of page.blobs) {
      const kind = (stored[key.split('/')[0]!] ??= { objects: 0, bytes: 0 });
      kind.objects++;
      kind.bytes += sizeBytes;
    }
    cursor = page.next;
  } while (cursor !== undefined);
  let points = 0;
  let diskBytes = 0;
  const machines = new Set<string>();
  for await (const listed of listPoints(vault)) {
    points++;
    machines.add(listed.machine);
    if ('point' in listed) diskBytes += listed.point.facts.disks.reduce((sum, disk) => sum + disk.sizeBytes, 0);
  }
  const { context } = engineContext(values, io, 'stats');
  const generation = await vault.state.generation();
  const { known, copies } = await openReading(vault, generation, context);
  known[Symbol.dispose]();
  const chunks = copies.reduce((sum, copy) => sum + copy.head.count, 0);
  const storedBytes = Object.values(stored).reduce((sum, kind) => sum + kind.bytes, 0);
  printResult(
    io,
    values.json,
    {
      vault: vault.id,
      machines: machines.size,
      points,
      diskBytes,
      storedBytes,
      chunks,
      generation: generation.number,
      indexSegments: copies.length,
      stored,
    },
    [
      `Vault ${vault.id}: ${machines.size} machine(s), ${points} point(s), ${chunks} chunks`,
      `${formatBytes(diskBytes)} of disks in all points, ${formatBytes(storedBytes)} stored (${(diskBytes / Math.max(1, storedBytes)).toFixed(1)} : 1)`,
      ...table(
        ['objects', 'count', 'size'],
        Object.entries(stored).map(([name, kind]) => [name, String(kind.objects), formatBytes(kind.bytes)]),
      ),
    ],
  );
  return 0;
}
