import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { HoldfastError } from '#contract/errors.ts';
import { makeId, timeOfId } from '#contract/ids.ts';
import { MACHINE_MAX_DISKS } from '#contract/limits.ts';
import { buildTree } from '#repository/image.ts';
import type { Point } from '#repository/point.ts';
import { encodePoint, pointKey } from '#repository/point.ts';
import type { BackupRequest, BackupResult, EngineContext } from '../request.ts';
import { listPointIds, openReading, readPoint, vaultFolder } from '../vault-reading.ts';
import { BackupRun } from './backup-run.ts';
import { type PlannedDisk, planDisk } from './plan.ts';

const WORKERS_MAX = 8;

/**
 * Backs up a machine's disks as one point. Whatever ends it before the commit leaves the vault as it
 * was and a journal on the proxy, from which the next backup of the machine goes on without sending
 * again what was sent.
 */
export async function runBackup(request: BackupRequest, context: EngineContext): Promise<BackupResult> {
  if (request.disks.length === 0 || request.disks.length > MACHINE_MAX_DISKS) {
    throw new HoldfastError('usage', `A machine has 1 to ${MACHINE_MAX_DISKS} disks, not ${request.disks.length}`);
  }
  const { vault, machine } = request;
  const startMs = context.clock.monotonicMs();
  const takenAtMs = context.clock.nowMs();
  const session = await vault.state.openSession(machine.id, context.holder);
  const folder = vaultFolder(context, vault);
  let committed = false;
  const planned: PlannedDisk[] = [];
  try {
    const reading = await openReading(vault, session.generation, context);
    using _known = reading.known;
    const parent = await parentOf(request);
    for (const [index, disk] of request.disks.entries())
      planned.push(await planDisk(disk, index, machine.id, parent, folder, reading));
    const run = new BackupRun({
      vault,
      session,
      context,
      planned,
      reading,
      journalPath: join(folder, 'journal', machine.id),
      workers: context.workers ?? Math.min(WORKERS_MAX, availableParallelism()),
    });
    try {
      await run.readAll();
      const roots = await run.buildTrees((table, store) => buildTree(table.ids(), store));
      await Promise.all(
        planned.map((disk, i) =>
          disk.state.prepare(roots[i]?.toString('hex') ?? null, disk.disk.sizeBytes, disk.table),
        ),
      );
      const segments = await run.publish();
      const stats = run.stats((context.clock.monotonicMs() - startMs) / 1000);
      const point: Point = {
        facts: {
          vault: vault.id,
          machine: machine.id,
          // Ids order points; a clock that was set back must not put the new one behind its parent.
          point: makeId(
            'point',
            Math.max(takenAtMs, parent === undefined ? 0 : timeOfId(parent.facts.point) + 1),
            context.random.bytes(10),
          ),
          parent: parent?.facts.point ?? null,
          takenAtMs,
          disks: planned.map(({ disk }, i) => ({ root: roots[i]?.toString('hex') ?? null, sizeBytes: disk.sizeBytes })),
          labels: [],
          sealEpoch: vault.keys.sealKeys.length - 1,
        },
        secrets: {
          machineName: machine.name,
          diskNames: request.disks.map((disk) => disk.name),
          changeMarkers: { ...request.changeMarkers },
          config: machine.config ?? null,
          stats: {
            readBytes: stats.readBytes,
            newBytes: stats.newBytes,
            sentBytes: stats.sentBytes,
            newChunks: stats.newChunks,
            knownChunks: stats.knownChunks,
            seconds: stats.seconds,
          },
        },
      };
      await vault.state.commit(session, {
        segments,
        pointKey: pointKey(machine.id, point.facts.point),
        point: encodePoint(point, vault.keys, context.random),
      });
      committed = true;
      await run.finish();
      for (const { state } of planned) await state.finish();
      return {
        point: point.facts.point,
        kind: planned.some(({ plan }) => plan.mode !== 'whole') ? 'incremental' : 'full',
        disks: planned.map(({ disk, plan, why }) => ({
          name: disk.name,
          sizeBytes: disk.sizeBytes,
          kind: plan.mode,
          why,
        })),
        stats: run.stats((context.clock.monotonicMs() - startMs) / 1000),
      };
    } finally {
      await run.close();
    }
  } finally {
    for (const { state } of planned) state.close();
    // A session that cannot be ended now ends with its lease.
    if (!committed) await vault.state.abandon(session).catch(() => undefined);
  }
}

async function parentOf(request: BackupRequest): Promise<Point | undefined> {
  const { vault, machine, parent = 'latest' } = request;
  if (parent === 'none') return undefined;
  if (parent === 'latest' && (await listPointIds(vault, machine.id)).length === 0) {
    if (request.disks.some((disk) => disk.changed !== undefined)) {
      throw new HoldfastError(
        'usage',
        'A change list was given, but the machine has no earlier point that it could be relative to',
        {
          remedy: 'Back the machine up once without a change list',
        },
      );
    }
    return undefined;
  }
  return await readPoint(vault, machine.id, parent);
}
