import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeId } from '#contract/ids.ts';
import type { EngineContext, OpenVault } from '#edge/engine/request.ts';
import { openFileBlobs } from '#local/file-blobs.ts';
import { systemClock } from '#local/system-clock.ts';
import { systemRandom } from '#local/system-random.ts';
import type { Blobs } from '#ports/blobs.ts';
import { BlobVaultState } from '#repository/blob-state.ts';
import { createVaultKeys } from '#repository/keys.ts';

export interface TestVault extends AsyncDisposable {
  readonly folder: string;
  readonly vault: OpenVault;
  readonly context: EngineContext;
}

/** A new vault on real files in a folder of its own, which goes away with it. */
export async function makeTestVault(
  options: { readonly wrap?: (blobs: Blobs) => Blobs; readonly workers?: number } = {},
): Promise<TestVault> {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-test-'));
  const files = await openFileBlobs(join(folder, 'store'), { clock: systemClock, random: systemRandom });
  const blobs = options.wrap?.(files) ?? files;
  const id = makeId('vault', systemClock.nowMs(), systemRandom.bytes(10));
  const state = new BlobVaultState({ blobs, clock: systemClock, random: systemRandom, mayBeAlive: () => false });
  return {
    folder,
    vault: { id, blobs, state, keys: createVaultKeys(id, systemRandom) },
    context: {
      clock: systemClock,
      random: systemRandom,
      holder: 'test',
      cacheDir: join(folder, 'cache'),
      workers: options.workers ?? 1,
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}
