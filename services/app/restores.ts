import type { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import type { Id } from '#contract/ids.ts';
import type { Job } from '#contract/jobs.ts';
import type { Page, PageQuery } from '#contract/page.ts';
import type { createRestore, Point } from '#contract/points.ts';
import { isoTime } from '#contract/time.ts';
import type { Ids, TenantContext } from './context.ts';
import { getJob, insertOpenJob, startJob } from './jobs.ts';
import { proxyOfMachine } from './runs.ts';
import type { Services } from './services.ts';
import { type JobRecord, stores } from './stores.ts';

/** Starts a restore of one disk of a point; throws `not-found` for machine, point or disk. */
export async function createRestoreJob(
  services: Services,
  context: TenantContext,
  ids: Ids,
  input: z.output<typeof createRestore>,
): Promise<Job> {
  const { machine, diskIndex, target, rollback } = input;
  await stores(services.table).machines.get(context, machine);
  const point = await findPoint(services, context, machine, input.point);
  if (point.disks[diskIndex] === undefined) {
    throw new HoldfastError(
      'not-found',
      `Point ${point.id} has ${point.disks.length} disks; there is no disk ${diskIndex}`,
      {
        remedy: 'Disks are counted from 0',
      },
    );
  }
  const proxy = input.proxy ?? (await proxyOfMachine(services, context, machine));
  await stores(services.table).proxies.get(context, proxy);
  const job: JobRecord = {
    id: ids.make('job'),
    proxy,
    work: { kind: 'restore', machine, point: point.id, diskIndex, target, rollback },
    state: { status: 'waiting' },
    createdAt: isoTime(services.clock.nowMs()),
    cancelRequested: false,
  };
  await stores(services.table).jobs.create(context, job.id, job, [insertOpenJob(context, job)]);
  await startJob(services, context, job.id, job.work);
  return getJob(services, context, job.id);
}

/** Newest first; of one machine if it is named. */
export function listPoints(
  services: Services,
  context: TenantContext,
  query: PageQuery & { machine?: Id<'machine'> | undefined },
): Promise<Page<Point>> {
  const { points, machinePoints } = stores(services.table);
  if (query.machine === undefined) return points.list(context, query, { newestFirst: true });
  return machinePoints.list(context, query, { newestFirst: true, prefix: `${query.machine}/` });
}

async function findPoint(
  services: Services,
  context: TenantContext,
  machine: Id<'machine'>,
  point: Id<'point'> | 'latest',
): Promise<Point> {
  if (point === 'latest') {
    const latest = (await listPoints(services, context, { machine, limit: 1 })).items[0];
    if (latest === undefined)
      throw new HoldfastError('not-found', 'The machine has no point yet', { remedy: 'Run a backup first' });
    return latest;
  }
  const found = await stores(services.table).machinePoints.find(context, `${machine}/${point}`);
  if (found === undefined) throw new HoldfastError('not-found', `The machine has no point ${point}`);
  return found.value;
}
