/**
 * Makes the frozen vault of the present format version: `node test/compat/make-vault.ts FOLDER`. Run it once
 * for a format version; the vault is then kept as it is, and every later version must restore it.
 */

import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { makeId } from '#contract/ids.ts';
import { runBackup } from '#edge/engine/backup/backup.ts';
import type { EngineContext, OpenVault } from '#edge/engine/request.ts';
import type { Extent } from '#edge/sources/disk.ts';
import { chance, fillWords } from '#local/demo/chance.ts';
import { openFileBlobs } from '#local/file-blobs.ts';
import { systemClock } from '#local/system-clock.ts';
import { BlobVaultState } from '#repository/blob-state.ts';
import { writeKeyFile } from '#repository/key-file.ts';
import { createVaultKeys, rotateVaultKeys } from '#repository/keys.ts';
import { machineIdOf } from '#repository/machine-id.ts';
import { VAULT_KEY } from '#repository/names.ts';
import { vaultPrefix, withPrefix } from '#repository/prefix.ts';
import { describeVault, encodeVaultObject } from '#repository/vault-object.ts';
import { FROZEN, type FrozenPoints } from './frozen-vault.ts';
import { seededRandom } from './seeded-random.ts';

const PAGE = 4096;
const START_MS = Date.UTC(2026, 0, 1, 12);
const random = seededRandom('frozen vault 1');
const dice = chance('frozen vault 1');

const folder = resolve(process.argv[2] ?? 'frozen-vault');
const scratch = await mkdtemp(join(tmpdir(), 'holdfast-frozen-'));
const keys = createVaultKeys(makeId('vault', START_MS, random.bytes(10)), random);
const later = rotateVaultKeys(keys, random);
await mkdir(folder, { recursive: true });

let nowMs = START_MS;
const clock = { ...systemClock, nowMs: () => nowMs };
const blobs = withPrefix(await openFileBlobs(join(folder, FROZEN.store), { clock, random }), vaultPrefix(keys.vault));
const state = new BlobVaultState({ blobs, clock, random, mayBeAlive: () => true });
const context: EngineContext = { clock, random, holder: 'maker', cacheDir: join(scratch, 'cache'), workers: 1 };
const points: FrozenPoints = [];

/** A disk of words, noise and zeros. */
function disk(
  sizeBytes: number,
  parts: readonly (readonly [firstPage: number, pages: number, noise?: boolean])[],
): Buffer {
  const content = Buffer.alloc(sizeBytes);
  for (const [firstPage, pages, noise] of parts) write(content, firstPage, pages, noise);
  return content;
}

function write(content: Buffer, firstPage: number, pages: number, noise = false): Extent {
  const offset = firstPage * PAGE;
  const into = content.subarray(offset, Math.min(offset + pages * PAGE, content.length));
  if (noise) dice.fill(into);
  else fillWords(into, dice);
  return { offset, length: into.length };
}

async function backup(
  name: string,
  disks: readonly Buffer[],
  changed?: readonly (readonly Extent[])[],
  withKeys = keys,
): Promise<void> {
  nowMs += 24 * 3600_000;
  const paths = await Promise.all(
    disks.map(async (content, i) => {
      const path = join(scratch, `${name}-${i}`);
      await writeFile(path, content);
      return path;
    }),
  );
  const vault: OpenVault = { id: keys.vault, blobs, state, keys: withKeys };
  const machine = { id: machineIdOf(keys, name), name, config: { cpus: 2 } };
  const { point } = await runBackup(
    {
      vault,
      machine,
      disks: disks.map((content, i) => ({
        name: `disk ${i}`,
        locator: { kind: 'file', path: paths[i]! },
        sizeBytes: content.length,
        ...(changed && { changed: changed[i]! }),
      })),
      changeMarkers: { 'disk 0': `marker ${points.length}` },
    },
    context,
  );
  const hash = (content: Buffer) => createHash('sha256').update(content).digest('hex');
  points.push({
    machine: machine.id,
    machineName: name,
    point,
    disks: disks.map((content) => ({ sizeBytes: content.length, sha256: hash(content) })),
  });
}

try {
  await blobs.putIfAbsent(VAULT_KEY, [encodeVaultObject(describeVault(keys, START_MS))]);

  // Three segments, the last one short, with a last page of 1,234 bytes; a disk of one segment; a disk of zeros.
  const odd = 2 * 4096 * PAGE + 37 * PAGE + 1234;
  const system = disk(odd, [
    [0, 60],
    [70, 8, true],
    [93, 30],
    [4090, 40],
    [8192, 38],
  ]); // zero runs of 10, 15 and many
  const data = disk(600 * PAGE, [
    [3, 40],
    [200, 8, true],
  ]);
  const empty = Buffer.alloc(1_000_000);
  await backup('alpha', [system, data, empty]);

  // Told what changed: a delta map. One page becomes zero, the short last page changes, a hole gets data.
  system.fill(0, 10 * PAGE, 11 * PAGE);
  await backup(
    'alpha',
    [system, data, empty],
    [
      [{ offset: 10 * PAGE, length: PAGE }, write(system, 20, 3), write(system, 4000, 2), write(system, 8192 + 37, 1)],
      [write(data, 500, 1)],
      [],
    ],
  );
  // A delta on a delta.
  await backup('alpha', [system, data, empty], [[write(system, 21, 1), write(system, 50, 5)], [], []]);
  // Everything is read and compared with page fingerprints; a whole run becomes zero.
  write(system, 95, 2);
  system.fill(0, 4090 * PAGE, 4120 * PAGE);
  await backup('alpha', [system, data, empty]);

  // A sibling: the same content elsewhere on its disk, then a point written after the keys were rotated.
  const sibling = Buffer.alloc(1200 * PAGE + 512);
  system.copy(sibling, 333 * PAGE, 0, 123 * PAGE);
  await backup('beta', [sibling]);
  await backup('beta', [sibling], [[write(sibling, 1199, 2)]], later);
} finally {
  await rm(scratch, { recursive: true, force: true });
}

await rm(join(folder, FROZEN.store, '.holdfast'), { recursive: true, force: true });
await writeFile(join(folder, FROZEN.keyFile), await writeKeyFile(later, undefined, random));
await writeFile(join(folder, FROZEN.lockedKeyFile), await writeKeyFile(later, FROZEN.passphrase, random));
await writeFile(join(folder, FROZEN.points), `${JSON.stringify(points, null, 2)}\n`);
