import { once } from 'node:events';
import { resolve } from 'node:path';
import type { CommandIo } from '#contract/command.ts';
import { HoldfastError } from '#contract/errors.ts';
import { isId } from '#contract/ids.ts';
import { formatBytes } from '#contract/quantity.ts';
import { listPoints } from '../../engine/list-points.ts';
import { openReading } from '../../engine/vault-reading.ts';
import type { ExportBackend } from '../../nbd/backend.ts';
import { serveNbd } from '../../nbd/server.ts';
import { PointDisk } from '../../recovery/point-disk.ts';
import { parseArguments } from '../arguments.ts';
import { engineContext, openVault, VAULT_OPTIONS, VAULT_OPTIONS_HELP } from './open-vault.ts';

export const summary = 'Serve the disks of a point as read-only NBD exports';
export const usage = `Usage: holdfast vault serve --repo DIR --key-file F --point ID --socket S [--json]

Exports are named disk0, disk1, …; the empty name is disk0 too. Read them with any NBD client, such as
  qemu-img convert nbd+unix:///disk0?socket=S disk.qcow2
Ends with Ctrl-C.

  --point ID              the point, as \`vault points\` lists it
  --socket S              path of the unix socket
${VAULT_OPTIONS_HELP}`;

export async function run(argv: string[], io: CommandIo): Promise<number> {
  const options = { ...VAULT_OPTIONS, point: { type: 'string' }, socket: { type: 'string' } } as const;
  const { values } = parseArguments(
    { command: 'vault serve', options, required: ['repo', 'key-file', 'point', 'socket'] },
    argv,
  );
  const id = values.point!;
  if (!isId('point', id))
    throw new HoldfastError('usage', `"${id}" is not a point`, { remedy: 'Give an id that `vault points` lists' });
  const vault = await openVault(values, 'read');
  for await (const listed of listPoints(vault)) {
    if (listed.id !== id) continue;
    if ('damage' in listed) throw listed.damage;
    const { context } = engineContext(values, io, 'serve');
    const reading = await openReading(vault, await vault.state.generation(), context);
    using _known = reading.known;
    const exports = new Map<string, ExportBackend>();
    listed.point.facts.disks.forEach(({ root, sizeBytes }, i) => {
      const disk = new PointDisk({ root: root === null ? null : Buffer.from(root, 'hex'), sizeBytes }, reading.reader);
      exports.set(`disk${i}`, exportOf(disk, listed.point.secrets.diskNames[i] ?? ''));
    });
    exports.set('', exports.get('disk0')!);
    const socket = resolve(values.socket!);
    const onError = (error: unknown) =>
      io.stderr.write(`holdfast: ${error instanceof Error ? error.message : String(error)}\n`);
    await using _server = await serveNbd({ listen: { socket }, exports, onError });
    const uris = listed.point.facts.disks.map(({ sizeBytes }, i) => ({
      uri: `nbd+unix:///disk${i}?socket=${socket}`,
      sizeBytes,
    }));
    io.stdout.write(
      values.json
        ? `${JSON.stringify({ type: 'serving', point: id, exports: uris })}\n`
        : uris.map(({ uri, sizeBytes }) => `${uri} (${formatBytes(sizeBytes)}, read-only)\n`).join(''),
    );
    if (!io.signal.aborted) await once(io.signal, 'abort');
    if (values.json) io.stdout.write(`${JSON.stringify({ type: 'result', point: id, served: true })}\n`);
    return 0;
  }
  throw new HoldfastError('not-found', `The vault has no point ${id}`, {
    remedy: 'List the points with: vault points',
  });
}

function exportOf(disk: PointDisk, description: string): ExportBackend {
  return {
    sizeBytes: disk.sizeBytes,
    readOnly: true,
    description,
    read: (offset, into) => disk.read(offset, into),
    blockStatus: async (offset, length) =>
      (await disk.ranges(offset, length)).map(({ length, zero }) => ({ length, zero, hole: zero })),
  };
}
