import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { systemClock } from '#local/system-clock.ts';
import { systemRandom } from '#local/system-random.ts';
import type { Blobs } from '#ports/blobs.ts';
import { BlobVaultState } from '#repository/blob-state.ts';
import { createVaultKeys } from '#repository/keys.ts';
import { machineIdOf } from '#repository/machine-id.ts';
import { seededRandom } from '#test/compat/seeded-random.ts';
import { MemoryBlobs, withFaults } from '#test/fixtures/memory-blobs.ts';
import { listPoints } from '../list-points.ts';
import type { EngineContext, OpenVault } from '../request.ts';
import { verifyVault } from '../restore/verify.ts';
import { runBackup } from './backup.ts';

const scratch = mkdtempSync(join(tmpdir(), 'holdfast-order-'));
after(() => rmSync(scratch, { recursive: true, force: true }));
const disk = join(scratch, 'disk');
const keys = createVaultKeys('vlt_01KDWPVNG0S3MF4F3TX3YRXCD8', seededRandom('order'));
const machine = { id: machineIdOf(keys, 'web'), name: 'web' };

let contexts = 0;
function open(blobs: Blobs): {
  readonly vault: OpenVault;
  readonly context: EngineContext;
  readonly time: { nowMs: number };
} {
  const time = { nowMs: 1_767_355_200_000 };
  const clock = { ...systemClock, nowMs: () => time.nowMs };
  const state = new BlobVaultState({ blobs, clock, random: systemRandom, mayBeAlive: () => false });
  const cacheDir = join(scratch, `cache-${contexts++}`);
  return {
    vault: { id: keys.vault, blobs, state, keys },
    context: { clock, random: systemRandom, holder: 'test', cacheDir, workers: 1 },
    time,
  };
}

async function backup(vault: OpenVault, context: EngineContext, content: number): Promise<string> {
  writeFileSync(disk, Buffer.alloc(40 * 4096, content));
  const disks = [{ name: 'd', locator: { kind: 'file', path: disk }, sizeBytes: 40 * 4096 } as const];
  return (await runBackup({ vault, machine, disks }, context)).point;
}

async function pointsOf(vault: OpenVault): Promise<{ readonly id: string; readonly parent: string | null }[]> {
  const points: { id: string; parent: string | null }[] = [];
  for await (const listed of listPoints(vault)) {
    assert.ok('point' in listed);
    points.push({ id: listed.id, parent: listed.point.facts.parent });
  }
  return points;
}

describe('the order of a machine’s points', () => {
  it('is that of its backups, even while its clock is set back', async () => {
    const { vault, context, time } = open(new MemoryBlobs());
    const made = [await backup(vault, context, 1)];
    for (const step of [-3600_000, -1000, 10, 10]) {
      time.nowMs += step;
      made.push(await backup(vault, context, made.length + 1));
    }
    const points = await pointsOf(vault);
    assert.deepEqual(
      points.map(({ id }) => id),
      made,
    );
    assert.deepEqual(
      points.map(({ parent }) => parent),
      [null, ...made.slice(0, -1)],
    );
  });

  it('counts a point that is committed, though the process died before its object was written', async () => {
    const blobs = new MemoryBlobs();
    const dying = open(
      withFaults(blobs, (act, key) => (act === 'putIfAbsent' && key.startsWith('points/') ? 'before' : undefined)),
    );
    const first = await backup(dying.vault, dying.context, 1);
    assert.equal(
      [...blobs.objects.keys()].some((key) => key.startsWith('points/')),
      false,
    );
    const next = open(blobs);
    next.time.nowMs += 1000;
    const second = await backup(next.vault, next.context, 2);
    assert.deepEqual(await pointsOf(next.vault), [
      { id: first, parent: null },
      { id: second, parent: first },
    ]);
  });
});

describe('verifying a vault', () => {
  it('finds no damage in a point that is committed meanwhile', async () => {
    const blobs = new MemoryBlobs();
    const writer = open(blobs);
    await backup(writer.vault, writer.context, 1);
    const reader = open(blobs);
    let committed = false;
    const { generation } = reader.vault.state;
    // Between any two looks of the verification at the state, another backup is committed.
    reader.vault.state.generation = async () => {
      const now = await generation.call(reader.vault.state);
      if (!committed) {
        committed = true;
        writer.time.nowMs += 1000;
        await backup(writer.vault, writer.context, 2);
      }
      return now;
    };
    const { lost, damagedPoints, points } = await verifyVault(reader.vault, reader.context, true);
    assert.deepEqual({ lost, damagedPoints }, { lost: [], damagedPoints: [] });
    assert.ok(points >= 1);
  });
});
