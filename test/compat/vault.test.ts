import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { after, before, describe, it } from 'node:test';
import { listPoints } from '#edge/engine/list-points.ts';
import type { EngineContext } from '#edge/engine/request.ts';
import { runRestore } from '#edge/engine/restore/restore.ts';
import { systemClock } from '#local/system-clock.ts';
import { systemRandom } from '#local/system-random.ts';
import { readKeyFile } from '#repository/key-file.ts';
import { FROZEN, frozenFolder, openFrozen } from './frozen-vault.ts';

describe('the frozen vault of format version 1', () => {
  let scratch: string;
  let context: EngineContext;
  before(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'holdfast-frozen-'));
    context = {
      clock: systemClock,
      random: systemRandom,
      holder: 'test',
      cacheDir: join(scratch, 'cache'),
      workers: 1,
    };
  });
  after(() => rm(scratch, { recursive: true, force: true }));

  it('gives back every disk of every point, bit by bit', async () => {
    const { vault, points } = await openFrozen(frozenFolder(1));
    assert.equal(points.length, 6);
    for (const { machine, point, disks } of points) {
      for (const [diskIndex, { sizeBytes, sha256 }] of disks.entries()) {
        const path = join(scratch, `${point}-${diskIndex}`);
        await runRestore({ vault, machine, point, diskIndex, target: { kind: 'file', path } }, context);
        const hash = createHash('sha256');
        let length = 0;
        await pipeline(
          createReadStream(path).on('data', (part) => void (length += part.length)),
          hash,
        );
        assert.deepEqual(
          { length, sha256: hash.digest('hex') },
          { length: sizeBytes, sha256 },
          `${point}/${diskIndex}`,
        );
        await rm(path);
      }
    }
  });

  it('lists its points under their machines’ names, in order', async () => {
    const { vault, points } = await openFrozen(frozenFolder(1));
    const listed: string[] = [];
    for await (const found of listPoints(vault)) {
      assert.ok('point' in found);
      listed.push(`${found.point.secrets.machineName} ${found.id}`);
    }
    assert.deepEqual(listed.sort(), points.map(({ machineName, point }) => `${machineName} ${point}`).sort());
  });

  it('opens with the key file that a passphrase protects, too', async () => {
    const { vault } = await openFrozen(frozenFolder(1));
    const text = await readFile(join(frozenFolder(1), FROZEN.lockedKeyFile), 'utf8');
    assert.deepEqual(await readKeyFile(text, FROZEN.passphrase), vault.keys);
  });

  it('is left as it was: reading writes nothing into a vault', async () => {
    const copy = join(scratch, 'copy');
    await cp(frozenFolder(1), copy, { recursive: true });
    const { vault, points } = await openFrozen(copy);
    const before = await vault.blobs.get('state/vault.json');
    await runRestore(
      {
        vault,
        machine: points[4]!.machine,
        point: 'latest',
        diskIndex: 0,
        target: { kind: 'file', path: join(scratch, 'x') },
      },
      context,
    );
    assert.deepEqual(await vault.blobs.get('state/vault.json'), before);
  });
});
