import { createHash } from 'node:crypto';
import { z } from 'zod';
import { isHoldfastError } from '#contract/errors.ts';
import { type Id, idSchema, makeId } from '#contract/ids.ts';
import type { CreateRun, JobState, Run } from '#contract/jobs.ts';
import { isoTime, msOfTime } from '#contract/time.ts';
import type { TableAction } from '#ports/table.ts';
import type { Ids, TenantContext } from './context.ts';
import { insertJob, startJob } from './jobs.ts';
import { toItem, unlessThere } from './records.ts';
import type { Services } from './services.ts';
import { type JobRecord, stores } from './stores.ts';

/** Runs whose jobs are not all made yet. */
export const OPEN_RUNS = 'open#runs';
const openRun = z.object({ tenant: idSchema('tenant'), run: idSchema('run') });

/** Starts a run now, of a policy's machines or of those named. */
export async function createRun(services: Services, context: TenantContext, ids: Ids, input: CreateRun): Promise<Run> {
  const { machines, policies, runs } = stores(services.table);
  const policy = 'policy' in input ? (await policies.get(context, input.policy)).value : undefined;
  const chosen = 'policy' in input ? policy!.machines : [...new Set(input.machines)];
  for (const machine of chosen) await machines.get(context, machine);
  const run = newRun(ids.make('run'), chosen, {
    trigger: 'manual',
    createdAt: isoTime(services.clock.nowMs()),
    ...(policy === undefined ? {} : { policy: policy.id }),
  });
  const stored = await runs.create(context, run.id, run, [insertOpenRun(context, run)]);
  await expandRun(services, context, run.id);
  return stored;
}

/** A run with its jobs' ids settled: they follow from the run's, so that making them twice makes them once. */
export function newRun(
  id: Id<'run'>,
  machines: readonly Id<'machine'>[],
  facts: Pick<Run, 'trigger' | 'createdAt' | 'policy' | 'dueAt'>,
): Run {
  const nowMs = msOfTime(facts.createdAt);
  const jobId = (machine: string) => makeId('job', nowMs, createHash('sha256').update(`${id}/${machine}`).digest());
  return { id, ...facts, jobs: machines.map((machine) => ({ id: jobId(machine), machine })) };
}

/** The actions that make a run exist and bind the sweep to make its jobs. */
export function insertRun(services: Services, context: TenantContext, run: Run): TableAction[] {
  const open = {
    put: openRunKey(context, run.id),
    value: toItem({ tenant: context.tenant, run: run.id }),
    ifAbsent: true,
  };
  return [stores(services.table).runs.insert(context, run.id, run), open];
}

/** Makes the run's jobs and starts them. May be cut short anywhere and run again. */
export async function expandRun(services: Services, context: TenantContext, id: Id<'run'>): Promise<void> {
  const { runs } = stores(services.table);
  const run = (await runs.get(context, id)).value;
  for (const { id: job, machine } of run.jobs) await makeJob(services, context, run, job, machine);
  await services.table.delete(openRunKey(context, id));
}

/** Finishes runs that a crash has cut short; at most a page of them. */
export async function expandOpenRuns(services: Services): Promise<void> {
  const page = await services.table.query(OPEN_RUNS, { limit: 100 });
  for (const item of page.items) {
    const { tenant, run } = openRun.parse(item.value);
    await expandRun(services, { tenant }, run);
  }
}

async function makeJob(services: Services, context: TenantContext, run: Run, id: Id<'job'>, machine: Id<'machine'>) {
  const { jobs, activeBackups } = stores(services.table);
  const existing = await jobs.find(context, id);
  if (existing === undefined) {
    const job = await newBackup(services, context, run, id, machine);
    const active = activeBackups.insert(context, machine, { job: id });
    if (
      job.state.status === 'waiting' &&
      !(await unlessThere(services.table.transact([...insertJob(services, context, job), active])))
    ) {
      // A second run on a machine is recorded, never stacked: the backup under way will do.
      const holder = await activeBackups.find(context, machine);
      if (holder?.value.job === id) return startJob(services, context, id, job.work);
      const why =
        holder === undefined
          ? 'Another backup of the machine was under way'
          : `Job ${holder.value.job} is still backing the machine up`;
      await unlessThere(
        services.table.transact(insertJob(services, context, { ...job, state: skipped(services, why) })),
      );
      return;
    }
    if (job.state.status !== 'waiting') {
      await unlessThere(services.table.transact(insertJob(services, context, job)));
      return;
    }
  } else if (existing.value.state.status !== 'waiting') {
    return;
  }
  await startJob(services, context, id, { kind: 'backup', machine });
}

async function newBackup(
  services: Services,
  context: TenantContext,
  run: Run,
  id: Id<'job'>,
  machine: Id<'machine'>,
): Promise<JobRecord> {
  const facts = {
    id,
    run: run.id,
    work: { kind: 'backup', machine } as const,
    createdAt: run.createdAt,
    cancelRequested: false,
  };
  const proxy = await proxyOfMachine(services, context, machine).catch((error: unknown) => {
    if (isHoldfastError(error, 'not-found')) return undefined;
    throw error;
  });
  if (proxy === undefined) {
    // Removed since the policy was made. There is no proxy to name, so any valid id of its kind stands in.
    return {
      ...facts,
      proxy: makeId('proxy', 0, new Uint8Array(10)),
      state: skipped(services, 'The machine or its source was removed'),
    };
  }
  return { ...facts, proxy, state: { status: 'waiting' } };
}

/** The proxy that reaches the machine; throws `not-found`. */
export async function proxyOfMachine(
  services: Services,
  context: TenantContext,
  machine: Id<'machine'>,
): Promise<Id<'proxy'>> {
  const { machines, sources } = stores(services.table);
  const { value } = await machines.get(context, machine);
  return (await sources.get(context, value.source)).value.proxy;
}

function skipped(services: Services, why: string): JobState {
  return { status: 'skipped', endedAt: isoTime(services.clock.nowMs()), why };
}

function insertOpenRun(context: TenantContext, run: Run): TableAction {
  return { put: openRunKey(context, run.id), value: toItem({ tenant: context.tenant, run: run.id }), ifAbsent: true };
}

function openRunKey(context: TenantContext, run: string) {
  return { partition: OPEN_RUNS, sort: `${context.tenant}/${run}` };
}
