import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { idSchema } from '#contract/ids.ts';
import type { OpenVault } from '#edge/engine/request.ts';
import { openFileBlobs } from '#local/file-blobs.ts';
import { systemClock } from '#local/system-clock.ts';
import { systemRandom } from '#local/system-random.ts';
import { BlobVaultState } from '#repository/blob-state.ts';
import { readKeyFile } from '#repository/key-file.ts';
import { vaultPrefix, withPrefix } from '#repository/prefix.ts';

/** Files of a frozen vault's folder. */
export const FROZEN = {
  /** The folder of objects, as `--repo` takes it. */
  store: 'store',
  keyFile: 'key-file.json',
  /** The same keys, protected by the passphrase below. */
  lockedKeyFile: 'key-file-locked.json',
  passphrase: 'correct horse battery staple',
  /** What each point's disks must be when restored: {@link frozenPoints}. */
  points: 'points.json',
} as const;

/** The points of a frozen vault, oldest first, with the SHA-256 of each disk. */
export const frozenPoints = z.array(
  z.object({
    machine: idSchema('machine'),
    machineName: z.string(),
    point: idSchema('point'),
    disks: z.array(z.object({ sizeBytes: z.number().int(), sha256: z.string() })),
  }),
);
export type FrozenPoints = z.infer<typeof frozenPoints>;

/** Where the frozen vault of a format version lies. */
export function frozenFolder(version: number): string {
  return fileURLToPath(new URL(`./vaults/v${version}/`, import.meta.url));
}

/** Opens a frozen vault for reading, and what its points must be. */
export async function openFrozen(
  folder: string,
): Promise<{ readonly vault: OpenVault; readonly points: FrozenPoints }> {
  const keys = await readKeyFile(await readFile(join(folder, FROZEN.keyFile), 'utf8'), undefined);
  const settings = { clock: systemClock, random: systemRandom, readOnly: true };
  const blobs = withPrefix(await openFileBlobs(join(folder, FROZEN.store), settings), vaultPrefix(keys.vault));
  const state = new BlobVaultState({ blobs, clock: systemClock, random: systemRandom, mayBeAlive: () => false });
  const points = frozenPoints.parse(JSON.parse(await readFile(join(folder, FROZEN.points), 'utf8')));
  return { vault: { id: keys.vault, blobs, state, keys }, points };
}
